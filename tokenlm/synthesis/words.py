"""Times of words: when each word of a request is said.

The text that was asked for is aligned with the speech tokens by the CTC outputs of the token
recogniser. No sound is looked at, so times are known as soon as the tokens are, and streamed speech
has the same times as whole speech.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenlm.synthesis.alignment import SegmentAligner, Span
from tokenlm.synthesis.guards import ReadBack
from tokenlm.text.normalize import WrittenWords


@dataclass(frozen=True, kw_only=True)
class TimedWord:
    """A written word of a request, and when it is said."""

    text: str
    """As it was written, with the marks at its ends: `text[text_start:text_end]` of the request."""
    spoken: str
    """As it is said, with the marks that make pauses: "one thousand two hundred fifty," for
    "1,250,"."""
    start_seconds: float
    """Where it begins, from the first sample of the speech."""
    end_seconds: float
    text_start: int
    text_end: int
    """Where it stands in the text of the request, in characters."""


class Speech(Tensor):
    """A waveform (S,), and the words that begin in it.

    What is computed from it is a plain tensor.
    """

    words: tuple[TimedWord, ...]
    """In a stream also words that began in an earlier chunk and were not known then."""

    @staticmethod
    def of(waveform: Tensor, words: Sequence[TimedWord]) -> Speech:
        """Speech that shares the samples of a waveform."""
        speech = waveform.as_subclass(Speech)
        speech.words = tuple(words)
        return speech

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Computes as for plain tensors; see "Extending PyTorch" in its documentation."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> Speech:
        return memo.setdefault(id(self), Speech.of(self.as_subclass(Tensor).clone(), self.words))


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a segment stands in the speech."""

    token_seconds: float
    """Where its first token begins, also if that is cut off."""
    sample_seconds: float
    """Where its first sample is."""
    speed: float


class WordTimer:
    """Times of the words of a request, from its text, its tokens and how it is joined."""

    def __init__(
        self,
        read_back: ReadBack,
        written: WrittenWords,
        *,
        silent_tokens: Collection[int],
        token_rate: int,
        words_at: Callable[[int, int | None], Sequence[str]],
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> None:
        """Creates it for a request without tokens.

        Args:
            read_back: reads the tokens.
            written: words of the request.
            silent_tokens: codes of silence; may be empty.
            token_rate: tokens per second.
            words_at: function from the number of a segment and of its tokens to the words of the
                segment that may have begun by then; without a number of tokens all of them.
            check_cancelled: called before each alignment; what it raises ends the work.
        """
        self.words: list[TimedWord] = []
        """Those that `take` gave."""
        self._written = written
        self._words_at = words_at
        self._token_rate = token_rate
        self._new_aligner = lambda: SegmentAligner(
            read_back, silent_tokens, token_rate, check_cancelled=check_cancelled
        )
        self._aligners: list[SegmentAligner] = []
        self._origins: list[Placement | None] = []
        """Where each segment stands in the speech; None for one without sound."""
        self._next = 0, 0
        """Segment, and word in it, of which the time is read next."""
        self._letters = 0
        """Letters of the last spoken word so far, if it goes on in another word of a segment."""
        self._spoken: list[Span | None] = []
        """Seconds of each spoken word so far."""
        self._num_owned = 0
        """Spoken words of the written words that were given."""

    def add(self, number: int, tokens: Sequence[int], *, is_last: bool) -> None:
        """Appends tokens to a segment; with `is_last` it ends."""
        while len(self._aligners) <= number:
            self._aligners.append(self._new_aligner())
        self._aligners[number].add(
            tokens, lambda count: self._words_at(number, count), is_last=is_last
        )

    def place(self, number: int, origin: Placement | None) -> None:
        """Sets where a segment begins in the speech; may be called again, which changes nothing.

        Args:
            number: of the segment; those before it are placed.
            origin: where it stands; None where it has no sound, and its words no times.
        """
        if number == len(self._origins):
            self._origins.append(origin)

    def snapshot(self) -> Callable[[], None]:
        """A function that restores what `place` and `take` change."""
        origins, spoken, words = [*self._origins], [*self._spoken], [*self.words]
        state = self._next, self._letters, self._num_owned

        def restore() -> None:
            self._origins, self._spoken, self.words = origins, spoken, words
            self._next, self._letters, self._num_owned = state

        return restore

    def take(self, end_seconds: float) -> list[TimedWord]:
        """The next words, in their order, that begin before a second and are settled."""
        self._read_spans()
        found: list[TimedWord] = []
        owners, first = self._written.owners, self._num_owned
        while first < len(self._spoken) and first < len(owners):
            last = first + 1
            while last < len(owners) and owners[last] == owners[first]:
                last += 1
            is_settled = last < len(owners) or (self._written.is_finished and last == len(owners))
            is_cut = last == len(self._spoken) and self._letters
            if not is_settled or is_cut or last > len(self._spoken):
                break
            spans = [span for span in self._spoken[first:last] if span is not None]
            if spans:
                if spans[0][0] >= end_seconds:
                    break
                found.append(self._timed(owners[first], first, last, spans))
            first = self._num_owned = last
        self.words += found
        return found

    def _timed(self, owner: int, first: int, last: int, spans: Sequence[Span]) -> TimedWord:
        written = self._written.written[owner]
        return TimedWord(
            text=written.text,
            spoken=self._written.spoken_text(first, last),
            start_seconds=round(spans[0][0], 3),
            end_seconds=round(spans[-1][1], 3),
            text_start=written.start,
            text_end=written.end,
        )

    def _read_spans(self) -> None:
        """Reads the times of the words of segments that are placed."""
        number, word = self._next
        while number < len(self._origins):
            words = self._words_at(number, None)
            spans = self._aligners[number].spans if number < len(self._aligners) else []
            is_past = number + 1 < len(self._origins)
            count = len(words) if is_past else len(spans)
            for index in range(word, count):
                self._add_span(words[index], spans[index] if index < len(spans) else None, number)
            if not is_past:
                self._next = number, max(word, count)
                return
            number, word = number + 1, 0
        self._next = number, word

    def _add_span(self, word: str, span: Span | None, number: int) -> None:
        """Adds the time of a word of a segment, which may be a part of an overlong spoken one."""
        origin = self._origins[number]
        if origin is None or span is None:
            span = None
        else:
            seconds = 1.0 / (self._token_rate * origin.speed)
            start, end = (
                max(origin.token_seconds + place * seconds, origin.sample_seconds) for place in span
            )
            span = start, end
        if not self._letters:
            self._spoken.append(span)
        elif span is not None:
            known = self._spoken[-1]
            self._spoken[-1] = (span if known is None else known)[0], span[1]
        self._letters += len(word.strip())
        if self._letters >= len(self._written.spoken[len(self._spoken) - 1]):
            self._letters = 0
