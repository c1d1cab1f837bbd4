"""Front-ends: what a text goes through before it is encoded, as the text tokenizer asks.

English is normalised; other text is only split into words. Each front-end reads a whole text, or
one that arrives in pieces, with the same result.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from tokenlm.text.incremental import (
    BLANK_LINE,
    PARAGRAPH_END,
    IncrementalNormalizer,
    normalized_words,
)
from tokenlm.text.normalize import normalize
from tokenlm.text.segmentation import (
    NORMALIZED,
    OPENING_MARKS,
    PARAGRAPH,
    RAW,
    RAW_WORD,
    UNSPACED,
    WIDE_MARKS,
    SegmentationRules,
)

NormalizerName = Literal["english", "none"]


class IncrementalReader(Protocol):
    """Reads a text that arrives in pieces."""

    def feed(self, piece: str) -> list[str]:
        """Return the words that the next piece settles, and `PARAGRAPH` where one ends."""
        ...

    def finish(self) -> list[str]:
        """Return the words that are left: the text is complete."""
        ...


@dataclass(frozen=True)
class Frontend:
    """The ways from a text to words and segments."""

    rules: SegmentationRules
    """How its words are joined and cut into segments."""
    reader: Callable[[], IncrementalReader]
    """Makes a reader for a text in pieces."""
    words: Callable[[str], list[str]]
    """Words of a whole text, with `PARAGRAPH` between paragraphs."""
    normalize: Callable[[str], str]
    """A whole text in one line; '' where nothing can be said."""
    drops_foreign_words: bool
    """Whether words of scripts that it does not read are left out."""


def frontend(normalizer: NormalizerName) -> Frontend:
    """The front-end of a name; every name that a config may have is known."""
    return _FRONTENDS[normalizer]


_UNSPACED = re.compile(f"[{UNSPACED}]")
_WIDE_MARK = re.compile(f"[{WIDE_MARKS}]")
_BLANKS = re.compile(r"[^\S\r\n\u2028\u0085\v\f]+")


class RawReader:
    """Words of a raw text that arrives in pieces, and `PARAGRAPH` where a blank line stands.

    Letters, digits, marks and tags (`[breath]`) stay as they are. White space becomes one space,
    and a line end between two characters of a script without spaces nothing; control characters
    are left out. What comes out does not depend on how the text is cut, and the work is linear in
    its length, even for a single word without end.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._last = ""
        """The last word that was given out; '' before the first."""
        self._word: list[str] = []
        """Pieces of the word that may go on or be followed by a mark."""
        self._space = ""
        """White space before it."""
        self._stem = ""
        """A short word that goes on as this one does: it is read again in its place."""
        self._blank = ""
        """White space behind it."""

    def feed(self, piece: str) -> list[str]:
        """Return the words that the next piece completes."""
        words: list[str] = []
        *ended, rest = piece.split(PARAGRAPH_END)
        for part in ended:
            words += [*self._feed(part), *self.finish()]
            if self._last:
                words.append(PARAGRAPH)
            self._begin()
        return words + self._feed(rest)

    def finish(self) -> list[str]:
        """Return the words that are left: the text is complete."""
        words = self._place(self._space, "".join(self._word)) if self._word else []
        self._word, self._stem = [], ""
        return words

    def _feed(self, piece: str) -> list[str]:
        text = f"{self._stem}{self._blank}" + "".join(
            c for c in piece if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf")
        )
        found = list(RAW_WORD.finditer(text.rstrip()))
        self._blank = _shorten(text[found[-1].end() if found else 0 :])
        if not found:
            return []
        words: list[str] = []
        start = 1 if self._stem else 0
        if start:  # the first is the word that may go on
            self._word.append(found[0][2][len(self._stem) :])
        if len(found) > start:
            words += self.finish()
            for match in found[start:-1]:
                words += self._place(match[1], match[2])
            self._space, self._word = found[-1][1], [found[-1][2]]
        self._stem = _stem(found[-1][2])
        return words

    def _place(self, space: str, word: str) -> list[str]:
        """A complete word, with what stands for the white space before it."""
        last, self._last = self._last, word
        if not last or not space:
            return [word]
        if BLANK_LINE.search(space):
            return [PARAGRAPH, word]
        is_inside = bool(_UNSPACED.search(last) and _UNSPACED.search(word))
        is_line_end = "\n" in space or "\r" in space
        return [word if is_inside and is_line_end else " " + word]


def _stem(word: str) -> str:
    """A word of at most two characters that may be followed by the same as this one.

    That depends on its first character behind opening marks, and on whether a wide mark has come.
    """
    core = word.lstrip(OPENING_MARKS)
    if not core:
        return word[:1]
    mark = _WIDE_MARK.search(core, 1)
    return core[0] + (mark.group() if mark else "")


def _shorten(space: str) -> str:
    """White space that means the same: a blank line, or a line end among single spaces."""
    if not space:
        return ""
    return "\n\n" if BLANK_LINE.search(space) else _BLANKS.sub(" ", space)


def _raw_words(text: str) -> list[str]:
    reader = RawReader()
    return reader.feed(text) + reader.finish()


def _raw_line(text: str) -> str:
    line = "".join(" " if word == PARAGRAPH else word for word in _raw_words(text))
    return line if any(map(str.isalnum, line)) else ""


_FRONTENDS: dict[NormalizerName, Frontend] = {
    "english": Frontend(NORMALIZED, IncrementalNormalizer, normalized_words, normalize, True),
    "none": Frontend(RAW, RawReader, _raw_words, _raw_line, False),
}
