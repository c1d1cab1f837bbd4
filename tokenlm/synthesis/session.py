"""A session: one request from its text to its sound. All speech is made by sessions.

Shapes: S samples.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from tokenlm.audio.joining import SegmentJoiner
from tokenlm.audio.level import amplify
from tokenlm.audio.mel import check_speed
from tokenlm.models.flow import FlowState
from tokenlm.models.lm.decoding import (
    CacheRow,
    Decoding,
    KeyValueCache,
    Prefix,
    SamplingConfig,
    SegmentTokens,
    by_model,
    decode,
    decode_step,
    speech_bounds,
)
from tokenlm.models.lm.guards import GuardConfig
from tokenlm.models.lm.layout import InputSequence
from tokenlm.modules.exact import mix
from tokenlm.synthesis.adapters import VoiceModels
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.duration import DurationPlan, shortest_seconds
from tokenlm.synthesis.guards import (
    Check,
    ReadBack,
    ReadBackScore,
    attempt_seed,
    decode_checked,
    decode_nearest,
)
from tokenlm.synthesis.rendering import RenderSettings, SegmentRenderer, render_chunks
from tokenlm.synthesis.text import SegmentedText
from tokenlm.synthesis.voice import PromptCache, Voice, prompt_sequence
from tokenlm.synthesis.words import Placement, Speech, TimedWord, WordTimer
from tokenlm.text.markup import Style
from tokenlm.text.tokenizers import PhonemeTokenizer, TextTokenizer

logger = logging.getLogger(__name__)

Progress = Callable[[float], None]
"""Called with the share that is done, from 0 to 1."""

SEGMENTS_PER_BATCH = 8
"""Text segments that `Session.generate` decodes in one batch."""


class SpeechCancelled(Exception):
    """A request was asked to stop."""


class _Monotonic:
    """Reports progress that grows: attempts that follow others begin anew."""

    def __init__(self, report: Progress | None) -> None:
        self._report, self._last = report, 0.0

    def __call__(self, share: float) -> None:
        if self._report is not None and share > self._last:
            self._last = share
            self._report(share)


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """The options of a request."""

    seed: int
    sampling: SamplingConfig
    guards: GuardConfig
    render: RenderSettings
    instruction: str = ""
    text_tokenizer: TextTokenizer | None = None
    """With the pronunciations of the request; None is that of the bundle."""
    word_times: bool = False
    """Whether to time the words."""
    duration: float | None = None
    """Seconds that the speech is to last; None is as long as it takes."""


class TokenServer(Protocol):
    """Draws speech tokens elsewhere, such as in an LLM server."""

    def begin(
        self,
        sequence: InputSequence,
        *,
        sampling: SamplingConfig,
        seed: int,
        segment: int,
        forced: Sequence[int] | None,
        guards: GuardConfig,
    ) -> SegmentTokens:
        """The tokens of a segment, as they come; arguments as for `SegmentTokens`."""
        ...


class Session:
    """One request from its text to its sound, the only implementation of speaking.

    `generate` speaks a whole text, several segments in one batch. A stream moves the session in
    small steps: `can_step` begins segments as they are due, `decode_step` decodes the next token of
    `decoding`, `collect` hands it to the renderer, and `render` gives the waveform of the next
    chunk; `next_chunk` does all of that for one session. Results do not depend on the order in
    which sessions are moved.
    """

    def __init__(
        self,
        components: Components,
        prompts: PromptCache,
        text: SegmentedText,
        settings: SessionSettings,
        *,
        cache: KeyValueCache | None = None,
        token_server: TokenServer | None = None,
        forced_tokens: Sequence[Sequence[int]] | None = None,
        find_voice: Callable[[str], Voice] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Creates a session; nothing is computed yet.

        Args:
            components: the models.
            prompts: prompt states of voices.
            text: the text, which may still be coming in.
            settings: of the request.
            cache: of the LM, shared with the sessions that are decoded in one batch; default its
                own.
            token_server: draws the speech tokens in place of the LM here. The session is then moved
                step by step, by who moves the server's `SegmentTokens`.
            forced_tokens: speech tokens of each segment that replace those that are drawn.
            find_voice: gives the voices that the markup of the text names; default none.
            should_stop: asked before each piece of long work whether to give up, which raises
                `SpeechCancelled`; in the thread of that work.
        """
        self.text, self.settings = text, settings
        self.decoding: SegmentTokens | None = None
        """The segment that is being decoded."""
        self.speech_tokens: list[list[int]] = []
        """Of each segment so far."""
        self.pauses: list[float] = []
        """Seconds of silence before each segment, at a speed of 1; behind them those at the end, if
        there are any."""
        self.styles: list[Style] = []
        """Of each segment so far."""
        self.is_closed = False
        self._should_stop: Callable[[], bool] = should_stop or (lambda: False)
        self._components, self._prompts = components, prompts
        self._cache = KeyValueCache(components.speech_lm) if cache is None else cache
        self._token_server, self._forced = token_server, forced_tokens
        self._row: CacheRow | None = None
        self._find_voice = find_voice
        self._voices: dict[str, Voice] = {"": settings.render.voice}
        """By name in the markup."""
        self._models: dict[str, VoiceModels] = {"": settings.render.models}
        """What speaks each of these voices; kept, though their adapters be dropped meanwhile."""
        self._check_tokens_are_local("")
        self._prefixes: dict[str, Prefix] = {}
        """Of the LM, for each of these voices."""
        self._flows: dict[str, FlowState] = {}
        self._joiner = SegmentJoiner(components.manifest.sample_rate)
        self._renderers: list[SegmentRenderer] = []
        """Of the segment that is rendered next, and of those after it that have been begun."""
        self._num_rendered = 0
        """Segments that have been rendered to their end."""
        self._is_decoded_first = False
        """Whether all segments of a stream are decoded before the first is rendered."""
        self._is_within_segment = False
        """Whether anything of the segment that is rendered next has been joined."""
        self._plan = self._new_plan()
        self._speed = settings.render.speed
        """Of the segment that is rendered next."""
        self._num_samples = 0
        """Samples of the speech so far."""
        self._timer = self._new_timer() if settings.word_times else None

    # Whole speech

    def generate(
        self, on_progress: Progress | None = None, should_stop: Callable[[], bool] | None = None
    ) -> Tensor:
        """Waveform (S,) of the whole text, which must be complete; the session is then closed.

        Args:
            on_progress: called with the share that is done: half of it is the LM's.
            should_stop: in place of that of the session; checked before each step of the LM, each
                reading back, each alignment of words and each segment that is rendered.

        Raises:
            SpeechCancelled: it was to stop.
        """
        begun = time.perf_counter()
        if should_stop is not None:
            self._should_stop = should_stop
        try:
            self._check_cancelled()
            self.decode_all(on_progress)
            if self.settings.text_tokenizer is not None and self.unlisted_words:
                logger.info("in no lexicon, said by rule: %s", " ".join(self.unlisted_words))
            waveform = self.render_all(on_progress)
            logger.info(
                "%d segments, %d speech tokens, %.2f s of speech in %.2f s",
                len(self.speech_tokens),
                sum(map(len, self.speech_tokens)),
                waveform.shape[0] / self._components.manifest.sample_rate,
                time.perf_counter() - begun,
            )
            return waveform
        finally:
            self.close()

    def decode_all(self, on_progress: Progress | None = None) -> None:
        """Decodes all segments, several in one batch; the guards may try again."""
        assert self.text.is_finished and not self.speech_tokens
        report = _Monotonic(on_progress)
        segments, guards = self.text.segments, self.settings.guards
        for start in range(0, len(segments), SEGMENTS_PER_BATCH):
            numbers = range(start, min(start + SEGMENTS_PER_BATCH, len(segments)))
            if self._plan is not None and self._forced is None:
                rows = self._decode_nearest(self._plan, numbers, report)
            elif guards.needs_recognizer and self._forced is None:
                checked = decode_checked(
                    [segments[number].text for number in numbers],
                    lambda tries, first=start: self._decode(
                        [(first + i, n) for i, n in tries], report
                    ),
                    self._check_read_back(),
                    guards,
                )
                rows = [part.tokens for part in checked]
            else:
                rows = self._decode([(number, 0) for number in numbers], report)
            self.speech_tokens += rows
            self.pauses += [self._pause_before(number) for number in numbers]
            self.styles += [segments[number].style for number in numbers]
            report(0.5 * len(self.speech_tokens) / len(segments))

    def set_tokens(
        self,
        tokens: Sequence[Sequence[int]],
        pauses: Sequence[float],
        styles: Sequence[Style] = (),
    ) -> None:
        """Sets the speech tokens of all segments, in place of `decode_all`.

        Args:
            tokens: of each segment.
            pauses: seconds before each segment, and those at the end, if there are any.
            styles: of each segment; default plain ones.
        """
        self.speech_tokens, self.pauses = [list(row) for row in tokens], list(pauses)
        self.styles = list(styles) or [Style()] * len(self.speech_tokens)
        for style in self.styles:
            self.check_style(style)

    def render_all(self, on_progress: Progress | None = None) -> Tensor:
        """Waveform (S,) of the speech tokens of all segments, each rendered as a whole."""
        pieces = [torch.zeros(0, dtype=torch.float32)]
        self._time_decoded()
        for number in range(len(self.speech_tokens)):
            self._check_cancelled()
            self._begin_decoded(number)
            if self.has_silent_segment:
                self.skip_segment()
            else:
                pieces.append(self.join(self.renderer.render_whole(), is_last=True))
            if on_progress is not None:
                on_progress(0.5 + 0.5 * (number + 1) / len(self.speech_tokens))
        pieces.append(self.end_silence())
        waveform = torch.cat(pieces)
        return waveform if self._timer is None else Speech.of(waveform, self.words)

    # Step by step

    def prepare(self) -> None:
        """Prefills the prompt, which may take long.

        May be called in any thread before the session is moved, and again when its text has named
        other voices; else the first segment in a voice does it.
        The session keeps the states until it is closed.

        Raises:
            SpeechCancelled: it was to stop.
        """
        for name in [] if self.is_closed else [*self._voices]:
            self._check_cancelled()
            if self._token_server is None:
                self._prompt_prefix(name)
            self._prompt_flow(name)
        if self._plan is not None and not (self.speech_tokens or self.is_closed):
            # How fast the first segment is to be depends on the length of all of them.
            self.decode_all()
            self._is_decoded_first = True
            self._time_decoded()
            self._begin_decoded(0)

    def check_style(self, style: Style) -> None:
        """Checks that a style can be spoken, and gets its voice.

        Raises:
            ValueError: there is no such voice, or its speed is out of range.
        """
        check_speed(self.settings.render.speed * style.rate)
        if self._plan is not None and style.rate != 1.0:
            raise ValueError("where a duration is given, it decides on the rate.")
        if style.voice not in self._voices:
            if self._find_voice is None:
                raise ValueError("the voice cannot be changed here.")
            voice = self._find_voice(style.voice)
            self._models[style.voice] = self._components.models(voice.adapter)
            self._check_tokens_are_local(style.voice)
            self._voices[style.voice] = voice

    def _check_tokens_are_local(self, voice: str) -> None:
        if self._token_server is not None and self._models[voice].changes_lm:
            raise ValueError(
                "the LLM server that draws the speech tokens does not have the adapter of the "
                "voice; speak it where the language model runs here."
            )

    def voice_of(self, style: Style) -> Voice:
        """The voice of a style that has been checked."""
        return self._voices[style.voice]

    def models_of(self, style: Style) -> VoiceModels:
        """What speaks the voice of a style that has been checked."""
        return self._models[style.voice]

    @property
    def shortest_seconds(self) -> float:
        """Seconds that the whole text takes at the least; known before anything is decoded."""
        components = self._components
        if not self.settings.guards.length_bounds:
            return 0.0
        fewest = [
            speech_bounds(components.speech_lm, len(segment.tokens))[0]
            for segment in self.text.segments
        ]
        return shortest_seconds(fewest, components.flow.config.token_rate)

    @property
    def is_done(self) -> bool:
        """Whether everything has been spoken, or the session is closed."""
        begun = len(self.speech_tokens)
        decoded = self.text.is_finished and begun == len(self.text.segments)
        is_rendered = decoded and self.decoding is None and not self._renderers
        return self.is_closed or (is_rendered and not self.has_end_silence)

    def can_step(self) -> bool:
        """Whether the LM can decode a token; begins the next segment where that is due."""
        if self.is_closed:
            return False
        if self._plan is not None:
            self.prepare()
        if self.decoding is None and len(self.speech_tokens) < len(self.text.segments):
            self._begin_segment()
        if self.decoding is None:
            return False
        self._add_text(self.decoding, len(self.speech_tokens) - 1)
        return self.decoding.can_step

    @property
    def is_collected(self) -> bool:
        """Whether `collect` has nothing to do."""
        decoding = self.decoding
        if decoding is None:
            return True
        return not decoding.is_done and len(decoding.tokens) == len(self.speech_tokens[-1])

    @property
    def can_render(self) -> bool:
        """Whether the next chunk can be rendered."""
        if not self._renderers:
            return self.has_end_silence
        return self.renderer.ready_tokens > 0 or self._is_decoded

    @property
    def renderer(self) -> SegmentRenderer:
        """Of the segment that is rendered next."""
        return self._renderers[0]

    @property
    def num_bytes(self) -> int:
        """Memory of the states of flow and vocoder; it does not grow with the speech."""
        return sum(renderer.num_bytes for renderer in self._renderers)

    @property
    def num_cache_bytes(self) -> int:
        """Memory of the keys and values of the LM."""
        row = self._row
        return 0 if row is None else row.cache.num_bytes // len(row.cache.rows)

    def collect(self) -> None:
        """Hands newly decoded tokens to the renderer."""
        decoding = self.decoding
        if decoding is None:
            return
        tokens = self.speech_tokens[-1]
        new = decoding.tokens[len(tokens) :]
        self._renderers[-1].add(new)
        tokens += new
        if self._timer is not None:
            self._timer.add(len(self.speech_tokens) - 1, new, is_last=decoding.is_done)
        if decoding.is_done:
            self.decoding = None
            if self.text.is_finished and len(self.speech_tokens) == len(self.text.segments):
                self._release()

    def render(self) -> Tensor:
        """Waveform (S,) of the next chunk; empty where it is quiet before a segment."""
        return render_sessions([self])[0]

    def next_chunk(self, should_stop: Callable[[], bool] = lambda: False) -> Tensor | None:
        """Moves the session up to its next chunk.

        Args:
            should_stop: checked before each step.

        Returns:
            Waveform (S,), or None where the speech ends, waits for text, or was stopped.
        """
        while not should_stop() and (self.can_step() or self.can_render):
            # What can be rendered is not kept waiting for more tokens.
            if self.can_render:
                chunk = self.render()
                if chunk.shape[0]:
                    return chunk
                continue
            decoding = self.decoding
            assert isinstance(decoding, Decoding), "a token server moves its own"
            decode_step(decoding.model, [decoding])
            self.collect()
        return None

    def join(self, waveform: Tensor, is_last: bool) -> Tensor:
        """Output (S',) for the waveform (S,) of a chunk, `is_last` that of its segment."""
        pieces = []
        if not self._is_within_segment:
            self._is_within_segment = True
            pause = self.pauses[self._num_rendered] / self._speed
            pieces.append(self._joiner.pause(pause))
        self._num_samples += sum(piece.shape[0] for piece in pieces)
        volume = self.styles[self._num_rendered].volume
        spoken = self._joiner.push(waveform, final=is_last)
        pieces.append(amplify(spoken, volume) if volume else spoken)
        if is_last and self._plan is not None and self._is_last_segment:
            num_quiet = self._joiner.num_quiet
            pieces[-1] = self._plan.fitted(pieces[-1], self._num_samples, num_quiet)
        self._num_samples += pieces[-1].shape[0]
        output = torch.cat(pieces)
        if self._timer is not None and pieces[-1].shape[0]:
            output = self._with_words(output, self._timer, pieces[-1].shape[0], is_last)
        if is_last:
            self.skip_segment()
        return output

    @property
    def words(self) -> list[TimedWord]:
        """Words so far, where they are timed."""
        return [] if self._timer is None else list(self._timer.words)

    @property
    def has_silent_segment(self) -> bool:
        """Whether the segment that is rendered next has ended without any token."""
        return self._is_decoded and not self.speech_tokens[self._num_rendered]

    def skip_segment(self) -> None:
        """Goes on to the next segment."""
        if self._timer is not None:
            self._timer.place(self._num_rendered, None)
        self._renderers.pop(0)
        self._num_rendered += 1
        self._is_within_segment = False
        if self._is_decoded_first and self._num_rendered < len(self.speech_tokens):
            self._begin_decoded(self._num_rendered)

    @property
    def has_end_silence(self) -> bool:
        """Whether all has been rendered but the silence at the end of the text."""
        is_rendered = self._num_rendered == len(self.speech_tokens)
        return is_rendered and self._plan is None and self._end_pause > 0

    def end_silence(self) -> Tensor:
        """The silence (S,) behind the last segment; empty where there is none."""
        if not self.has_end_silence:
            return torch.zeros(0, dtype=torch.float32)
        seconds = self._end_pause
        self.pauses[len(self.speech_tokens) :] = [seconds]
        self._num_rendered += 1
        silence = self._joiner.pause(seconds / self.settings.render.speed)
        return silence if self._timer is None else Speech.of(silence, ())

    def close(self) -> None:
        """Frees everything. May be called at any time, and again."""
        if not self.is_closed:
            tokens = sum(map(len, self.speech_tokens))
            logger.debug("closed after %d segments, %d tokens", len(self.speech_tokens), tokens)
        self.is_closed = True
        decoding, self.decoding = self.decoding, None
        self._renderers = []
        self._prefixes, self._flows = {}, {}
        if decoding is not None:
            decoding.end()
        self._release()

    # Segments

    @property
    def _is_decoded(self) -> bool:
        """Whether all tokens of the segment that is rendered next are there."""
        return len(self._renderers) > 1 or self.decoding is None

    def _check_read_back(self) -> Check:
        """Scores of speech tokens that are to say texts, unless the request is to stop."""
        read_back = self._read_back()

        def check(
            texts: Sequence[str], rows: Sequence[Sequence[int]]
        ) -> list[ReadBackScore | None]:
            self._check_cancelled()
            return read_back(texts, rows)

        return check

    def _read_back(self) -> ReadBack:
        tokenizer = self.settings.text_tokenizer
        if tokenizer is None:
            return self._components.read_back
        return ReadBack(self._components.token_recognizer, tokenizer)

    @property
    def unlisted_words(self) -> list[str]:
        """Words so far that no lexicon lists, so that they are said by rule, each once."""
        tokenizer = self.settings.text_tokenizer or self._components.text_tokenizer
        texts = [segment.text for segment in self.text.segments]
        return list(
            dict.fromkeys(word for text in texts for word in tokenizer.unlisted_words(text))
        )

    def _prompt_prefix(self, voice: str) -> Prefix:
        """Start of an LM sequence in a voice, by its name in the markup."""
        if voice not in self._prefixes:
            self._prefixes[voice] = self._prompts.prefix(
                self._voices[voice],
                self.text.layout,
                self.settings.instruction,
                models=self._models[voice],
            )
        return self._prefixes[voice]

    def _prompt_flow(self, voice: str) -> FlowState:
        if voice not in self._flows:
            render = self.settings.render
            self._flows[voice] = self._prompts.flow_state(
                self._voices[voice],
                render.context,
                render.num_steps,
                render.guidance_scale,
                models=self._models[voice],
            )
        return self._flows[voice]

    def _begin_segment(self) -> None:
        number = len(self.speech_tokens)
        style = self.text.segments[number].style
        self.styles.append(style)
        renderer = self._new_renderer(number, self._prompt_flow(style.voice).shared())
        if self._token_server is not None:
            self.decoding = self._remote_tokens(self._token_server, number)
        else:
            if self._row is None:
                self._row = self._cache.add()
            self.decoding = self._new_decoding(number, cache=self._cache, row=self._row)
        self._renderers.append(renderer)
        self.speech_tokens.append([])
        self.pauses.append(self._pause_before(number))
        if self.decoding.is_done:
            self.collect()

    def _begin_decoded(self, number: int) -> None:
        """Begins to render a segment whose tokens are there."""
        tokens = self.speech_tokens[number]
        if self._plan is not None:
            self._speed = self._plan.speed(
                number, self.speech_tokens, self.pauses, self._num_samples
            )
        voice = self.styles[number].voice
        flow = self._prompt_flow(voice).shared() if self._is_decoded_first else None
        self._renderers.append(self._new_renderer(number, flow))
        self.renderer.add(tokens)

    def _time_decoded(self) -> None:
        """Times the words of all segments, whose tokens are there."""
        if self._timer is not None:
            for number, tokens in enumerate(self.speech_tokens):
                self._timer.add(number, tokens, is_last=True)

    def _new_decoding(
        self, number: int, *, cache: KeyValueCache, row: CacheRow | None = None, attempt: int = 0
    ) -> Decoding:
        settings, voice = self.settings, self.text.segments[number].style.voice
        prefix, models = self._prompt_prefix(voice), self._models[voice]
        return Decoding(
            models.speech_lm,
            cache,
            prefix.sequence.copy(),
            sampling=settings.sampling,
            seed=attempt_seed(settings.seed, attempt),
            segment=number,
            forced=self._forced_tokens(number),
            key_values=prefix.key_values,
            row=row,
            guards=settings.guards,
            additions=models.additions.get("speech_lm"),
        )

    def _remote_tokens(self, server: TokenServer, number: int) -> SegmentTokens:
        settings, style = self.settings, self.text.segments[number].style
        sequence = prompt_sequence(
            self._components, self.voice_of(style), self.text.layout, settings.instruction
        )
        return server.begin(
            sequence,
            sampling=settings.sampling,
            seed=settings.seed,
            segment=number,
            forced=self._forced_tokens(number),
            guards=settings.guards,
        )

    def _forced_tokens(self, number: int) -> Sequence[int] | None:
        """Tokens of a segment that replace those that are drawn; None where they are drawn."""
        if self._forced is None:
            return None
        return self._forced[number] if number < len(self._forced) else ()

    def _check_cancelled(self) -> None:
        if self._should_stop():
            raise SpeechCancelled("the speech was cancelled.")

    def _decode(self, attempts: Sequence[tuple[int, int]], report: _Monotonic) -> list[list[int]]:
        """Speech tokens of attempts, (number of the segment, number of the attempt) each."""
        cache = KeyValueCache(self._components.speech_lm)
        decodings = [
            self._new_decoding(number, cache=cache, attempt=attempt) for number, attempt in attempts
        ]
        for (number, _), decoding in zip(attempts, decodings, strict=True):
            self._add_text(decoding, number)
        num_before, num_segments = len(self.speech_tokens), len(self.text.segments)

        def on_step(_: int) -> None:
            self._check_cancelled()
            ended = {n for (n, _), item in zip(attempts, decodings, strict=True) if item.is_done}
            report(0.5 * (num_before + len(ended)) / num_segments)

        for model, group in by_model(decodings).items():
            decode(model, group, on_step)
        return [decoding.tokens for decoding in decodings]

    def _add_text(self, decoding: SegmentTokens, number: int) -> None:
        """Gives a decoding all that is known of the text of its segment."""
        segment, sequence = self.text.segments[number], decoding.sequence
        is_complete = segment.is_complete  # read before the tokens, which another thread may add
        new = segment.tokens[sequence.num_text :]
        if new:
            sequence.add_text(new)
        if is_complete:
            sequence.end_text()

    def _pause_before(self, number: int) -> float:
        text = self.text
        return text.segments[number - 1].pause_seconds if number else text.lead_seconds

    @property
    def _end_pause(self) -> float:
        """Seconds of silence at the end, at a speed of 1; 0 while that is not known."""
        begun, text = len(self.speech_tokens), self.text
        if len(self.pauses) > begun:
            return self.pauses[begun]
        is_last = text.is_finished and 0 < begun == len(text.segments)
        return text.segments[-1].pause_seconds if is_last else 0.0

    def _new_renderer(self, number: int, flow: FlowState | None = None) -> SegmentRenderer:
        seed, style = mix(self.settings.seed, number), self.styles[number]
        settings = replace(
            self.settings.render,
            voice=self.voice_of(style),
            models=self.models_of(style),
            speed=self._speed * style.rate,
        )
        return SegmentRenderer(self._components, self._prompts, settings, seed, flow)

    @property
    def _is_last_segment(self) -> bool:
        """Whether the segment that is rendered next is the last with any tokens."""
        return not any(self.speech_tokens[self._num_rendered + 1 :])

    def _decode_nearest(
        self, plan: DurationPlan, numbers: Sequence[int], report: _Monotonic
    ) -> list[list[int]]:
        """Speech tokens of segments: of several attempts at each the nearest to its share."""
        segments = self.text.segments
        wanted = plan.num_tokens(
            [len(segment.tokens) for segment in segments],
            [segment.pause_seconds for segment in segments],
        )
        can_check = self._components.has_token_recognizer
        return decode_nearest(
            [segments[number].text for number in numbers],
            [wanted[number] for number in numbers],
            lambda tries: self._decode([(numbers[index], n) for index, n in tries], report),
            self._check_read_back() if can_check else None,
        )

    def _new_plan(self) -> DurationPlan | None:
        components, seconds = self._components, self.settings.duration
        if seconds is None:
            return None
        return DurationPlan(
            seconds,
            sample_rate=components.manifest.sample_rate,
            token_rate=components.flow.config.token_rate,
            silent_tokens=components.generation.guards.silent_tokens,
        )

    def _new_timer(self) -> WordTimer:
        components = self._components
        assert self.text.written is not None
        return WordTimer(
            self._read_back(),
            self.text.written,
            silent_tokens=components.generation.guards.silent_tokens,
            token_rate=components.flow.config.token_rate,
            words_at=self._words_at,
            check_cancelled=self._check_cancelled,
        )

    def _words_at(self, number: int, num_tokens: int | None) -> Sequence[str]:
        """Words of a segment that the LM has read by its first `num_tokens` speech tokens.

        In the interleaved layout these are not all words that are known: how many are depends on
        when the text comes in, and times must not.
        """
        words = self.text.segments[number].words
        if num_tokens is None or self.text.layout == "one_shot":
            return words
        config = self._components.speech_lm.config
        tokenizer = self.settings.text_tokenizer or self._components.text_tokenizer
        blocks = -(-num_tokens // config.block_speech_tokens)
        left, count = blocks * config.block_text_tokens, 0
        for word in words:
            left -= len(tokenizer.encode(word.strip()))
            left -= isinstance(tokenizer, PhonemeTokenizer)  # the boundary
            if left < 0:
                break
            count += 1
        return words[:count]

    def _with_words(
        self, output: Tensor, timer: WordTimer, num_samples: int, is_last: bool
    ) -> Speech:
        """A chunk with its words.

        Args:
            output: (S,) of the chunk, which counts as spoken already.
            timer: of the session.
            num_samples: of the output, those of the segment, which follow a pause.
            is_last: whether the segment ends with it.
        """
        rate = self._components.manifest.sample_rate
        first = self._num_samples - num_samples
        place = Placement(
            token_seconds=(first - self._joiner.first_sample) / rate,
            sample_seconds=first / rate,
            speed=self._speed * self.styles[self._num_rendered].rate,
        )
        timer.place(self._num_rendered, place)
        end = math.inf if is_last else self._num_samples / rate
        return Speech.of(output, timer.take(end))

    def _release(self) -> None:
        if self._row is not None:
            self._row.release()
            self._row = None

    def _snapshot(self) -> Callable[[], None]:
        """A function that restores what rendering changes."""
        renderers, joiner = [*self._renderers], copy.copy(self._joiner)
        num_rendered, is_within = self._num_rendered, self._is_within_segment
        num_samples, speed = self._num_samples, self._speed
        restore_renderers = [renderer.snapshot() for renderer in renderers]
        restore_times = None if self._timer is None else self._timer.snapshot()

        def restore() -> None:
            self._renderers, self._joiner = renderers, joiner
            self._num_rendered, self._is_within_segment = num_rendered, is_within
            self._num_samples, self._speed = num_samples, speed
            if restore_times is not None:
                restore_times()
            for restore_renderer in restore_renderers:
                restore_renderer()

        return restore


def render_sessions(sessions: Sequence[Session]) -> list[Tensor]:
    """Waveform (S,) of the next chunk of each session, rendered in one batch.

    Where that fails for several, they are as they were before: each can be rendered alone.
    """
    if len(sessions) == 1:
        return _render_sessions(sessions)
    snapshots = [session._snapshot() for session in sessions]
    try:
        return _render_sessions(sessions)
    except BaseException:
        for restore in snapshots:
            restore()
        raise


def _render_sessions(sessions: Sequence[Session]) -> list[Tensor]:
    chunks = [torch.zeros(0, dtype=torch.float32)] * len(sessions)
    sounding = []
    for index, session in enumerate(sessions):
        if session.has_end_silence:
            chunks[index] = session.end_silence()
        elif session.has_silent_segment:
            session.skip_segment()
        else:
            sounding.append(index)
    last = [sessions[index].renderer.ready_tokens == 0 for index in sounding]
    waveforms = render_chunks([sessions[index].renderer for index in sounding])
    for index, waveform, is_last in zip(sounding, waveforms, last, strict=True):
        chunks[index] = sessions[index].join(waveform, is_last)
    return chunks
