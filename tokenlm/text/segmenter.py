"""Segments of a text that is still being written.

Both kinds take the words of a text one by one (`PARAGRAPH` where a paragraph ends) and keep
`segments`, of which the last may still grow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenlm.text.incremental import PARAGRAPH
from tokenlm.text.segment import EDGE_SHARE, PARAGRAPH_PAUSE, segment
from tokenlm.text.writing import CONJUNCTIONS, SPOKEN, Writing

_COMMA_SHARE = 0.6
_CONJUNCTION_SHARE = 0.8
"""Of the longest segment: from this length on an overlong sentence is cut at a comma, or before a
conjunction."""


@dataclass
class GrowingSegment:
    """A piece of text to be spoken in one go, as far as it is known."""

    words: list[str] = field(default_factory=list)
    is_complete: bool = False
    pause_seconds: float = 0.0
    """Silence after it, known when the next one begins."""
    writing: Writing = SPOKEN
    """How the words are put together."""

    @property
    def text(self) -> str:
        """The words as one text."""
        return self.writing.join(self.words).strip()


class ClosedSegmenter:
    """The segments that `segment` makes, each given when it is complete."""

    def __init__(self, *, max_length: int, min_length: int = 20, writing: Writing = SPOKEN) -> None:
        self.segments: list[GrowingSegment] = []
        self._max_length, self._min_length = max_length, min_length
        self._writing = writing
        self._words: list[str] = []
        """Of this paragraph, as far as they are in no segment yet."""
        self._num_closed = 0
        """Of these words, those of complete sentences."""
        self._closed_length = self._rest_length = 0
        """Length of these, and of the words behind them."""
        # A part of an overlong sentence is never so short that it is joined to the one before.
        self._parts_are_long = EDGE_SHARE * max_length >= min_length

    def add(self, word: str) -> None:
        """Takes the next word."""
        if word == PARAGRAPH:
            self._emit(self._words, keep=0)
            self._words = []
            self._all_closed()
            if self.segments:
                self.segments[-1].pause_seconds = PARAGRAPH_PAUSE
            return
        self._words.append(word)
        if self._writing.ends_sentence(word):
            self._emit(self._words, keep=1)
            self._all_closed()
        elif self._num_closed and self._parts_are_long:
            # The length of words is the sum of theirs and of what stands between them.
            if len(self._words) > self._num_closed + 1:
                self._rest_length += len(self._writing.separator)
            self._rest_length += self._writing.measure(word)
            # As long as neither is short, the next sentence is not joined to the last one.
            if min(self._closed_length, self._rest_length) >= self._min_length:
                first, rest = self._words[: self._num_closed], self._words[self._num_closed :]
                self._emit(first, keep=0)
                self._words, self._num_closed = rest, 0

    def finish(self) -> None:
        """The text is complete."""
        self.add(PARAGRAPH)
        if self.segments:
            self.segments[-1].pause_seconds = 0.0

    def _all_closed(self) -> None:
        """All words that are in no segment yet are those of complete sentences."""
        self._num_closed = len(self._words)
        self._closed_length = self._writing.measure(self._writing.join(self._words))
        self._rest_length = 0

    def _emit(self, words: list[str], keep: int) -> None:
        """Makes segments of words; the last `keep` of them may still change and stay words."""
        writing = self._writing
        found = segment(
            writing.join(words),
            max_length=self._max_length,
            min_length=self._min_length,
            writing=writing,
        )
        for part in found[: len(found) - keep]:
            own = writing.split(part.text)
            pause = writing.pause(part.text)
            self.segments.append(GrowingSegment(own, True, pause, writing))
        if keep and len(found) > keep:
            self._words = writing.split(found[-1].text)


class OpenSegmenter:
    """Segments that are given word by word, before it is known where they end.

    Sentences end where `segment` ends them, short ones are joined to a neighbour. A sentence that
    is too long cannot be cut in its middle, which is not known; it is cut at a comma or before a
    conjunction once most of what is allowed is full, else between words.
    """

    def __init__(self, *, max_length: int, min_length: int = 20, writing: Writing = SPOKEN) -> None:
        self.segments: list[GrowingSegment] = []
        self._max_length, self._min_length = max_length, min_length
        self._writing = writing
        self._waiting: list[str] = []
        """The next sentence, while it is not known whether it begins a segment."""

    def add(self, word: str) -> None:
        """Takes the next word."""
        if word == PARAGRAPH:
            self._end_paragraph()
            return
        if len(word) > 1 and self._writing.measure(word) > self._max_length:
            # As in `segment`, a word is cut that alone is too long; its parts fit into none.
            middle = len(word) // 2
            self.add(word[:middle])
            self.add(word[middle:])
            return
        current = self._current
        ends = current is not None and self._writing.ends_sentence(current.words[-1])
        if not ends or current is None:
            self._append(word)
            return
        self._waiting.append(word)
        length, more = self._length(current.words), self._length(self._waiting)
        fits = self._length(current.words + self._waiting) <= self._max_length
        if not fits or min(length, more) >= self._min_length:
            self._start_anew()
        elif length < self._min_length or self._writing.ends_sentence(word):
            self._go_on()

    def finish(self) -> None:
        """The text is complete."""
        self._end_paragraph()
        if self.segments:
            self.segments[-1].pause_seconds = 0.0

    @property
    def _current(self) -> GrowingSegment | None:
        """The segment that still grows."""
        if not self.segments or self.segments[-1].is_complete:
            return None
        return self.segments[-1]

    def _go_on(self) -> None:
        words, self._waiting = self._waiting, []
        for word in words:
            self._append(word)

    def _start_anew(self) -> None:
        self._close()
        self._go_on()

    def _end_paragraph(self) -> None:
        if self._waiting:  # a short last sentence that fits
            self._go_on()
        if self._current is not None:
            self._close()
        if self.segments:
            self.segments[-1].pause_seconds = PARAGRAPH_PAUSE

    def _append(self, word: str) -> None:
        current = self._current
        if current is not None:
            is_late = self._length(current.words) >= _CONJUNCTION_SHARE * self._max_length
            is_full = self._length([*current.words, word]) > self._max_length
            if is_full or (is_late and word.strip() in CONJUNCTIONS):
                self._close()
                current = None
        if current is None:
            current = GrowingSegment(writing=self._writing)
            self.segments.append(current)
        current.words.append(word)
        is_long = self._length(current.words) >= _COMMA_SHARE * self._max_length
        if is_long and self._writing.ends_clause(word):
            self._close()

    def _close(self) -> None:
        current = self._current
        assert current is not None
        current.is_complete = True
        current.pause_seconds = self._writing.pause(current.words[-1])

    def _length(self, words: list[str]) -> int:
        return self._writing.measure(self._writing.join(words))
