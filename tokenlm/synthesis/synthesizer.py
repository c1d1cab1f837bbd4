"""The synthesizer: text and a voice in, a waveform out.

Shapes: S samples, N tokens, T mel frames.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from tokenlm.checkpoint.resolve import ResolveError, bundled_voices, find_voice, resolve
from tokenlm.installation import check_device
from tokenlm.models.lm.cache import KeyValueCache
from tokenlm.models.lm.guards import GuardConfig
from tokenlm.models.lm.sampling import SamplingConfig
from tokenlm.synthesis.async_stream import AsyncSynthesisStream
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.offline import Progress, join_segments, render_segment, write_segments
from tokenlm.synthesis.options import ContextChoice, LayoutChoice, StreamOptions, chosen_seed
from tokenlm.synthesis.prompt import check_voice, clean_recording, prepare_voice, read_recording
from tokenlm.synthesis.prompt_cache import PromptCache
from tokenlm.synthesis.rendering import render_settings
from tokenlm.synthesis.script import Script
from tokenlm.synthesis.session import Session, SessionSettings
from tokenlm.synthesis.stream import SynthesisStream
from tokenlm.synthesis.voice import Voice, VoiceError
from tokenlm.text.frontend import frontend
from tokenlm.text.tokenizers import PhonemeTokenizer


class Synthesizer:
    """Speaks with the models of one bundle. Models are shared, a call changes nothing.

    Threads may use one together. It can be copied and pickled, which copies its models, too; other
    processes rather load the bundle themselves, or are forked from one that has it.
    """

    def __init__(self, components: Components) -> None:
        self.components = components
        self.prompts = PromptCache(components)
        """What the models make of prompts; it saves time and changes nothing."""

    def __getstate__(self) -> Components:
        """What a copy, or another process, needs: the models. It makes its own of prompts."""
        return self.components

    def __setstate__(self, components: Components) -> None:
        self.__init__(components)

    @classmethod
    def from_pretrained(
        cls, name: str | Path = "mini-en", *, device: str | torch.device = "cpu"
    ) -> Synthesizer:
        """Loads a bundle.

        Args:
            name: a bundled name, a local folder (never touches the network), or a hub id.
            device: where the models run.

        Raises:
            ValueError: there is no such bundle or device, or the bundle is not complete.
        """
        check_device(device)
        return cls(Components(resolve(name), device))

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in hertz."""
        return self.components.manifest.sample_rate

    @property
    def lookahead_ms(self) -> float:
        """Future that flow and vocoder wait for: the algorithmic look-ahead."""
        flow = self.components.flow.config
        tokens = 1000.0 * flow.lookahead_tokens / flow.token_rate
        return tokens + self.components.vocoder.config.lookahead_ms

    @property
    def voices(self) -> list[str]:
        """Names of the voices in the bundle."""
        return list(bundled_voices(self.components.folder))

    def voice(self, name: str | Path) -> Voice:
        """A voice of the bundle by name, or of a file.

        Raises:
            VoiceError: there is none, or it belongs to another tokenizer.
        """
        try:
            voice = Voice.load(find_voice(self.components.folder, name))
        except ResolveError as error:
            raise VoiceError(str(error)) from None
        check_voice(self.components, voice)
        return voice

    def prepare_voice(
        self,
        source: str | Path | Tensor,
        prompt_text: str | None = None,
        *,
        sample_rate: int | None = None,
        name: str | None = None,
    ) -> Voice:
        """Makes a voice of a recording.

        Args:
            source: an audio file, or samples (S,).
            prompt_text: what the recording says; may be left out, the voice is then taken from
                its sound alone.
            sample_rate: of samples, in hertz.
            name: default the name of the file.

        Raises:
            AudioError: the file cannot be read.
            VoiceError: the recording is silent or too short, or the text cannot be said.
        """
        return prepare_voice(
            self.components, source, prompt_text, sample_rate=sample_rate, name=name
        )

    def generate(
        self,
        text: str,
        *,
        voice: Voice | str | None = None,
        seed: int | None = 0,
        speed: float = 1.0,
        context: ContextChoice = "default",
        sampling: SamplingConfig | None = None,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        layout: LayoutChoice = "auto",
        instruction: str = "",
        guards: GuardConfig | None = None,
        on_progress: Progress | None = None,
    ) -> Tensor:
        """Speaks a text.

        Args:
            text: any English text.
            voice: a voice, or the name of one in the bundle; default the first of them.
            seed: the same seed gives the same waveform; None draws one, which is logged.
            speed: of the speech, at the same pitch, from 0.25 to 4.
            context: of the flow; "default" is that of streaming, "full" the best quality.
            sampling: default the bundle's.
            num_steps: solver steps of the flow, default the bundle's.
            guidance_scale: guidance of the flow, default the bundle's.
            layout: of text and speech in the LM; "auto" is "one_shot".
            instruction: how to speak, in words, for a bundle that follows such.
            guards: what watches over the LM, default the bundle's. Those that read a segment back
                and try again are for `generate` alone: a stream has been heard by then.
            on_progress: called with the share that is done.

        Returns:
            Waveform (S,) at `sample_rate`.

        Raises:
            ValueError: the text holds nothing that can be said, or an argument is out of range.
        """
        chosen, seed = self._voice(voice), chosen_seed(seed)
        settings = render_settings(self.components, context, num_steps, guidance_scale, speed)
        script = self._script(layout if layout != "auto" else "one_shot")
        script.read(text)
        models, prompts = self.components, self.prompts
        sampling = sampling or models.generation.sampling
        tokens = write_segments(
            models, prompts, script, chosen, seed, sampling, on_progress,
            guards=guards, instruction=models.generation.told(instruction),
        )  # fmt: skip
        pauses = [0.0, *(part.pause_seconds for part in script.segments[:-1])]
        return join_segments(models, prompts, tokens, pauses, chosen, seed, settings, on_progress)

    def stream(
        self,
        text: str | Iterable[str],
        *,
        voice: Voice | str | None = None,
        seed: int | None = 0,
        speed: float = 1.0,
        sampling: SamplingConfig | None = None,
        context: ContextChoice = "default",
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        layout: LayoutChoice = "auto",
        instruction: str = "",
    ) -> SynthesisStream:
        """Speaks a text and gives the waveform while it is being made.

        What it gives is what `generate` gives, in chunks, as long as the guards of the bundle
        accept the first attempt at a segment. Each chunk is made when it is asked for.

        Args:
            text: a text, or the pieces of one as they are written; how it is cut does not matter.
            voice, seed, speed, sampling, context, num_steps, guidance_scale, instruction: as for
                `generate`; the context must have chunks.
            layout: of text and speech in the LM; "auto" is "one_shot" for a text and
                "interleaved", where speech begins before the text is complete, for pieces.

        Raises:
            ValueError: as `generate`; of text in pieces when it is found out.
        """
        pieces = () if isinstance(text, str) else text
        session = self.open_session(
            text if isinstance(text, str) else None,
            voice=voice,
            seed=seed,
            speed=speed,
            sampling=sampling,
            context=context,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            layout=layout,
            instruction=instruction,
        )
        return SynthesisStream(session, self.sample_rate, pieces)

    def astream(
        self,
        text: str | Iterable[str] | AsyncIterable[str],
        **options: Unpack[StreamOptions],
    ) -> AsyncSynthesisStream:
        """The same as `stream` for `async for`; the pieces may come from an async iterator, too.

        Args:
            text: a text, or the pieces of one.
            options: as for `stream`.
        """
        whole = text if isinstance(text, str) else None
        pieces = () if isinstance(text, str) else text
        session = self.open_session(whole, **options)
        return AsyncSynthesisStream(session, self.sample_rate, pieces)

    def open_session(
        self,
        text: str | None,
        *,
        voice: Voice | str | None = None,
        seed: int | None = 0,
        speed: float = 1.0,
        sampling: SamplingConfig | None = None,
        context: ContextChoice = "default",
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        layout: LayoutChoice = "auto",
        instruction: str = "",
        cache: KeyValueCache | None = None,
        forced_tokens: Sequence[Sequence[int]] | None = None,
    ) -> Session:
        """What a stream runs on; see `stream`.

        Args:
            text: a whole text; None where its pieces are given to the script of the session.
            voice, seed, speed, sampling, context, num_steps, guidance_scale, layout, instruction:
                as for `stream`.
            cache: of the LM, shared with the sessions that are decoded together; default its own.
            forced_tokens: speech tokens of each segment, to be said in place of those drawn.
        """
        chosen = self._voice(voice)
        render = render_settings(self.components, context, num_steps, guidance_scale, speed)
        if layout == "auto":
            layout = "interleaved" if text is None else "one_shot"
        script = self._script(layout)
        if text is not None:
            script.read(text)
        settings = SessionSettings(
            voice=chosen,
            seed=chosen_seed(seed),
            sampling=sampling or self.components.generation.sampling,
            render=render,
            instruction=self.components.generation.told(instruction),
        )
        if cache is None:
            cache = KeyValueCache(self.components.speech_lm)
        return Session(
            self.components, self.prompts, script, settings, cache, forced_tokens=forced_tokens
        )

    def render(
        self,
        tokens: Sequence[Sequence[int]],
        *,
        pauses: Sequence[float] = (),
        voice: Voice | str | None = None,
        seed: int | None = 0,
        speed: float = 1.0,
        context: ContextChoice = "default",
        num_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> Tensor:
        """Waveform (S,) of speech tokens that were spoken before: a request is heard again.

        Args:
            tokens: `speech_tokens` of a stream: those of each segment.
            pauses: `pauses` of the stream, seconds before each segment; default none.
            voice, seed, speed, context, num_steps, guidance_scale: those of the request.

        Raises:
            ValueError: a token is none of this bundle, or an argument is out of range.
        """
        size = self.components.flow.config.codebook_size
        rows = [list(row) for row in tokens]
        if any(not 0 <= token < size for row in rows for token in row):
            raise ValueError(f"speech tokens are numbers from 0 to {size - 1}.")
        missing = len(rows) - len(pauses)
        if missing < 0:
            raise ValueError(f"there are {len(pauses)} pauses for {len(rows)} segments.")
        settings = render_settings(self.components, context, num_steps, guidance_scale, speed)
        silences = [*pauses, *[0.0] * missing]
        return join_segments(
            self.components,
            self.prompts,
            rows,
            silences,
            self._voice(voice),
            chosen_seed(seed),
            settings,
        )

    def convert(
        self,
        source: str | Path | Tensor,
        *,
        voice: Voice | str | None = None,
        seed: int | None = 0,
        sample_rate: int | None = None,
        context: ContextChoice = "default",
        num_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> Tensor:
        """Says what a recording says in another voice.

        Args:
            source: an audio file, or samples (S,) at `sample_rate`.
            voice, seed, context, num_steps, guidance_scale: as for `generate`.
            sample_rate: of samples, in hertz.

        Returns:
            Waveform (S,) at `self.sample_rate`.
        """
        chosen = self._voice(voice)
        seed = chosen_seed(seed)
        tokens = self.tokenize(source, sample_rate=sample_rate)
        settings = render_settings(self.components, context, num_steps, guidance_scale)
        return render_segment(self.components, self.prompts, tokens, chosen, seed, settings)

    def tokenize(self, source: str | Path | Tensor, *, sample_rate: int | None = None) -> list[int]:
        """Speech tokens of a recording, silence at its ends cut off."""
        self.components.check_tokenizer()
        tokenizer = self.components.speech_tokenizer
        rate = tokenizer.config.mel.sample_rate
        title = "the recording" if isinstance(source, Tensor) else str(source)
        waveform = read_recording(source, sample_rate, rate)
        waveform = clean_recording(waveform, rate, title, is_padded=True)
        return tokenizer.encode(waveform[None].to(self.components.device))[0][0].tolist()

    def transcribe(self, source: str | Path | Tensor, *, sample_rate: int | None = None) -> str:
        """What the ASR half of the tokenizer hears; a BundleError where the bundle has none."""
        recognizer = self.components.token_recognizer
        tokens = [self.tokenize(source, sample_rate=sample_rate)]
        tensor = torch.tensor(tokens, device=self.components.device)
        window = 20 * self.components.flow.config.token_rate
        parts = (recognizer.transcribe(part)[0] for part in tensor.split(window, dim=1))
        between = " " if " " in recognizer.config.alphabet else ""
        return between.join(filter(None, parts))

    def _voice(self, voice: Voice | str | None) -> Voice:
        if voice is None:
            if not self.voices:
                raise VoiceError("the bundle has no voices: prepare one from a recording.")
            voice = self.voices[0]
        if not isinstance(voice, Voice):
            return self.voice(voice)
        check_voice(self.components, voice)
        return voice

    def _script(self, layout: str) -> Script:
        if layout not in ("one_shot", "interleaved"):
            raise ValueError(f"layout must be 'auto', 'one_shot' or 'interleaved', got {layout!r}")
        tokenizer = self.components.text_tokenizer
        return Script(
            tokenizer.encode,
            max_length=self.components.generation.max_segment_characters,
            layout=layout,
            text_frontend=frontend(tokenizer.config.normalizer),
            instruction_end=self.components.generation.instruction_end,
            encode_prefix=(
                tokenizer.encode_prefix if isinstance(tokenizer, PhonemeTokenizer) else None
            ),
        )


__all__ = ["Progress", "Synthesizer"]
