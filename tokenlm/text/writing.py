"""How a text is cut into words, put together again and measured, and what its marks mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SENTENCE_ENDS = (".", "?", "!", ";", ":")
PAUSES = {",": 0.15, ";": 0.25, ":": 0.25, ".": 0.35, "?": 0.4, "!": 0.4}
WORD_PAUSE = 0.1
CONJUNCTIONS = frozenset(
    "and but or nor so yet because although though while when where which who that if unless "
    "until before after since as than then".split()
)

# Han characters, kana and bopomofo: scripts that put no spaces between words.
UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
_OPENING = "（《〈「『【〔“‘"
_WIDE_MARKS = "、，。！？；：…—～·）》〉」』】〕”"
_MARKS = rf"""{_WIDE_MARKS}’,.!?;:)\]}}"'"""
_NARROW = rf"[^\s{UNSPACED}{_OPENING}{_WIDE_MARKS}]"
UNIT = re.compile(
    rf"(\s*)([{_OPENING}]*(?:[{UNSPACED}][{_MARKS}]*|{_NARROW}+[{_MARKS}]*|[{_WIDE_MARKS}]+)"
    rf"|[{_OPENING}]+)"
)
"""White space, and the next unit of a text as it was written: a character of a script without
spaces or a run of others, with the marks around it."""

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
class Writing:
    """What the cutting of a text into segments needs to know of it."""

    split: Callable[[str], list[str]]
    """A paragraph to its words."""
    separator: str
    """Stands between words that are put together."""
    measure: Callable[[str], int]
    """Length of a text, in letters."""
    last_mark: Callable[[str], str]
    """The mark that a word ends with, '' where it is none to pause at."""
    ends: tuple[str, ...]
    """Marks that end a sentence."""
    commas: tuple[str, ...]
    pauses: dict[str, float]
    """Seconds after a mark."""
    held_units: int = 0
    """Of words that no space parts, so many have to follow before the tokens of one are settled."""

    def join(self, words: Sequence[str]) -> str:
        """Words to a text."""
        return self.separator.join(words)

    def ends_sentence(self, word: str) -> bool:
        """Whether a sentence is over after this word."""
        return self.last_mark(word) in self.ends

    def ends_clause(self, word: str) -> bool:
        """Whether a comma follows this word."""
        return self.last_mark(word) in self.commas

    def pause(self, text: str) -> float:
        """Seconds of silence after a text."""
        words = self.split(text)
        return self.pauses.get(self.last_mark(words[-1]), WORD_PAUSE) if words else WORD_PAUSE


def _last_mark_as_written(word: str) -> str:
    bare = word.strip().rstrip(_CLOSING)
    if bare.lower().lstrip(_OPENING + "([{\"'") in _ABBREVIATIONS or _INITIALS.fullmatch(bare):
        return ""
    return bare[-1:]


def _measure_as_written(text: str) -> int:
    return len(text) + (_WIDE_WEIGHT - 1) * len(_WIDE.findall(text))


def split_as_written(text: str) -> list[str]:
    """The units of a paragraph; those with white space before them begin with one space."""
    units = []
    for space, body in UNIT.findall(text):
        units.append(" " + body if space and units else body)
    return units


SPOKEN = Writing(
    split=str.split,
    separator=" ",
    measure=len,
    last_mark=lambda word: word[-1:],
    ends=SENTENCE_ENDS,
    commas=(",",),
    pauses=PAUSES,
)
"""What `normalize` gives: words of a-z, single spaces, and few marks."""

AS_WRITTEN = Writing(
    split=split_as_written,
    separator="",
    measure=_measure_as_written,
    last_mark=_last_mark_as_written,
    ends=(*SENTENCE_ENDS, *_WIDE_ENDS),
    commas=(",", "，", "、"),
    pauses=PAUSES | _WIDE_PAUSES,
    held_units=8,
)
"""A text of any script; its words keep the space that stands before them."""
