"""Text to segments: the pieces that are synthesised one by one, with the pauses between them.

`segment` cuts a whole text. For a text that arrives in pieces, `IncrementalSegmenter` gives the
same segments, each as soon as it is complete, and `GreedySegmenter` gives segments that still grow.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

PARAGRAPH = "\n"
"""Stands among the words where a paragraph ends."""
PARAGRAPH_END = "\u2029"
"""Ends a paragraph where it stands in a text, as a blank line does, but at once: `PARAGRAPH` does
not wait for the words of the next one."""
PARAGRAPH_PAUSE = 0.6
WORD_PAUSE = 0.1
PAUSES = {",": 0.15, ";": 0.25, ":": 0.25, ".": 0.35, "?": 0.4, "!": 0.4}
"""Seconds of silence after a segment that ends with a mark."""
SENTENCE_ENDS = (".", "?", "!", ";", ":")
_FINAL_MARKS = frozenset(".?!。？！…؟।")
"""Marks that end a sentence and not just a part of one."""
CONJUNCTIONS = frozenset(
    "and but or nor so yet because although though while when where which who that if unless "
    "until before after since as than then".split()
)
EDGE_SHARE = 0.2
"""A cut nearer to an edge than this share of the sentence leaves a fragment: the next best place
is taken."""
_COMMA_SHARE = 0.6
_CONJUNCTION_SHARE = 0.8
"""Of the longest segment: from this length on `GreedySegmenter` cuts an overlong sentence at a
comma, or before a conjunction."""

# --- Rules of segmentation: words, marks and lengths, of normalised and of raw text ---

# Han characters, kana and bopomofo: scripts that put no spaces between words.
UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
OPENING_MARKS = "（《〈「『【〔“‘"
WIDE_MARKS = "、，。！？；：…—～·）》〉」』】〕”"
_MARKS = rf"""{WIDE_MARKS}’,.!?;:)\]}}"'"""
_NARROW = rf"[^\s{UNSPACED}{OPENING_MARKS}{WIDE_MARKS}]"
RAW_WORD = re.compile(
    rf"(\s*)([{OPENING_MARKS}]*(?:[{UNSPACED}][{_MARKS}]*|{_NARROW}+[{_MARKS}]*|[{WIDE_MARKS}]+)"
    rf"|[{OPENING_MARKS}]+)"
)
"""White space, and the next word of a raw text: a character of a script without spaces or a run of
others, with the marks around it."""

_CLOSING = "）》〉」』】〕”’)]}\"'"
_WIDE_PAUSES = {"、": 0.15, "，": 0.15, "；": 0.25, "：": 0.25, "。": 0.35, "…": 0.35,
                "？": 0.4, "！": 0.4, "؟": 0.4, "।": 0.35}  # fmt: skip
_WIDE_ENDS = ("。", "？", "！", "；", "：", "…", "؟", "।")
# Full stops of these end no sentence.
_ABBREVIATIONS = frozenset(
    "mr. mrs. ms. dr. prof. st. mt. vs. etc. e.g. i.e. cf. no. vol. fig. jr. sr. ca. z.b. d.h. "
    "bzw. usw. nr. m. mme. sig. sra.".split()
)
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+")
_WIDE_WEIGHT = 3
"""A character of a script without spaces takes as long to say as so many letters."""
_WIDE = re.compile(f"[{UNSPACED}]")


@dataclass(frozen=True)
class SegmentationRules:
    """How a kind of text is split into words, joined and measured, and what its marks mean."""

    split: Callable[[str], list[str]]
    """Splits a paragraph into words."""
    separator: str
    """Stands between joined words."""
    measure: Callable[[str], int]
    """Length of a text, in letters."""
    last_mark: Callable[[str], str]
    """The mark that a word ends with, '' if it is none to pause at."""
    ends: tuple[str, ...]
    """Marks that end a sentence."""
    commas: tuple[str, ...]
    pauses: dict[str, float]
    """Seconds of silence after a mark."""
    paragraph_pause: float = PARAGRAPH_PAUSE
    """Seconds of silence after a paragraph."""
    lookahead_words: int = 0
    """Words without a space between them that must follow before the tokens of one are settled."""

    def join(self, words: Sequence[str]) -> str:
        """Join words to a text."""
        return self.separator.join(words)

    def ends_sentence(self, word: str) -> bool:
        """Whether this word ends a sentence."""
        return self.last_mark(word) in self.ends

    def ends_clause(self, word: str) -> bool:
        """Whether a comma follows this word."""
        return self.last_mark(word) in self.commas

    def with_gaps(self, sentence: float | None, paragraph: float | None) -> SegmentationRules:
        """The same rules with other pauses.

        Args:
            sentence: seconds after a full stop, question or exclamation mark; None changes nothing.
            paragraph: seconds after a paragraph; None changes nothing.
        """
        pauses = dict(self.pauses)
        if sentence is not None:
            pauses |= {mark: sentence for mark in self.pauses if mark in _FINAL_MARKS}
        end = self.paragraph_pause if paragraph is None else paragraph
        return replace(self, pauses=pauses, paragraph_pause=end)

    def pause(self, text: str) -> float:
        """Seconds of silence after a text."""
        words = self.split(text)
        return self.pauses.get(self.last_mark(words[-1]), WORD_PAUSE) if words else WORD_PAUSE


def _raw_last_mark(word: str) -> str:
    bare = word.strip().rstrip(_CLOSING)
    if bare.lower().lstrip(OPENING_MARKS + "([{\"'") in _ABBREVIATIONS or _INITIALS.fullmatch(bare):
        return ""
    return bare[-1:]


def _raw_length(text: str) -> int:
    return len(text) + (_WIDE_WEIGHT - 1) * len(_WIDE.findall(text))


def _split_raw(text: str) -> list[str]:
    """The words of a paragraph; those with white space before them begin with one space."""
    words: list[str] = []
    for space, body in RAW_WORD.findall(text):
        words.append(" " + body if space and words else body)
    return words


NORMALIZED = SegmentationRules(
    split=str.split,
    separator=" ",
    measure=len,
    last_mark=lambda word: word[-1:],
    ends=SENTENCE_ENDS,
    commas=(",",),
    pauses=PAUSES,
)
"""For what `normalize` gives: words of a-z, single spaces, and few marks."""

RAW = SegmentationRules(
    split=_split_raw,
    separator="",
    measure=_raw_length,
    last_mark=_raw_last_mark,
    ends=(*SENTENCE_ENDS, *_WIDE_ENDS),
    commas=(",", "，", "、"),
    pauses=PAUSES | _WIDE_PAUSES,
    lookahead_words=8,
)
"""For text of any script as it was written; its words keep the space that stands before them."""

# --- A whole text ---


@dataclass(frozen=True)
class Segment:
    """A piece of text to be spoken in one go."""

    text: str
    """Words and marks; of raw text with the space that stood before them."""
    pause_seconds: float
    """Silence after the piece; 0 after the last."""


def segment(
    text: str,
    *,
    max_length: int = 200,
    min_length: int = 20,
    measure: Callable[[str], int] | None = None,
    rules: SegmentationRules = NORMALIZED,
) -> list[Segment]:
    """Cut text into segments.

    The text is cut after . ? ! ; and : first (and their wide forms, where the rules have them). A
    sentence that is still too long is cut at the comma nearest to its middle, else before a
    conjunction, else between words, until every part fits. Pieces that are too short to be spoken
    well alone are joined to a neighbour within their paragraph. Words are never lost, doubled or
    reordered, and none is cut unless it alone is longer than `max_length`.

    Args:
        text: what `normalize` gives, or paragraphs of `normalize_paragraphs` joined by newlines;
            of raw text likewise.
        max_length: the longest segment, in the unit of `measure`.
        min_length: what is shorter is joined to a neighbour where the two fit; 0 joins nothing.
        measure: the length of a text; that of the rules by default, may count tokens or seconds.
        rules: what words and marks are.

    Raises:
        ValueError: if `max_length` is not positive or is less than `min_length`.
    """
    if max_length < 1 or min_length < 0 or min_length > max_length:
        raise ValueError(
            f"expected 0 <= min_length <= max_length and a positive max_length, got "
            f"min_length {min_length} and max_length {max_length}"
        )
    measure = measure or rules.measure
    segments: list[Segment] = []
    for paragraph in text.split("\n"):
        pieces: list[str] = []
        for sentence in _sentences(rules.split(paragraph), rules):
            pieces.extend(_fitting(sentence, max_length, measure, rules))
        pieces = _join_short(pieces, max_length, min_length, measure, rules)
        if pieces and segments:
            segments[-1] = Segment(segments[-1].text, rules.paragraph_pause)
        segments.extend(Segment(piece, rules.pause(piece)) for piece in pieces)
    if segments:
        segments[-1] = Segment(segments[-1].text, 0.0)
    return segments


def _sentences(words: list[str], rules: SegmentationRules) -> list[list[str]]:
    sentences: list[list[str]] = [[]]
    for word in words:
        sentences[-1].append(word)
        if rules.ends_sentence(word):
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _fitting(
    words: list[str], max_length: int, measure: Callable[[str], int], rules: SegmentationRules
) -> list[str]:
    """Cut a sentence into texts of at most `max_length`; an explicit stack keeps Python's safe."""
    pieces: list[str] = []
    stack = [words]
    while stack:
        part = stack.pop()
        text = rules.join(part)
        if measure(text) <= max_length:
            pieces.append(text)
        elif len(part) > 1:
            cut = _best_cut(part, rules)
            stack += [part[cut:], part[:cut]]
        elif len(text) > 1:
            middle = len(text) // 2
            stack += [[text[middle:]], [text[:middle]]]
        else:  # one character that measures more than is allowed: there is nothing left to cut
            pieces.append(text)
    return pieces


def _best_cut(words: list[str], rules: SegmentationRules) -> int:
    """The index of the word to cut before: the best kind of place, nearest to the middle."""
    gap = len(rules.separator)
    total = sum(len(word) + gap for word in words)
    best = (3, float("inf"), 1)
    position = 0
    for index in range(1, len(words)):
        position += len(words[index - 1]) + gap
        if rules.ends_clause(words[index - 1]):
            rank = 0
        elif words[index].strip() in CONJUNCTIONS:
            rank = 1
        else:
            rank = 2
        if rank < 2 and min(position, total - position) < EDGE_SHARE * total:
            rank = 2
        best = min(best, (rank, abs(position - total / 2), index))
    return best[2]


def _join_short(
    pieces: list[str],
    max_length: int,
    min_length: int,
    measure: Callable[[str], int],
    rules: SegmentationRules,
) -> list[str]:
    """Join pieces shorter than `min_length` to the neighbour before, else to the one after."""
    joined: list[str] = []
    for piece in pieces:
        if joined and min(measure(joined[-1]), measure(piece)) < min_length:
            both = rules.join([joined[-1], piece])
            if measure(both) <= max_length:
                joined[-1] = both
                continue
        joined.append(piece)
    return joined


# --- A text that arrives word by word ---


@dataclass
class PartialSegment:
    """A segment of a text that is still arriving, as far as it is known."""

    words: list[str] = field(default_factory=list)
    is_complete: bool = False
    pause_seconds: float = 0.0
    """Silence after it, known when the next one begins."""
    rules: SegmentationRules = NORMALIZED
    """How the words are put together."""

    @property
    def text(self) -> str:
        """The words as one text."""
        return self.rules.join(self.words).strip()


class Segmenter(ABC):
    """Makes segments of a text that arrives word by word; the last of `segments` may still grow."""

    def __init__(
        self, *, max_length: int, min_length: int = 20, rules: SegmentationRules = NORMALIZED
    ) -> None:
        self.segments: list[PartialSegment] = []
        self._max_length, self._min_length = max_length, min_length
        self._rules = rules

    def add(self, word: str) -> None:
        """Take the next word, or `PARAGRAPH` where a paragraph ends."""
        if word != PARAGRAPH:
            self._add_word(word)
            return
        self._end_paragraph()
        if self.segments:
            self.segments[-1].pause_seconds = self._rules.paragraph_pause

    def close(self) -> None:
        """Complete the last segment: what follows it is spoken apart."""
        self._end_paragraph()

    def finish(self) -> None:
        """Complete the last segment: the text is complete."""
        self._end_paragraph()
        if self.segments:
            self.segments[-1].pause_seconds = 0.0

    @abstractmethod
    def _add_word(self, word: str) -> None:
        """Take the next word."""

    @abstractmethod
    def _end_paragraph(self) -> None:
        """Complete the segments of the paragraph."""

    def _length(self, words: Sequence[str]) -> int:
        return self._rules.measure(self._rules.join(words))


class IncrementalSegmenter(Segmenter):
    """The segments that `segment` makes, each as soon as it is complete."""

    def __init__(
        self, *, max_length: int, min_length: int = 20, rules: SegmentationRules = NORMALIZED
    ) -> None:
        super().__init__(max_length=max_length, min_length=min_length, rules=rules)
        self._words: list[str] = []
        """Of this paragraph, as far as they are in no segment yet."""
        self._num_closed = 0
        """Of these words, those of complete sentences."""
        self._closed_length = self._rest_length = 0
        """Length of these, and of the words behind them."""
        # A part of an overlong sentence is never so short that it is joined to the one before.
        self._parts_are_long = EDGE_SHARE * max_length >= min_length

    def _end_paragraph(self) -> None:
        self._emit(self._words, keep=0)
        self._words = []
        self._all_closed()

    def _add_word(self, word: str) -> None:
        self._words.append(word)
        if self._rules.ends_sentence(word):
            self._emit(self._words, keep=1)
            self._all_closed()
        elif self._num_closed and self._parts_are_long:
            # The length of words is the sum of theirs and of what stands between them.
            if len(self._words) > self._num_closed + 1:
                self._rest_length += len(self._rules.separator)
            self._rest_length += self._rules.measure(word)
            # As long as neither is short, the next sentence is not joined to the last one.
            if min(self._closed_length, self._rest_length) >= self._min_length:
                first, rest = self._words[: self._num_closed], self._words[self._num_closed :]
                self._emit(first, keep=0)
                self._words, self._num_closed = rest, 0

    def _all_closed(self) -> None:
        """All words that are in no segment yet are those of complete sentences."""
        self._num_closed = len(self._words)
        self._closed_length = self._length(self._words)
        self._rest_length = 0

    def _emit(self, words: list[str], keep: int) -> None:
        """Make segments of words; the last `keep` of them may still change and stay words."""
        rules = self._rules
        found = segment(
            rules.join(words),
            max_length=self._max_length,
            min_length=self._min_length,
            rules=rules,
        )
        for part in found[: len(found) - keep]:
            own = rules.split(part.text)
            pause = rules.pause(part.text)
            self.segments.append(PartialSegment(own, True, pause, rules))
        if keep and len(found) > keep:
            self._words = rules.split(found[-1].text)


class GreedySegmenter(Segmenter):
    """Segments that grow word by word, before it is known where they end.

    Sentences end where `segment` ends them, short ones are joined to a neighbour. A sentence that
    is too long cannot be cut in its middle, which is not known; it is cut at a comma or before a
    conjunction once most of what is allowed is full, else between words.
    """

    def __init__(
        self, *, max_length: int, min_length: int = 20, rules: SegmentationRules = NORMALIZED
    ) -> None:
        super().__init__(max_length=max_length, min_length=min_length, rules=rules)
        self._waiting: list[str] = []
        """The next sentence, while it is not known whether it begins a segment."""

    def _add_word(self, word: str) -> None:
        if len(word) > 1 and self._rules.measure(word) > self._max_length:
            # As in `segment`, a word is cut that alone is too long; its parts fit into none.
            middle = len(word) // 2
            self._add_word(word[:middle])
            self._add_word(word[middle:])
            return
        current = self._current
        ends = current is not None and self._rules.ends_sentence(current.words[-1])
        if not ends or current is None:
            self._append(word)
            return
        self._waiting.append(word)
        length, more = self._length(current.words), self._length(self._waiting)
        fits = self._length(current.words + self._waiting) <= self._max_length
        if not fits or min(length, more) >= self._min_length:
            self._close()
            self._go_on()
        elif length < self._min_length or self._rules.ends_sentence(word):
            self._go_on()

    @property
    def _current(self) -> PartialSegment | None:
        """The segment that still grows."""
        if not self.segments or self.segments[-1].is_complete:
            return None
        return self.segments[-1]

    def _go_on(self) -> None:
        words, self._waiting = self._waiting, []
        for word in words:
            self._append(word)

    def _end_paragraph(self) -> None:
        if self._waiting:  # a short last sentence that fits
            self._go_on()
        if self._current is not None:
            self._close()

    def _append(self, word: str) -> None:
        current = self._current
        if current is not None:
            is_late = self._length(current.words) >= _CONJUNCTION_SHARE * self._max_length
            is_full = self._length([*current.words, word]) > self._max_length
            if is_full or (is_late and word.strip() in CONJUNCTIONS):
                self._close()
                current = None
        if current is None:
            current = PartialSegment(rules=self._rules)
            self.segments.append(current)
        current.words.append(word)
        is_long = self._length(current.words) >= _COMMA_SHARE * self._max_length
        if is_long and self._rules.ends_clause(word):
            self._close()

    def _close(self) -> None:
        current = self._current
        assert current is not None
        current.is_complete = True
        current.pause_seconds = self._rules.pause(current.words[-1])
