"""Normalised text to the pieces that are synthesised one by one, with the pauses between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenlm.text.writing import CONJUNCTIONS, SPOKEN, Writing

PARAGRAPH_PAUSE = 0.6
# A cut nearer to an edge than this share of the sentence leaves a fragment: take the next best.
EDGE_SHARE = 0.2


@dataclass(frozen=True)
class Segment:
    """A piece of text to be spoken in one go."""

    text: str
    """Words and marks; of a text as it was written with the space that stood before them."""
    pause_seconds: float
    """Silence after the piece; 0 after the last."""


def segment(
    text: str,
    *,
    max_length: int = 200,
    min_length: int = 20,
    measure: Callable[[str], int] | None = None,
    writing: Writing = SPOKEN,
) -> list[Segment]:
    """Cut text into segments.

    The text is cut after . ? ! ; and : first (and their wide forms, where the writing has them). A
    sentence that is still too long is cut at the comma nearest to its middle, else before a
    conjunction, else between words, until every part fits. Pieces that are too short to be spoken
    well alone are joined to a neighbour within their paragraph. Words are never lost, doubled or
    reordered, and none is cut unless it alone is longer than `max_length`.

    Args:
        text: what `normalize` gives, or paragraphs of `normalize_paragraphs` joined by newlines;
            of another writing likewise.
        max_length: the longest segment, in the unit of `measure`.
        min_length: what is shorter is joined to a neighbour where the two fit; 0 joins nothing.
        measure: the length of a text; that of the writing by default, may count tokens or seconds.
        writing: how words are told and put together.

    Raises:
        ValueError: if `max_length` is not positive or is less than `min_length`.
    """
    if max_length < 1 or min_length < 0 or min_length > max_length:
        raise ValueError(
            f"expected 0 <= min_length <= max_length and a positive max_length, got "
            f"min_length {min_length} and max_length {max_length}"
        )
    measure = measure or writing.measure
    segments: list[Segment] = []
    for paragraph in text.split("\n"):
        pieces: list[str] = []
        for sentence in _sentences(writing.split(paragraph), writing):
            pieces.extend(_fitting(sentence, max_length, measure, writing))
        pieces = _join_short(pieces, max_length, min_length, measure, writing)
        if pieces and segments:
            segments[-1] = Segment(segments[-1].text, PARAGRAPH_PAUSE)
        segments.extend(Segment(piece, writing.pause(piece)) for piece in pieces)
    if segments:
        segments[-1] = Segment(segments[-1].text, 0.0)
    return segments


def _sentences(words: list[str], writing: Writing) -> list[list[str]]:
    sentences: list[list[str]] = [[]]
    for word in words:
        sentences[-1].append(word)
        if writing.ends_sentence(word):
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _fitting(
    words: list[str], max_length: int, measure: Callable[[str], int], writing: Writing
) -> list[str]:
    """Cut a sentence into texts of at most `max_length`; an explicit stack keeps Python's safe."""
    pieces: list[str] = []
    stack = [words]
    while stack:
        part = stack.pop()
        text = writing.join(part)
        if measure(text) <= max_length:
            pieces.append(text)
        elif len(part) > 1:
            cut = _best_cut(part, writing)
            stack += [part[cut:], part[:cut]]
        elif len(text) > 1:
            middle = len(text) // 2
            stack += [[text[middle:]], [text[:middle]]]
        else:  # one character that measures more than is allowed: there is nothing left to cut
            pieces.append(text)
    return pieces


def _best_cut(words: list[str], writing: Writing) -> int:
    """The index of the word to cut before: the best kind of place, nearest to the middle."""
    gap = len(writing.separator)
    total = sum(len(word) + gap for word in words)
    best = (3, float("inf"), 1)
    position = 0
    for index in range(1, len(words)):
        position += len(words[index - 1]) + gap
        if writing.ends_clause(words[index - 1]):
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
    writing: Writing,
) -> list[str]:
    """Join pieces shorter than `min_length` to the neighbour before, else to the one after."""
    joined: list[str] = []
    for piece in pieces:
        if joined and min(measure(joined[-1]), measure(piece)) < min_length:
            both = writing.join([joined[-1], piece])
            if measure(both) <= max_length:
                joined[-1] = both
                continue
        joined.append(piece)
    return joined
