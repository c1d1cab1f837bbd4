"""Errors between what should be said and what a judge heard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jiwer

from tokenlm.text.alphabet import ENGLISH_ALPHABET
from tokenlm.text.normalize import normalize

CATASTROPHIC_RATE = 0.5
"""An utterance has failed when more of its words are wrong than this, and by as much more than in
the source engine's own reading, where there is one."""


@dataclass(frozen=True)
class ErrorCount:
    """Substitutions, deletions and insertions, and how long the reference is."""

    errors: int
    length: int

    @property
    def rate(self) -> float:
        """Errors per unit of the reference; may be above 1."""
        return self.errors / self.length


def spoken_words(text: str) -> str:
    """Bring a text to lower-case words with single spaces, without marks."""
    spoken = normalize(text).replace("-", " ")
    return " ".join("".join(c for c in spoken if c in ENGLISH_ALPHABET).split())


def word_errors(reference: str, heard: str) -> ErrorCount:
    """Count wrong words.

    Args:
        reference: what should be said, as written.
        heard: what the judge wrote.

    Raises:
        ValueError: the reference has no words.
    """
    words, heard = _spoken_reference(reference), spoken_words(heard)
    found = jiwer.process_words(words, heard)
    return ErrorCount(found.substitutions + found.deletions + found.insertions, len(words.split()))


def errors_by_part(references: Sequence[str], heard: str) -> list[ErrorCount]:
    """Count wrong words of a long reading, and to which part of the text each belongs.

    The whole is aligned at once, so that it does not matter where the judge was cut off. A word
    that was put in between two parts counts for the second.

    Args:
        references: the parts in their order, as written.
        heard: what the judge wrote of all of them.

    Raises:
        ValueError: a part has no words.
    """
    lengths = [len(_spoken_reference(part).split()) for part in references]
    owners = [part for part, length in enumerate(lengths) for _ in range(length)]
    words = " ".join(spoken_words(part) for part in references)
    errors = [0] * len(lengths)
    for chunk in jiwer.process_words(words, spoken_words(heard)).alignments[0]:
        if chunk.type == "insert":
            place = min(chunk.ref_start_idx, len(owners) - 1)
            errors[owners[place]] += chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            for place in range(chunk.ref_start_idx, chunk.ref_end_idx):
                errors[owners[place]] += 1
    return [ErrorCount(wrong, length) for wrong, length in zip(errors, lengths, strict=True)]


def char_errors(reference: str, heard: str) -> ErrorCount:
    """Count wrong characters, spaces among them; see `word_errors`."""
    words, heard = _spoken_reference(reference), spoken_words(heard)
    found = jiwer.process_characters(words, heard)
    return ErrorCount(found.substitutions + found.deletions + found.insertions, len(words))


def error_rate(counts: Iterable[ErrorCount]) -> float:
    """Errors of all over the length of all: long utterances count for more."""
    counts = list(counts)
    return sum(count.errors for count in counts) / sum(count.length for count in counts)


def is_catastrophic(spoken: ErrorCount, original: ErrorCount | None = None) -> bool:
    """Whether an utterance is lost: an error rate above 0.5, and 0.5 above the engine's own.

    Args:
        spoken: of the speech that is judged.
        original: of the source engine's own reading of the same text, where there is one.
    """
    base = 0.0 if original is None else original.rate
    return spoken.rate > CATASTROPHIC_RATE and spoken.rate - base >= CATASTROPHIC_RATE


def _spoken_reference(reference: str) -> str:
    words = spoken_words(reference)
    if not words:
        raise ValueError(f"the reference text {reference[:40]!r} holds no words to compare with.")
    return words
