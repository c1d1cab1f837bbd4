"""The synthesizer: text and a voice in, a waveform out.

Shapes: S samples, N tokens, T mel frames.
"""

from __future__ import annotations

import logging
import operator
import secrets
import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Literal, TypedDict, TypeVar, Unpack

import torch
from torch import Tensor

from tokenlm.arguments import check_callable, check_flag, check_kind, check_number, is_number
from tokenlm.audio.recording import Recording
from tokenlm.audio.splicing import common_channel
from tokenlm.checkpoint.bundle import BundleError
from tokenlm.checkpoint.resolve import ResolveError, bundled_voices, find_voices, resolve
from tokenlm.installation import check_device
from tokenlm.models.lm.decoding import KeyValueCache, SamplingConfig
from tokenlm.models.lm.guards import GuardConfig
from tokenlm.synthesis.acceleration import accelerate
from tokenlm.synthesis.adapters import AdapterStore
from tokenlm.synthesis.components import Components, floating_type
from tokenlm.synthesis.duration import check_duration
from tokenlm.synthesis.editing import EditedRecording, Editor, EditRequest, Side, analyse
from tokenlm.synthesis.rendering import ContextChoice, SegmentRenderer, render_settings
from tokenlm.synthesis.session import Progress, Session, SessionSettings, TokenServer
from tokenlm.synthesis.stream import AsyncSynthesisStream, SynthesisStream
from tokenlm.synthesis.text import SegmentedText
from tokenlm.synthesis.voice import (
    PromptCache,
    Voice,
    VoiceError,
    check_voice,
    clean_recording,
    prepare_voice,
    read_recording,
)
from tokenlm.synthesis.voice_space import FILE as SPACE_FILE
from tokenlm.synthesis.voice_space import (
    DescriptionError,
    VoiceSpace,
    check_untuned,
    mix_voices,
    read_description,
    render_voice,
)
from tokenlm.text.markup import MAX_PAUSE_SECONDS, Style
from tokenlm.text.normalize import frontend
from tokenlm.text.pronunciation import LexiconSource, UserLexicon
from tokenlm.text.tokenizers import PhonemeTokenizer

logger = logging.getLogger(__name__)

MAX_MIXTURES = 16
"""Mixtures of voices that a synthesizer keeps."""

LayoutChoice = Literal["auto", "one_shot", "interleaved"]


class StreamOptions(TypedDict, total=False):
    """Options of `Synthesizer.stream`."""

    voice: Voice | str | None
    seed: int | None
    speed: float
    sampling: SamplingConfig | None
    context: ContextChoice
    num_steps: int | None
    guidance_scale: float | None
    solver: str | None
    layout: LayoutChoice
    instruction: str
    lexicon: LexiconSource
    markup: bool
    sentence_gap: float | None
    paragraph_gap: float | None
    word_times: bool
    duration: float | None


class Synthesizer:
    """Speaks with the models of one bundle.

    Thread-safe: models are shared and never changed by a call. Copying and pickling copies the
    models; other processes better load the bundle themselves, or are forked.
    """

    def __init__(self, components: Components) -> None:
        self.components = components
        self.prompts = PromptCache(components)
        """Caches prompt prefills; results are identical without it."""
        self._mixtures: dict[tuple[object, ...], Voice] = {}
        """The latest mixtures of voices."""

    def __getstate__(self) -> Components:
        """The models; a copy has a prompt cache of its own."""
        return self.components

    def __setstate__(self, components: Components) -> None:
        self.__init__(components)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "mini-en",
        *,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "float32",
        revision: str | None = None,
        compile: bool = False,
        lexicon: LexiconSource = None,
    ) -> Synthesizer:
        """Loads a bundle.

        Args:
            name: a bundled name, a local folder (never touches the network), or a hub id.
            device: where the models run.
            dtype: what the language model and the flow are kept and compute in, with their caches:
                "float32", or "bfloat16" or "float16" for a GPU. The sound deviates a little.
            revision: branch, tag or commit of a hub id.
            compile: whether the estimator of the flow goes through `torch.compile`, which takes
                minutes at the first call and needs a C++ compiler.
            lexicon: pronunciations for all requests, as words with their phones or a file; they win
                over the file `pronunciations.txt` of the bundle.

        Raises:
            ValueError: there is no such bundle, revision, device or dtype, or the bundle is not
                complete.
        """
        check_device(device)
        begun = time.perf_counter()
        folder = resolve(name, revision=revision)
        components = Components(folder, device, dtype=floating_type(dtype))
        accelerate(components, is_compiled=compile)
        components.add_lexicon(UserLexicon.of(lexicon))
        seconds = time.perf_counter() - begun
        logger.info("loaded %s on %s in %.2f s", components.folder, components.device, seconds)
        return cls(components)

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
    def adapters(self) -> AdapterStore:
        """The adapters that are loaded; `max_bytes` limits their memory.

        A voice that names its adapter has it loaded by itself. `load` gives an adapter a name, and
        `dataclasses.replace(voice, adapter=name)` lets it speak another voice.
        """
        return self.components.adapters

    def load_adapter(self, folder: str | Path, name: str = "") -> str:
        """Loads an adapter of this bundle, under its own name or another; returns the name.

        Raises:
            AdapterError: it cannot be read, or was learned on another bundle; both are named.
        """
        return self.adapters.load(folder, name)

    def drop_adapter(self, name: str | Path) -> None:
        """Frees an adapter, by name or folder; streams that speak with it go on to their end.

        Raises:
            AdapterError: no such adapter is loaded.
        """
        self.adapters.drop(name)

    @property
    def voices(self) -> list[str]:
        """Names of the voices in the bundle."""
        return list(bundled_voices(self.components.folder))

    def voice(self, name: str | Path) -> Voice:
        """A voice of the bundle by name, or of a file, or a mixture: `ann:0.7+bob:0.3`.

        Raises:
            VoiceError: there is none, or it belongs to another tokenizer.
        """
        if not isinstance(name, str | Path):
            raise VoiceError(f"a voice is a Voice or a name, not {type(name).__name__}.")
        try:
            found = find_voices(self.components.folder, name)
        except ResolveError as error:
            raise VoiceError(str(error)) from None
        parts = [(Voice.load(path), weight) for path, weight in found]
        return self.mix_voices(parts, name=str(name)) if len(parts) > 1 else self._checked(*parts)

    def mix_voices(self, parts: Sequence[tuple[Voice, float]], *, name: str = "") -> Voice:
        """A voice between others; it can be saved.

        Args:
            parts: voices and their weights; only the ratios of these count.
            name: of the result, default as `ann:0.7+bob:0.3`.

        Raises:
            VoiceError: a weight is not positive, or a voice belongs to another tokenizer or is
                spoken by an adapter.
        """
        check_kind("a mixture", parts, Sequence)
        for part in parts:
            self._checked(part)
            check_number("the weight of a voice", part[1])
        name = name or "+".join(f"{voice.name}:{weight:g}" for voice, weight in parts)
        key = (name, *((voice.digest, voice.adapter, weight) for voice, weight in parts))
        if key not in self._mixtures:
            self._mixtures[key] = mix_voices(self.components, parts, name=name)
            while len(self._mixtures) > MAX_MIXTURES:
                self._mixtures.pop(next(iter(self._mixtures)), None)
        return self._mixtures[key]

    @cached_property
    def voice_space(self) -> VoiceSpace:
        """Attributes of the training voices, by which voices can be designed.

        Raises:
            BundleError: the bundle has none.
            VoiceError: its file is damaged, or belongs to another speaker encoder.
        """
        path = self.components.folder / SPACE_FILE
        if not path.is_file():
            raise BundleError(
                f"{self.components.folder} has no {SPACE_FILE}: voices cannot be designed with it. "
                "`tokenlm data voice-space` makes one from recordings of its training voices."
            )
        space = VoiceSpace.load(path)
        if space.mean.shape[0] != self.components.flow.config.speaker_dim:
            raise VoiceError(f"{path} belongs to another speaker encoder: make it again.")
        return space

    def design_voice(
        self,
        attributes: Mapping[str, float] | None = None,
        *,
        description: str = "",
        base: Voice | str | None = None,
        seed: int = 0,
        name: str = "designed",
    ) -> Voice:
        """A new voice by its attributes; the same arguments give the same voice.

        Args:
            attributes: those of `voice_space`, in standard deviations from the mean voice; with a
                `base`, from that voice.
            description: in words, such as "a calm older man"; `attributes` win over it.
            base: a voice that is changed; default none: the voice is a new one.
            seed: of what attributes leave open; without a `base` alone.
            name: of the voice.

        Raises:
            ValueError: the bundle has no voice space, nothing is understood of the description,
                there is no such attribute, or `base` is spoken by an adapter.
        """
        check_kind("description", description, str)
        check_kind("attributes", attributes, Mapping, NoneType)
        space, wanted = self.voice_space, dict(attributes or {})
        if description.strip():
            told = read_description(description)
            unknown = [word for word in told.attributes if word not in space.names]
            if told.ignored or unknown:
                logger.warning(
                    "not understood of the description: %s", ", ".join(told.ignored + unknown)
                )
            known = {n: v for n, v in told.attributes.items() if n in space.names}
            if not known and not wanted:
                raise DescriptionError(
                    f"the voices of this bundle have no {', '.join(unknown)}; there is: "
                    f"{', '.join(space.names)}."
                )
            wanted = known | wanted
        if base is not None:
            carrier = self._voice(base)
            check_untuned(carrier)
            embedding = space.move(carrier.speaker_embedding, wanted)
        else:
            embedding = space.design(wanted, seed=choose_seed(seed))
            candidates = [self.voice(voice) for voice in self.voices]
            if not candidates:
                raise VoiceError("the bundle has no voice whose prompt a new one could say.")
            carrier = max(candidates, key=lambda v: float(v.speaker_embedding @ embedding))
            carrier = replace(carrier, mel_offset=None, lexicon="")
        told_so = description.strip() or ", ".join(f"{n} {v:+g}" for n, v in wanted.items())
        return render_voice(
            self.components, carrier, embedding, name=name, description=f"designed: {told_so}"
        )

    def _checked(self, part: tuple[Voice, float]) -> Voice:
        check_voice(self.components, part[0])
        return part[0]

    def prepare_voice(
        self,
        source: str | Path | Tensor,
        prompt_text: str | None = None,
        *,
        sample_rate: int | None = None,
        name: str | None = None,
        enhance: bool = False,
    ) -> Voice:
        """Makes a voice of a recording.

        Args:
            source: an audio file, or samples (S,).
            prompt_text: what the recording says; may be left out, the voice is then taken from
                its sound alone.
            sample_rate: of samples, in hertz.
            name: default the name of the file.
            enhance: whether noise is taken out of the recording first, by the enhancer of the
                bundle; a clean one is left as it is.

        Raises:
            AudioError: the file cannot be read.
            BundleError: the bundle has no enhancer.
            VoiceError: the recording is silent or too short, or the text cannot be said.
        """
        return prepare_voice(
            self.components,
            source,
            prompt_text,
            sample_rate=sample_rate,
            name=name,
            enhance=enhance,
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
        solver: str | None = None,
        layout: LayoutChoice = "auto",
        instruction: str = "",
        lexicon: LexiconSource = None,
        markup: bool = True,
        sentence_gap: float | None = None,
        paragraph_gap: float | None = None,
        guards: GuardConfig | None = None,
        word_times: bool = False,
        duration: float | None = None,
        on_progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Tensor:
        """Speaks a text.

        Args:
            text: any English text, with pauses and elements of SSML (docs/markup.md).
            voice: a voice, or the name of one in the bundle; default the first of them.
            seed: the same seed gives the same waveform; None draws one, which is logged.
            speed: of the speech, at the same pitch, from 0.25 to 4.
            context: of the flow; "default" is that of streaming, "full" the best quality.
            sampling: default the bundle's.
            num_steps: solver steps of the flow, default the bundle's.
            guidance_scale: guidance of the flow, default the bundle's.
            solver: of the flow, default the bundle's; other than "euler" needs torchdiffeq.
            layout: of text and speech in the LM; "auto" is "one_shot".
            instruction: how to speak, in words, for a bundle that follows such.
            lexicon: pronunciations, as words with their phones or a file; they win over those of
                the voice and of the bundle.
            markup: whether the text may hold markup; without it brackets are text.
            sentence_gap: seconds of silence after each sentence, default that of its last mark.
            paragraph_gap: seconds of silence after each paragraph.
            guards: of the LM, default the bundle's. Those that read a segment back and try again
                are for `generate` alone: a stream has been played by then.
            word_times: whether to time the words; the bundle needs a token recogniser.
            duration: seconds that the speech is to last. Of several attempts the LM's nearest is
                taken, and its tempo is changed for the rest; without a `speed`.
            on_progress: called with the share that is done.
            should_stop: asked again and again, in the thread of the call, whether to give up, such
                as the `is_set` of a `threading.Event`.

        Returns:
            Waveform (S,) at `sample_rate`; with `word_times` it is a `Speech`, which has `words`.

        Raises:
            ValueError: the text holds nothing that can be said, or an argument is out of range.
            SpeechCancelled: `should_stop` said so; everything of the request has been freed.
        """
        if not isinstance(text, str):
            raise ValueError(
                f"a text is a string, not {type(text).__name__}; pieces of one go to `stream`."
            )
        check_callable("on_progress", on_progress)
        check_callable("should_stop", should_stop)
        session = self.new_session(
            layout="one_shot" if layout == "auto" else layout,
            voice=voice,
            seed=seed,
            speed=speed,
            sampling=sampling,
            context=context,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            solver=solver,
            instruction=instruction,
            lexicon=lexicon,
            markup=markup,
            sentence_gap=sentence_gap,
            paragraph_gap=paragraph_gap,
            guards=guards,
            word_times=word_times,
            duration=duration,
        )
        session.text.read(text)
        return session.generate(on_progress, should_stop)

    def stream(
        self, text: str | Iterable[str], **options: Unpack[StreamOptions]
    ) -> SynthesisStream:
        """Speaks a text in chunks, each of which is made when it is asked for.

        Joined, they are what `generate` gives, as long as the guards of the bundle accept the first
        attempt at a segment.

        Args:
            text: a text, or the pieces of one as they are written; how it is cut does not matter.
            options: as for `generate`, with these differences: the context must have chunks, the
                solver is "euler", and the layout "auto" is "one_shot" for a text and "interleaved",
                where speech begins before the text is complete, for pieces. With `word_times`
                each chunk is a `Speech` with the `words` that are new in it. A `duration` is for a
                whole text alone, which the LM then decodes before the first chunk.

        Raises:
            ValueError: as `generate`; of text in pieces, when it comes in.
        """
        whole, pieces = (text, ()) if isinstance(text, str) else (None, check_pieces(text))
        session = self.open_session(whole, **options)
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
        whole, pieces = (text, ()) if isinstance(text, str) else (None, check_pieces(text))
        session = self.open_session(whole, **options)
        return AsyncSynthesisStream(session, self.sample_rate, pieces)

    def open_session(
        self,
        text: str | None,
        *,
        cache: KeyValueCache | None = None,
        token_server: TokenServer | None = None,
        forced_tokens: Sequence[Sequence[int]] | None = None,
        find_voice: Callable[[str], Voice] | None = None,
        should_stop: Callable[[], bool] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Session:
        """The session that a stream moves; see `stream`.

        Args:
            text: a whole text; None where its pieces are given to the `text` of the session.
            cache: of the LM, shared with the sessions that are decoded in one batch; default its
                own.
            token_server: draws the speech tokens in place of the LM here.
            forced_tokens: speech tokens of each segment that replace those that are drawn.
            find_voice: gives the voices that the markup names; default `voice`.
            should_stop: asked in the thread that moves the session whether to give up, which raises
                `SpeechCancelled`.
            options: as for `stream`.
        """
        solver = options.get("solver")
        if solver not in (None, "euler"):
            raise ValueError(f"streams have the solver 'euler' alone, not {solver!r}; use generate")
        if options.get("layout", "auto") == "auto":
            options["layout"] = "interleaved" if text is None else "one_shot"
        if text is None and options.get("duration") is not None:
            raise ValueError("a duration is for a whole text, not for one that comes in pieces.")
        options["solver"] = "euler"
        session = self.new_session(
            cache=cache,
            token_server=token_server,
            forced_tokens=forced_tokens,
            find_voice=find_voice,
            should_stop=should_stop,
            **options,
        )
        if session.settings.render.context.is_full:
            raise ValueError("the full context cannot be streamed; use generate")
        if text is not None:
            session.text.read(text)
        return session

    def render(
        self,
        tokens: Sequence[Sequence[int]],
        *,
        pauses: Sequence[float] = (),
        styles: Sequence[Style] = (),
        voice: Voice | str | None = None,
        seed: int | None = 0,
        speed: float = 1.0,
        context: ContextChoice = "default",
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        solver: str | None = None,
    ) -> Tensor:
        """Waveform (S,) of speech tokens, such as those of a stream, rendered again.

        Args:
            tokens: `speech_tokens` of a stream: those of each segment.
            pauses: `pauses` of the stream, seconds before each segment, and perhaps those at the
                end; default none.
            styles: `styles` of the stream, those of each segment; default plain ones.
            voice, seed, speed, context, num_steps, guidance_scale, solver: those of the request;
                the solver of a stream is "euler".

        Raises:
            ValueError: a token is out of range, or an argument is.
        """
        size = self.components.flow.config.codebook_size
        for name, value in {"tokens": tokens, "pauses": pauses, "styles": styles}.items():
            check_kind(name, value, Iterable)
        rows = [_token_row(row, size) for row in tokens]
        if not all(is_number(pause) and pause >= 0 for pause in pauses):
            raise ValueError("pauses are numbers of seconds, 0 or more.")
        for style in styles:
            check_kind("a style", style, Style)
        missing = max(len(rows) - len(pauses), 0)
        if len(pauses) > len(rows) + 1:
            raise ValueError(f"there are {len(pauses)} pauses for {len(rows)} segments.")
        if styles and len(styles) != len(rows):
            raise ValueError(f"there are {len(styles)} styles for {len(rows)} segments.")
        session = self.new_session(
            voice=voice,
            seed=seed,
            speed=speed,
            context=context,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            solver=solver,
        )
        session.set_tokens(rows, [*pauses, *[0.0] * missing], styles)
        return session.render_all()

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
        solver: str | None = None,
    ) -> Tensor:
        """Says what a recording says, in another voice.

        Args:
            source: an audio file, or samples (S,) at `sample_rate`.
            voice, seed, context, num_steps, guidance_scale, solver: as for `generate`.
            sample_rate: of samples, in hertz.

        Returns:
            Waveform (S,) at `self.sample_rate`.
        """
        chosen, seed = self._voice(voice), choose_seed(seed)
        tokens = self.tokenize(source, sample_rate=sample_rate)
        settings = render_settings(
            self.components, chosen, context, num_steps, guidance_scale, solver
        )
        renderer = SegmentRenderer(self.components, self.prompts, settings, seed)
        renderer.add(tokens)
        return renderer.render_whole()

    def edit(
        self,
        source: str | Path | Tensor | Recording,
        *,
        text: str | None = None,
        replace: tuple[str, str] | None = None,
        insert: tuple[Side, str | float, str] | None = None,
        delete: str | None = None,
        span: tuple[float, float] | None = None,
        continue_with: str | None = None,
        occurrence: int | None = None,
        sample_rate: int | None = None,
        seed: int | None = 0,
        sampling: SamplingConfig | None = None,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        solver: str | None = None,
        lexicon: LexiconSource = None,
    ) -> EditedRecording:
        """Edits what a recording says; beyond 50 ms around the edit it stays as it is, to the bit.

        Exactly one of `replace`, `insert`, `delete`, `span` and `continue_with` is given. Words are
        found however they are written: "tuesday" is "Tuesday,", too.

        Args:
            source: a wav, flac or other file without loss, samples (S,) or (C, S) at `sample_rate`,
                or what `Recording.load` gives.
            text: what the recording says; default is what the token recogniser reads.
            replace: words, and those that are said in their place.
            insert: ("after", words, new words), with "before" likewise, or ("at", second, new
                words).
            delete: words that are left out.
            span: seconds from and to, the words in which are said again, such as where someone
                coughed; without words it becomes quiet.
            continue_with: words that are said after the last one.
            occurrence: which of several places that say the words, counted from 1.
            sample_rate: of samples, in hertz.
            seed: the same seed gives the same result; None draws one, which is logged.
            sampling: of the LM, default the bundle's.
            num_steps, guidance_scale, solver: of the flow, default the bundle's.
            lexicon: pronunciations, as for `generate`.

        Raises:
            EditError: the words are not in the recording, or several times; the span is out of
                range; the recording is silent, too short or too long.
            AudioError: the file cannot be read, or not without loss.
            BundleError: the bundle has no token recogniser.
        """
        request = EditRequest(
            replace=replace,
            insert=insert,
            delete=delete,
            span=span,
            continue_with=continue_with,
            occurrence=occurrence,
        )
        if isinstance(source, Tensor):
            if sample_rate is None:
                raise VoiceError("samples need their sample_rate.")
            recording = Recording.of(source, sample_rate)
        else:
            recording = source if isinstance(source, Recording) else Recording.load(source)
        components, seed = self.components, choose_seed(seed)
        components.check_tokenizer()
        analysis = analyse(components, recording)
        if text is None:
            text = self._read_tokens(analysis.tokens)
            logger.info("the recording says: %s", text)
        voice = self.prepare_voice(
            common_channel(analysis.waveform, analysis.gains),
            sample_rate=recording.sample_rate,
            name="recording",
        )

        def session() -> Session:
            return self.new_session(
                voice=voice,
                num_steps=num_steps,
                guidance_scale=guidance_scale,
                solver=solver,
                sampling=sampling,
                lexicon=lexicon,
                markup=False,
                word_times=True,
            )

        def read(text: str) -> SegmentedText:
            segments = session().text
            segments.read(text)
            return segments

        settings = session().settings
        editor = Editor(
            components,
            read,
            settings.text_tokenizer or components.text_tokenizer,
            settings.render,
            settings.sampling,
            seed,
        )
        return editor.edit(recording, analysis, request, text)

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
        """Transcript of a recording by the ASR half of the tokenizer.

        Raises:
            BundleError: the bundle has no token recogniser.
        """
        _ = self.components.token_recognizer  # without one, the recording need not be read
        return self._read_tokens(self.tokenize(source, sample_rate=sample_rate))

    def _read_tokens(self, tokens: list[int]) -> str:
        """What speech tokens say."""
        recognizer = self.components.token_recognizer
        tensor = torch.tensor([tokens], device=self.components.device)
        window = 20 * self.components.flow.config.token_rate
        parts = (recognizer.transcribe(part)[0] for part in tensor.split(window, dim=1))
        between = " " if " " in recognizer.config.alphabet else ""
        return between.join(filter(None, parts))

    def _voice(self, voice: Voice | str | None) -> Voice:
        if voice is None:
            if not self.voices:
                raise VoiceError("the bundle has no voices: prepare one from a recording.")
            voice = self.voices[0]
        if isinstance(voice, str | Path):
            return self.voice(voice)
        if not isinstance(voice, Voice):
            raise VoiceError(f"a voice is a Voice or a name, not {type(voice).__name__}.")
        check_voice(self.components, voice)
        return voice

    def new_session(
        self,
        *,
        layout: str = "one_shot",
        voice: Voice | str | None = None,
        seed: int | None = 0,
        speed: float = 1.0,
        sampling: SamplingConfig | None = None,
        context: ContextChoice = "default",
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        solver: str | None = None,
        instruction: str = "",
        lexicon: LexiconSource = None,
        markup: bool = True,
        sentence_gap: float | None = None,
        paragraph_gap: float | None = None,
        guards: GuardConfig | None = None,
        word_times: bool = False,
        duration: float | None = None,
        cache: KeyValueCache | None = None,
        token_server: TokenServer | None = None,
        forced_tokens: Sequence[Sequence[int]] | None = None,
        find_voice: Callable[[str], Voice] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Session:
        """A session without text."""
        components, generation = self.components, self.components.generation
        check_flag("markup", markup)
        check_flag("word_times", word_times)
        check_kind("sampling", sampling, SamplingConfig, NoneType)
        check_kind("guards", guards, GuardConfig, NoneType)
        if layout not in ("one_shot", "interleaved"):
            raise ValueError(f"layout must be 'auto', 'one_shot' or 'interleaved', got {layout!r}")
        chosen = self._voice(voice)
        tokenizer, respeller = components.text_tokenizer, components.respeller
        own = UserLexicon.parse(chosen.lexicon, f"voice {chosen.name}") | UserLexicon.of(lexicon)
        if own:
            tokenizer, respeller = tokenizer.with_lexicon(components.lexicon | own)
        render = render_settings(
            components, chosen, context, num_steps, guidance_scale, solver, speed
        )
        settings = SessionSettings(
            seed=choose_seed(seed),
            sampling=sampling or generation.sampling,
            guards=guards or generation.guards,
            render=render,
            instruction=generation.check_instruction(instruction),
            text_tokenizer=tokenizer if own else None,
            word_times=word_times,
            duration=None if duration is None else check_duration(duration, speed),
        )
        rate = self.sample_rate

        def exact_pause(seconds: float) -> float:
            # Half a sample more, so that rounding cannot take one off.
            num_samples = round(seconds * rate)
            return (num_samples + 0.5) / rate * render.speed if num_samples else 0.0

        text = SegmentedText(
            tokenizer.encode,
            max_length=generation.max_segment_characters,
            layout=layout,
            text_frontend=frontend(tokenizer.config.normalizer),
            instruction_end=generation.instruction_end,
            encode_prefix=(
                tokenizer.encode_prefix if isinstance(tokenizer, PhonemeTokenizer) else None
            ),
            respeller=None if respeller is None else respeller.copy(),
            markup=(
                tokenizer.markup_reader(lambda style: session.check_style(style))
                if markup
                else None
            ),
            sentence_gap=check_gap("sentence_gap", sentence_gap),
            paragraph_gap=check_gap("paragraph_gap", paragraph_gap),
            exact_pause=exact_pause,
            keep_written=word_times,
        )
        session = Session(
            components,
            self.prompts,
            text,
            settings,
            cache=cache,
            token_server=token_server,
            forced_tokens=forced_tokens,
            find_voice=find_voice or self.voice,
            should_stop=should_stop,
        )
        return session


PiecesT = TypeVar("PiecesT")


def check_pieces(text: PiecesT) -> PiecesT:
    """The pieces of a text.

    Raises:
        ValueError: they are none.
    """
    is_iterable = isinstance(text, Iterable | AsyncIterable)
    if not is_iterable or isinstance(text, bytes | bytearray | Mapping):
        raise ValueError(f"a text is a string, or pieces of one, not {type(text).__name__}.")
    return text


def _token_row(tokens: Iterable[int], size: int) -> list[int]:
    """The speech tokens of a segment.

    Raises:
        ValueError: they are none of a codebook of this size.
    """
    try:
        row = [operator.index(token) for token in tokens]
    except TypeError:
        row = [-1]
    if any(not 0 <= token < size for token in row):
        raise ValueError(f"speech tokens are whole numbers from 0 to {size - 1}, in a list each.")
    return row


def check_gap(name: str, seconds: float | None) -> float | None:
    """The seconds of a gap, which None leaves as they are.

    Raises:
        ValueError: they are out of range.
    """
    if seconds is None:
        return None
    if not (is_number(seconds) and 0 <= seconds <= MAX_PAUSE_SECONDS):
        raise ValueError(f"{name} must be from 0 to {MAX_PAUSE_SECONDS:g} seconds, got {seconds}.")
    return seconds


def choose_seed(seed: int | None) -> int:
    """The seed of a request; None draws one, which is logged so that it can be used again.

    Raises:
        ValueError: it is not an integer.
    """
    if seed is None:
        seed = secrets.randbelow(1 << 31)
        logger.info("drew the seed %d", seed)
    try:
        if isinstance(seed, bool):
            raise TypeError
        return operator.index(seed)
    except TypeError:
        message = f"a seed is a whole number, or None for a random one, not {seed!r}."
        raise ValueError(message) from None
