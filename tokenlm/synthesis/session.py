"""A session: one request from its text to its sound. All speech is made by sessions.

`SegmentedText` is the text of a request, whole or while it comes in: its segments and their tokens.

Shapes: S samples.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from tokenlm.audio.joining import SegmentJoiner
from tokenlm.models.flow import FlowState
from tokenlm.models.lm.decoding import (
    CacheRow,
    Decoding,
    KeyValueCache,
    Prefix,
    SegmentTokens,
    decode,
    decode_step,
)
from tokenlm.models.lm.guards import GuardConfig
from tokenlm.models.lm.layout import InputSequence, LayoutName
from tokenlm.models.lm.sampling import SamplingConfig
from tokenlm.modules.exact import mix
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.duration import DurationPlan
from tokenlm.synthesis.guards import ReadBack, attempt_seed, decode_checked, decode_nearest
from tokenlm.synthesis.rendering import RenderSettings, SegmentRenderer, render_chunks
from tokenlm.synthesis.voice import PromptCache, prompt_sequence
from tokenlm.synthesis.words import Placement, Speech, TimedWord, WordTimer
from tokenlm.text.lexicon import Respeller
from tokenlm.text.normalize import Frontend, frontend
from tokenlm.text.segmentation import (
    GreedySegmenter,
    IncrementalSegmenter,
    PartialSegment,
    Segmenter,
)
from tokenlm.text.symbols import ForeignWords
from tokenlm.text.tokenizers import PhonemeTokenizer, TextTokenizer
from tokenlm.text.written import WrittenWords

logger = logging.getLogger(__name__)

_PROBES = (" a", ".")
"""What may follow a text: tokens that it changes are not final."""
_CLOSING = tuple(".?!,…。？！，、")
"""Marks behind which a segment may end as it is."""


@dataclass
class TextSegment:
    """A part of the text that is spoken in one go, as far as it is known."""

    tokens: list[int] = field(default_factory=list)
    """Text tokens so far."""
    text: str = ""
    """The words of these, normalised where the front-end does."""
    words: list[str] = field(default_factory=list)
    """The words without a final mark that was added."""
    is_complete: bool = False
    pause_seconds: float = 0.0
    """Silence after it; not to be relied on before the next segment is there."""


class SegmentedText:
    """Splits text, whole or in pieces, into segments of text tokens.

    In the one-shot layout a segment is added when it is complete, in the interleaved one as soon as
    it begins. Segments do not depend on how the text is cut into pieces.

    One thread may read the segments while another one feeds: tokens, pauses and segments are only
    appended, and flags that say that something is complete are written last; read those first.
    """

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        *,
        max_length: int,
        layout: LayoutName,
        text_frontend: Frontend | None = None,
        instruction_end: str = "",
        encode_prefix: Callable[[str], list[int]] | None = None,
        respeller: Respeller | None = None,
        keep_written: bool = False,
    ) -> None:
        """Creates an empty text.

        Args:
            encode: of the text tokenizer.
            max_length: most characters of a segment.
            layout: of text and speech in the LM.
            text_frontend: default that of English.
            instruction_end: what ends an instruction, which is an error in a text: only the first
                of its segments would follow what stands before it.
            encode_prefix: of a tokenizer whose tokens depend on the following words: those that are
                final. Without it, tokens are final that a further word or mark does not change.
            respeller: writes words of a user's lexicon; default none.
            keep_written: whether to find the written word of each spoken one.
        """
        self._respeller = respeller
        self.layout: LayoutName = layout
        self.segments: list[TextSegment] = []
        self.is_finished = False
        """Whether the text is complete."""
        self._encode, self._encode_prefix = encode, encode_prefix
        self._instruction_end = instruction_end
        self._frontend = text_frontend or frontend("english")
        self.written = WrittenWords(self._frontend) if keep_written else None
        """The written words, where they are kept."""
        self._reader = self._frontend.reader()
        self._foreign = ForeignWords() if self._frontend.drops_foreign_words else None
        kind = GreedySegmenter if layout == "interleaved" else IncrementalSegmenter
        self._segmenter: Segmenter = kind(max_length=max_length, rules=self._frontend.rules)

    @property
    def foreign_words(self) -> list[str]:
        """Words so far that are left out because the front-end does not read their script.

        A warning that names them is logged when the text is complete.
        """
        return [] if self._foreign is None else self._foreign.words

    @property
    def num_text_tokens(self) -> int:
        """Text tokens of all segments so far."""
        return sum(len(part.tokens) for part in self.segments)

    def read(self, text: str) -> None:
        """Sets the whole text, in place of `feed` and `finish`.

        Raises:
            ValueError: it holds nothing that can be said.
        """
        if self._respeller is not None:
            text = self._respeller(text)
        if self._foreign is not None:
            self._foreign.feed(text)
        if self.written is not None:
            self.written.feed(text)
        self._add(self._frontend.words(text))
        self.finish()

    def feed(self, piece: str) -> None:
        """Appends the next piece of the text."""
        assert not self.is_finished
        self._read(piece if self._respeller is None else self._respeller.feed(piece))

    def _read(self, piece: str) -> None:
        if self._foreign is not None:
            self._foreign.feed(piece)
        if self.written is None:
            self._add(self._reader.feed(piece))
            return
        for character in piece:  # one by one, so that it does not matter how the text is cut
            self.written.feed(character)
            self._add(self._reader.feed(character))

    def finish(self) -> None:
        """Marks the text as complete.

        Raises:
            ValueError: it holds nothing that can be said.
        """
        if self.is_finished:
            return
        if self._respeller is not None:
            self._read(self._respeller.finish())
        if self._foreign is not None:
            self._foreign.finish()
        self._add(self._reader.finish())
        if self.written is not None:
            self.written.finish()
        self._segmenter.finish()
        self._tokenize()
        if not any(c.isalnum() for part in self.segments for c in part.text):
            raise ValueError("the text holds nothing that can be said.")
        self.is_finished = True

    def _add(self, words: list[str]) -> None:
        if self.written is not None and words:
            self.written.add(words)
        for word in words:
            self._segmenter.add(word)
        if words:
            self._tokenize()

    def _tokenize(self) -> None:
        known = self._segmenter.segments
        # The last segment of before may have grown or been given another pause.
        for number in range(max(len(self.segments) - 1, 0), len(known)):
            is_new = number == len(self.segments)
            segment = TextSegment() if is_new else self.segments[number]
            self._update(segment, known[number])
            if is_new:
                self.segments.append(segment)

    def _update(self, segment: TextSegment, source: PartialSegment) -> None:
        segment.pause_seconds = source.pause_seconds
        if segment.is_complete:
            return
        text = source.text
        if self._instruction_end and self._instruction_end in text:
            raise ValueError(
                f"the text holds {self._instruction_end}: give what stands before it apart, as the "
                "instruction of the request (--instruct)."
            )
        if source.is_complete:
            text = add_final_mark(text, may_replace=not segment.tokens)
        segment.text, segment.words = text, list(source.words)
        tokens = self._encode(text)
        count = len(tokens)
        if not source.is_complete and self._encode_prefix:
            count = len(self._encode_prefix(text))
        elif not source.is_complete:
            others = [text + probe for probe in _PROBES]
            if self._frontend.rules.lookahead_words:
                others.append(self._without_tail(source.words))
            count = min(_agreeing(tokens, self._encode(other)) for other in others)
        segment.tokens += tokens[len(segment.tokens) : count]
        segment.is_complete = source.is_complete

    def _without_tail(self, words: list[str]) -> str:
        """Words without the last ones that no space parts: what follows may change their tokens."""
        rules, end = self._frontend.rules, len(words)
        first = max(len(words) - rules.lookahead_words, 0)
        while end > first and not words[end - 1].startswith(" "):
            end -= 1
        return rules.join(words[:end]).strip()


def _agreeing(tokens: list[int], others: list[int]) -> int:
    """Length of the longest common start."""
    pairs = enumerate(zip(tokens, others, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(tokens), len(others)))


def add_final_mark(text: str, *, may_replace: bool = True) -> str:
    """Adds a full stop to a segment that has no mark at its end.

    Speech LMs learn from sentences. Without a final mark they do not know where to stop, and invent
    further words.

    Args:
        text: normalised text of a segment.
        may_replace: whether a semicolon, colon or dash at the end gives way to a full stop. Where
            it has been spoken to the LM already, it stays.

    Returns:
        The text, or the text with a full stop (of its script).
    """
    bare = text.rstrip("\"'”’»)]」』")
    if bare.endswith(_CLOSING) or not bare:
        return text
    if not bare[-1].isalnum():
        if not may_replace:
            return text
        text = bare.rstrip(";:-–—；： ")
        if not text:
            return bare
        if text.endswith(_CLOSING):
            return text
    return text + ("。" if "\u3040" <= text[-1] <= "\u9fff" else ".")


Progress = Callable[[float], None]
"""Called with the share that is done, from 0 to 1."""

SEGMENTS_PER_BATCH = 8
"""Text segments that `Session.generate` decodes in one batch."""


class SpeechCancelled(Exception):
    """`generate` was asked to stop."""


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
        """
        self.text, self.settings = text, settings
        self.decoding: SegmentTokens | None = None
        """The segment that is being decoded."""
        self.speech_tokens: list[list[int]] = []
        """Of each segment so far."""
        self.pauses: list[float] = []
        """Seconds of silence before each segment, at a speed of 1."""
        self.is_closed = False
        self._should_stop: Callable[[], bool] = lambda: False
        self._components, self._prompts = components, prompts
        self._cache = KeyValueCache(components.speech_lm) if cache is None else cache
        self._token_server, self._forced = token_server, forced_tokens
        self._row: CacheRow | None = None
        self._prefix: Prefix | None = None
        self._flow: FlowState | None = None
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
            should_stop: checked before each step of the LM and each segment that is rendered.

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
                rows = self._decode_nearest(self._plan, numbers)
            elif guards.needs_recognizer and self._forced is None:
                checked = decode_checked(
                    [segments[number].text for number in numbers],
                    lambda tries, first=start: self._decode(
                        [(first + i, n) for i, n in tries], report
                    ),
                    self._read_back(),
                    guards,
                )
                rows = [part.tokens for part in checked]
            else:
                rows = self._decode([(number, 0) for number in numbers], report)
            self.speech_tokens += rows
            self.pauses += [self._pause_before(number) for number in numbers]
            report(0.5 * len(self.speech_tokens) / len(segments))

    def set_tokens(self, tokens: Sequence[Sequence[int]], pauses: Sequence[float]) -> None:
        """Sets the speech tokens of all segments, in place of `decode_all`.

        Args:
            tokens: of each segment.
            pauses: seconds before each segment.
        """
        self.speech_tokens, self.pauses = [list(row) for row in tokens], list(pauses)

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
        waveform = torch.cat(pieces)
        return waveform if self._timer is None else Speech.of(waveform, self.words)

    # Step by step

    def prepare(self) -> None:
        """Prefills the prompt, which may take long.

        May be called in any thread before the session is moved; else its first segment does it.
        The session keeps the states until it is closed.
        """
        if self._token_server is None:
            self._prompt_prefix()
        self._prompt_flow()
        if self._plan is not None and not self.speech_tokens:
            # How fast the first segment is to be depends on the length of all of them.
            self.decode_all()
            self._is_decoded_first = True
            self._time_decoded()
            self._begin_decoded(0)

    @property
    def is_done(self) -> bool:
        """Whether everything has been spoken, or the session is closed."""
        begun = len(self.speech_tokens)
        decoded = self.text.is_finished and begun == len(self.text.segments)
        return self.is_closed or (decoded and self.decoding is None and not self._renderers)

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
        return bool(self._renderers) and (self.renderer.ready_tokens > 0 or self._is_decoded)

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
        return render_sessions(self._components, [self])[0]

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
        pieces.append(self._joiner.push(waveform, final=is_last))
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

    def close(self) -> None:
        """Frees everything. May be called at any time, and again."""
        if not self.is_closed:
            tokens = sum(map(len, self.speech_tokens))
            logger.debug("closed after %d segments, %d tokens", len(self.speech_tokens), tokens)
        self.is_closed = True
        decoding, self.decoding = self.decoding, None
        self._renderers = []
        self._prefix = self._flow = None
        if decoding is not None:
            decoding.end()
        self._release()

    # Segments

    @property
    def _is_decoded(self) -> bool:
        """Whether all tokens of the segment that is rendered next are there."""
        return len(self._renderers) > 1 or self.decoding is None

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

    def _prompt_prefix(self) -> Prefix:
        if self._prefix is None:
            settings = self.settings
            self._prefix = self._prompts.prefix(
                settings.render.voice, self.text.layout, settings.instruction
            )
        return self._prefix

    def _prompt_flow(self) -> FlowState:
        if self._flow is None:
            render = self.settings.render
            self._flow = self._prompts.flow_state(
                render.voice, render.context, render.num_steps, render.guidance_scale
            )
        return self._flow

    def _begin_segment(self) -> None:
        number = len(self.speech_tokens)
        self.prepare()
        renderer = self._new_renderer(number, self._prompt_flow().shared())
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
        flow = self._prompt_flow().shared() if self._is_decoded_first else None
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
        settings, prefix = self.settings, self._prompt_prefix()
        return Decoding(
            self._components.speech_lm,
            cache,
            prefix.sequence.copy(),
            sampling=settings.sampling,
            seed=attempt_seed(settings.seed, attempt),
            segment=number,
            forced=self._forced_tokens(number),
            key_values=prefix.key_values,
            row=row,
            guards=settings.guards,
        )

    def _remote_tokens(self, server: TokenServer, number: int) -> SegmentTokens:
        settings = self.settings
        sequence = prompt_sequence(
            self._components, settings.render.voice, self.text.layout, settings.instruction
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

    def _decode(
        self, attempts: Sequence[tuple[int, int]], report: _Monotonic | None = None
    ) -> list[list[int]]:
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
            if report is None:
                return
            ended = {n for (n, _), item in zip(attempts, decodings, strict=True) if item.is_done}
            report(0.5 * (num_before + len(ended)) / num_segments)

        decode(self._components.speech_lm, decodings, on_step)
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
        return self.text.segments[number - 1].pause_seconds if number else 0.0

    def _new_renderer(self, number: int, flow: FlowState | None = None) -> SegmentRenderer:
        seed = mix(self.settings.seed, number)
        settings = replace(self.settings.render, speed=self._speed)
        return SegmentRenderer(self._components, self._prompts, settings, seed, flow)

    @property
    def _is_last_segment(self) -> bool:
        """Whether the segment that is rendered next is the last with any tokens."""
        return not any(self.speech_tokens[self._num_rendered + 1 :])

    def _decode_nearest(self, plan: DurationPlan, numbers: Sequence[int]) -> list[list[int]]:
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
            lambda tries: self._decode([(numbers[index], n) for index, n in tries]),
            self._read_back() if can_check else None,
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
            speed=self._speed,
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


def render_sessions(components: Components, sessions: Sequence[Session]) -> list[Tensor]:
    """Waveform (S,) of the next chunk of each session, rendered in one batch.

    Where that fails for several, they are as they were before: each can be rendered alone.
    """
    if len(sessions) == 1:
        return _render_sessions(components, sessions)
    snapshots = [session._snapshot() for session in sessions]
    try:
        return _render_sessions(components, sessions)
    except BaseException:
        for restore in snapshots:
            restore()
        raise


def _render_sessions(components: Components, sessions: Sequence[Session]) -> list[Tensor]:
    chunks = [torch.zeros(0, dtype=torch.float32)] * len(sessions)
    sounding = []
    for index, session in enumerate(sessions):
        if session.has_silent_segment:
            session.skip_segment()
        else:
            sounding.append(index)
    last = [sessions[index].renderer.ready_tokens == 0 for index in sounding]
    waveforms = render_chunks(components, [sessions[index].renderer for index in sounding])
    for index, waveform, is_last in zip(sounding, waveforms, last, strict=True):
        chunks[index] = sessions[index].join(waveform, is_last)
    return chunks
