"""What a text goes through before it is encoded, as the text tokenizer of a bundle says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from tokenlm.text.as_written import AsWritten
from tokenlm.text.incremental import PARAGRAPH, IncrementalNormalizer
from tokenlm.text.normalize import normalize, normalize_paragraphs
from tokenlm.text.writing import AS_WRITTEN, SPOKEN, Writing

NormalizerName = Literal["english", "none"]


class TextReader(Protocol):
    """Takes a text in pieces."""

    def feed(self, piece: str) -> list[str]:
        """The words that the next piece settles, and `PARAGRAPH` where one ends."""
        ...

    def finish(self) -> list[str]:
        """The words that are left: the text is complete."""
        ...


@dataclass(frozen=True)
class Frontend:
    """The ways of a text to words and segments."""

    writing: Writing
    """How its words are put together and cut into segments."""
    reader: Callable[[], TextReader]
    """For a text in pieces."""
    words: Callable[[str], list[str]]
    """Words of a whole text, with `PARAGRAPH` between paragraphs."""
    normalize: Callable[[str], str]
    """A whole text in one line; '' where nothing can be said."""
    leaves_words_out: bool
    """Whether words of scripts that it does not read are left out."""


def _english_words(text: str) -> list[str]:
    words: list[str] = []
    for paragraph in normalize_paragraphs(text):
        words += ([PARAGRAPH] if words else []) + paragraph.split()
    return words


def _words_as_written(text: str) -> list[str]:
    reader = AsWritten()
    return reader.feed(text) + reader.finish()


def _line_as_written(text: str) -> str:
    words = [" " if word == PARAGRAPH else word for word in _words_as_written(text)]
    line = "".join(words)
    return line if any(map(str.isalnum, line)) else ""


_FRONTENDS: dict[NormalizerName, Frontend] = {
    "english": Frontend(SPOKEN, IncrementalNormalizer, _english_words, normalize, True),
    "none": Frontend(AS_WRITTEN, AsWritten, _words_as_written, _line_as_written, False),
}


def frontend(normalizer: NormalizerName) -> Frontend:
    """The front-end of a name; every name that a config may have is known."""
    return _FRONTENDS[normalizer]
