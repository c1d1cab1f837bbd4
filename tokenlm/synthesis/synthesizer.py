"""The synthesizer: text and a voice in, a waveform out.

Shapes: S samples, N tokens, T mel frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tokenlm.audio.level import trim_silence
from tokenlm.checkpoint.resolve import resolve
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.lm.generate import SpeechRequest
from tokenlm.models.lm.sampling import SamplingConfig
from tokenlm.modules.context import FULL_CONTEXT, Context
from tokenlm.modules.noise import mix
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.guards import speak_segments
from tokenlm.synthesis.prompt import clean_recording, prepare_voice, read_recording
from tokenlm.synthesis.voice import Voice, VoiceError
from tokenlm.text.normalize import normalize_paragraphs
from tokenlm.text.segment import Segment, segment

Progress = Callable[[float], None]
"""Called with the share that is done, from 0 to 1."""

ContextChoice = Context | Literal["default", "full"]

SEGMENTS_AT_ONCE = 8
"""Text segments that the LM decodes in one batch."""
WHOLE_TOKENS = 500
"""Longer speech is rendered chunk by chunk, so that memory stays flat."""
EDGE_SECONDS = 0.03
"""Silence that stays at the ends of a segment, besides the pause between segments."""


class Synthesizer:
    """Speaks with the models of one bundle. Models are shared, a call changes nothing."""

    def __init__(self, components: Components) -> None:
        self.components = components

    @classmethod
    def from_pretrained(
        cls, name: str | Path = "mini-en", *, device: str | torch.device = "cpu"
    ) -> Synthesizer:
        """Loads a bundle.

        Args:
            name: a bundled name, a local folder (never touches the network), or a hub id.
            device: where the models run.

        Raises:
            ValueError: there is no such bundle, or it is not complete.
        """
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
        return sorted(path.stem for path in (self.components.folder / "voices").glob("*.voice"))

    def voice(self, name: str | Path) -> Voice:
        """A voice of the bundle by name, or of a file.

        Raises:
            VoiceError: there is none, or it belongs to another tokenizer.
        """
        path = self.components.folder / "voices" / f"{name}.voice"
        if str(name) in self.voices:
            voice = Voice.load(path)
        elif Path(name).is_file():
            voice = Voice.load(name)
        else:
            raise VoiceError(
                f"there is no voice {str(name)!r}; voices here: {', '.join(self.voices)}"
            )
        self._check_voice(voice)
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
        seed: int = 0,
        context: ContextChoice = "default",
        sampling: SamplingConfig | None = None,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        on_progress: Progress | None = None,
    ) -> Tensor:
        """Speaks a text.

        Args:
            text: any English text.
            voice: a voice, or the name of one in the bundle; default the first of them.
            seed: the same seed gives the same waveform.
            context: of the flow; "default" is that of streaming, "full" the best quality.
            sampling: default the bundle's.
            num_steps: solver steps of the flow, default the bundle's.
            guidance_scale: guidance of the flow, default the bundle's.
            on_progress: called with the share that is done.

        Returns:
            Waveform (S,) at `sample_rate`.

        Raises:
            ValueError: the text holds nothing that can be said, or an argument is out of range.
        """
        chosen = self._voice(voice)
        segments = self._segments(text)
        tokens = self._speak(segments, chosen, seed, sampling, on_progress)
        pieces = []
        for number, (part, row) in enumerate(zip(segments, tokens, strict=True)):
            if row:
                waveform = self._render(
                    row, chosen, mix(seed, number), context, num_steps, guidance_scale
                )
                pieces.append(self._trim(waveform))
                pieces.append(torch.zeros(int(part.pause_seconds * self.sample_rate)))
            if on_progress is not None:
                on_progress(0.5 + 0.5 * (number + 1) / len(segments))
        return torch.cat(pieces) if pieces else torch.zeros(self.sample_rate // 10)

    def convert(
        self,
        source: str | Path | Tensor,
        *,
        voice: Voice | str | None = None,
        seed: int = 0,
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
        tokens = self.tokenize(source, sample_rate=sample_rate)
        return self._render(tokens, chosen, seed, context, num_steps, guidance_scale)

    def tokenize(self, source: str | Path | Tensor, *, sample_rate: int | None = None) -> list[int]:
        """Speech tokens of a recording, silence at its ends cut off."""
        self.components.check_tokenizer()
        tokenizer = self.components.speech_tokenizer
        rate = tokenizer.config.mel.sample_rate
        title = "the recording" if isinstance(source, Tensor) else str(source)
        waveform = clean_recording(read_recording(source, sample_rate, rate), rate, title)
        return tokenizer.encode(waveform[None].to(self.components.device))[0][0].tolist()

    def transcribe(self, source: str | Path | Tensor, *, sample_rate: int | None = None) -> str:
        """What the ASR half of the tokenizer hears in a recording."""
        tokens = self.tokenize(source, sample_rate=sample_rate)
        tensor = torch.tensor([tokens], device=self.components.device)
        window = 20 * self.components.flow.config.token_rate
        parts = [
            self.components.token_recognizer.transcribe(part)[0]
            for part in tensor.split(window, dim=1)
        ]
        return " ".join(part for part in parts if part)

    def _voice(self, voice: Voice | str | None) -> Voice:
        if voice is None:
            if not self.voices:
                raise VoiceError("the bundle has no voices: prepare one from a recording.")
            voice = self.voices[0]
        if not isinstance(voice, Voice):
            return self.voice(voice)
        self._check_voice(voice)
        return voice

    def _check_voice(self, voice: Voice) -> None:
        if voice.tokenizer != self.components.fingerprint:
            raise VoiceError(
                f"the voice {voice.name!r} was made with the speech tokenizer {voice.tokenizer}, "
                f"but this bundle has {self.components.fingerprint}: prepare it again."
            )
        flow = self.components.flow.config
        num_tokens = voice.prompt_tokens.shape[0]
        fits = (
            voice.prompt_mel.shape == (num_tokens * flow.frames_per_token, flow.mel.num_mels)
            and voice.speaker_embedding.shape == (flow.speaker_dim,)
            and (num_tokens == 0 or int(voice.prompt_tokens.max()) < flow.codebook_size)
        )
        if not fits:
            raise VoiceError(
                f"the voice {voice.name!r} does not fit the flow of this bundle: prepare it again."
            )

    def _segments(self, text: str) -> list[Segment]:
        limit = self.components.generation.max_segment_characters
        found = segment("\n".join(normalize_paragraphs(text)), max_length=limit)
        if not found:
            raise ValueError("the text holds nothing that can be said.")
        return found

    def _speak(
        self,
        segments: list[Segment],
        voice: Voice,
        seed: int,
        sampling: SamplingConfig | None,
        on_progress: Progress | None,
    ) -> list[list[int]]:
        """Speech tokens of every segment."""
        components = self.components
        encode = components.text_tokenizer.encode
        # A prompt whose text is not known tells the LM nothing that it could go on from.
        goes_on = bool(voice.prompt_text) and components.generation.prompt_in_lm
        requests = [
            SpeechRequest(
                text_tokens=encode(part.text),
                prompt_text_tokens=encode(voice.prompt_text) if goes_on else (),
                prompt_tokens=voice.prompt_tokens.tolist() if goes_on else (),
                seed=seed,
                segment=number,
            )
            for number, part in enumerate(segments)
        ]
        spoken: list[list[int]] = []
        for start in range(0, len(requests), SEGMENTS_AT_ONCE):
            batch = requests[start : start + SEGMENTS_AT_ONCE]
            segments_now = speak_segments(
                components.speech_lm,
                batch,
                [part.text for part in segments[start : start + SEGMENTS_AT_ONCE]],
                sampling or components.generation.sampling,
                components.generation.guards,
                lambda: components.token_recognizer,
            )
            spoken += [part.tokens for part in segments_now]
            if on_progress is not None:
                on_progress(0.5 * len(spoken) / len(requests))
        return spoken

    @torch.no_grad()
    def _render(
        self,
        tokens: list[int],
        voice: Voice,
        seed: int,
        context: ContextChoice,
        num_steps: int | None,
        guidance_scale: float | None,
    ) -> Tensor:
        """Waveform (S,) of speech tokens."""
        components = self.components
        flow, device = components.flow, components.device
        settings = components.generation
        settings = replace(
            settings,
            num_steps=settings.num_steps if num_steps is None else num_steps,
            guidance_scale=settings.guidance_scale if guidance_scale is None else guidance_scale,
        )
        chosen = self._context(context)
        options = {
            "prompt_tokens": voice.prompt_tokens[None].to(device),
            "prompt_mel": voice.prompt_mel[None].to(device),
            "speaker_embedding": voice.speaker_embedding[None].to(device),
            "prompt_seed": voice.seed,
            "context": chosen,
            "num_steps": settings.num_steps,
            "guidance_scale": settings.guidance_scale,
        }
        tensor = torch.tensor([tokens], device=device)
        if len(tokens) <= WHOLE_TOKENS or chosen.is_full:
            mel = flow.generate(tensor, seed=seed, **options)
        else:
            mel = _render_in_chunks(flow, tensor, seed, options)
        return components.vocoder(mel)[0].cpu()

    def _context(self, context: ContextChoice) -> Context:
        if isinstance(context, Context):
            return context
        if context not in ("default", "full"):
            raise ValueError(f"context must be 'default', 'full' or a Context, got {context!r}")
        return FULL_CONTEXT if context == "full" else self.components.flow.config.default_context

    def _trim(self, waveform: Tensor) -> Tensor:
        """Cuts the silence off the ends of a segment, with a short fade against clicks."""
        trimmed = trim_silence(waveform, self.sample_rate, pad_seconds=EDGE_SECONDS).clone()
        size = min(int(0.005 * self.sample_rate), trimmed.shape[0] // 2)
        ramp = torch.linspace(0, 1, size)
        trimmed[:size] *= ramp
        trimmed[trimmed.shape[0] - size :] *= ramp.flip(0)
        return trimmed


def _render_in_chunks(
    flow: FlowDecoder, tokens: Tensor, seed: int, options: dict[str, object]
) -> Tensor:
    """Mel (1, T, M) of long speech, rendered as a stream is: equal, with bounded memory."""
    state = flow.start(**options)  # type: ignore[arg-type]
    pieces = [flow.step(part, state, seed=seed) for part in tokens.split(100, dim=1)]
    return torch.cat([*pieces, flow.step(tokens[:, :0], state, seed=seed, flush=True)], dim=1)


__all__ = ["Progress", "Synthesizer"]
