"""How far what was read is from what was to be read."""

from __future__ import annotations

from collections.abc import Sequence

from tokenlm.text.alphabet import known_characters


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """Fewest insertions, deletions and substitutions between two sequences (Levenshtein, 1966)."""
    above = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        current = [row]
        for column, right in enumerate(second, start=1):
            current.append(
                min(above[column] + 1, current[-1] + 1, above[column - 1] + (left != right))
            )
        above = current
    return above[-1]


def char_error(text: str, heard: str, alphabet: str) -> float | None:
    """Errors per character of a text, both in the characters that the recogniser knows.

    Deletions are what was skipped or left out at the end, insertions what was repeated, babbled or
    leaked from the prompt. None where the text has no known character: it cannot be checked.
    """
    reference = known_characters(text, alphabet)
    found = known_characters(heard, alphabet)
    return edit_distance(reference, found) / len(reference) if reference else None
