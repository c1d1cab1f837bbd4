"""Transcripts: the characters that a recogniser writes, and the errors of what it read.

An alphabet is a text of distinct characters; character n of it has the index n + 1, because 0 is
the blank of CTC and the end of the attention decoder. What a text is compared in, trained with and
decoded to is the same everywhere: that of the recogniser that reads.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz.distance import Levenshtein

# --- Alphabets ---

ENGLISH_ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"

# What a text tokenizer takes as one sign and nobody says: [breath], <strong>, <|endofprompt|>.
_TAG = re.compile(r"\[[^\[\]\s]+\]|<\|[^<>|]*\|>|</?[a-z_]+>")
_APOSTROPHES = str.maketrans("’ʼ", "''")


def folded(text: str) -> str:
    """A text as alphabets have it: compatibility forms as one (NFKC), lower case, without tags."""
    return _TAG.sub("", unicodedata.normalize("NFKC", text).lower()).translate(_APOSTROPHES)


def check_alphabet(alphabet: str) -> None:
    """Checks that every character can stand in a folded text.

    Raises:
        ValueError: there is none, one is there twice, or one is never met.
    """
    if not alphabet:
        raise ValueError("the alphabet is empty")
    twice = [char for char, count in Counter(alphabet).items() if count > 1]
    if twice:
        raise ValueError(f"the alphabet has {_shown(twice)} more than once")
    never = [c for c in alphabet if folded(c) != c or (c.isspace() and c != " ")]
    if never:
        raise ValueError(
            f"the alphabet has {_shown(never)}, which no text has: it is put into lower case and "
            "NFKC, with single spaces"
        )


def collect_alphabet(texts: Iterable[str]) -> str:
    """The letters, digits, combining marks and apostrophes of texts, and the space between words.

    Returns:
        Each once, in the order of their code points.
    """
    found: set[str] = set()
    for text in texts:
        line = folded(text).strip()
        found.update(line)
        found.update(" " for c in line if _parts_words(c))
    return "".join(sorted(c for c in found if c in " '" or unicodedata.category(c)[0] in "LMN"))


def encode_characters(text: str, alphabet: str) -> list[int]:
    """Indices (1 and up) of the known characters of a text; the others are dropped."""
    numbers = _numbers(alphabet)
    has_space = " " in numbers
    kept = "".join(
        c if c in numbers else (" " if has_space and _parts_words(c) else "") for c in folded(text)
    )
    return [numbers[c] for c in " ".join(kept.split())]


def decode_characters(indices: Sequence[int], alphabet: str) -> str:
    """Text of character indices, ignoring 0."""
    return "".join(alphabet[i - 1] for i in indices if i > 0).strip()


def known_characters(text: str, alphabet: str) -> str:
    """A text as a recogniser without a fault would write it; '' where it knows nothing of it."""
    return decode_characters(encode_characters(text, alphabet), alphabet)


def _parts_words(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) == "Pd"


def _shown(chars: Sequence[str]) -> str:
    named = ", ".join(map(repr, chars[:8]))
    return named + (f" and {len(chars) - 8} more" if len(chars) > 8 else "")


@lru_cache(maxsize=16)
def _numbers(alphabet: str) -> dict[str, int]:
    return {char: number for number, char in enumerate(alphabet, start=1)}


# --- Errors, per character and per word ---

_WORD_UNITS = 3
"""Fewest units of a word: shorter runs may be noise."""
_MEAN_UNITS = 4
"""Units of a word on the average."""
_GAP, _GAP_MORE = 1.0, 0.7
"""Costs of the first unit of a gap and of each further one; few long gaps are preferred."""
_INSIDE = 0.1
"""Additional cost of a gap that begins inside a word."""
_INFINITE = float("inf")


def char_error(text: str, hypothesis: str, alphabet: str) -> float | None:
    """Errors per character of a text, both in the characters that the recogniser knows.

    Deletions are what was skipped or left out at the end, insertions what was repeated, babbled or
    leaked from the prompt. None where the text has no known character: it cannot be checked.
    """
    reference = known_characters(text, alphabet)
    if not reference:
        return None
    return Levenshtein.distance(reference, known_characters(hypothesis, alphabet)) / len(reference)


@dataclass(frozen=True, kw_only=True)
class WordErrors:
    """Number of words of a text that were said wrong, as a whole."""

    missing: int = 0
    """Words of which nothing, or next to nothing, was recognised."""
    repeated: int = 0
    """Words that were said once more."""
    inserted: int = 0
    """Words that stand nowhere near in the text."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.missing + self.repeated + self.inserted


def word_errors(words: Sequence[Sequence[object]], hypothesis: Sequence[object]) -> WordErrors:
    """Compare the words of a text with what a recogniser read, word for word.

    A recogniser errs on single sounds, so a word counts as missing only if most of its units are
    not there or two thirds of them are others, and as inserted or repeated only what is as long as
    a word.

    Args:
        words: units (phones, characters) of each word.
        hypothesis: units that were recognised, without word boundaries.
    """
    units = [unit for word in words for unit in word]
    owners = [number for number, word in enumerate(words) for _ in word]
    starts = [at == 0 or owners[at] != owners[at - 1] for at in range(len(units))] + [True]
    matched, deleted = [0] * len(words), [0] * len(words)
    repeated = inserted = place = 0
    run: list[object] = []
    """What was recognised since the last unit of the text, beside it."""
    for at, other in [*_align(units, hypothesis, starts), (len(units), None)]:
        if at is None:
            run.append(hypothesis[other or 0])
            continue
        again = _repeated_words(units, owners, place, run)
        repeated += again
        if not again and len(run) >= _WORD_UNITS:
            inserted += max(round(len(run) / _MEAN_UNITS), 1)
        run, place = [], at + 1
        if at < len(units):
            deleted[owners[at]] += other is None
            matched[owners[at]] += other is not None and units[at] == hypothesis[other]
    missing = sum(
        2 * gone > len(word) or 3 * right <= len(word)
        for word, right, gone in zip(words, matched, deleted, strict=True)
    )
    return WordErrors(missing=missing, repeated=repeated, inserted=inserted)


def _repeated_words(units: list[object], owners: list[int], place: int, run: list[object]) -> int:
    """Words that `run`, read before unit `place`, says once more; 0 if it is something else."""
    size = len(run)
    for start in (place - size, place):
        same = units[max(start, 0) : start + size]
        allowed = size // _WORD_UNITS
        if size > 1 and len(same) == size and Levenshtein.distance(same, run) <= allowed:
            return len(set(owners[start : start + size]))
    return 0


def _align(
    first: Sequence[object], second: Sequence[object], starts: Sequence[bool]
) -> list[tuple[int | None, int | None]]:
    """Pairs of indices of an alignment with affine gaps (Gotoh, 1982); None is a gap.

    `starts` says of each place in the first, its end included, whether a word begins there.
    """
    width = len(second) + 1
    # Best costs where the last step is a pair, a unit of the first alone, one of the second alone.
    above = [[_INFINITE] * width for _ in range(3)]
    above[0][0] = 0.0
    steps: list[list[tuple[int, int, int]]] = []
    for row in range(len(first) + 1):
        current = [[_INFINITE] * width for _ in range(3)] if row else above
        came = [(0, 0, 0)] * width
        gap_here = _GAP if starts[row] else _GAP + _INSIDE
        gap_above = _GAP if row and starts[row - 1] else _GAP + _INSIDE
        for column in range(width):
            from_pair = from_gone = from_new = 0
            if row:
                costs = (above[0][column] + gap_above, above[1][column] + _GAP_MORE,
                         above[2][column] + gap_above)  # fmt: skip
                from_gone = costs.index(min(costs))
                current[1][column] = costs[from_gone]
            if row and column:
                costs = (above[0][column - 1], above[1][column - 1], above[2][column - 1])
                from_pair = costs.index(min(costs))
                is_wrong = first[row - 1] != second[column - 1]
                current[0][column] = costs[from_pair] + is_wrong
            if column:
                costs = (current[0][column - 1] + gap_here, current[1][column - 1] + gap_here,
                         current[2][column - 1] + _GAP_MORE)  # fmt: skip
                from_new = costs.index(min(costs))
                current[2][column] = costs[from_new]
            came[column] = (from_pair, from_gone, from_new)
        steps.append(came)
        above = current
    ends = [above[kind][-1] for kind in range(3)]
    kind, row, column = ends.index(min(ends)), len(first), len(second)
    pairs: list[tuple[int | None, int | None]] = []
    while row or column:
        before = steps[row][column][kind]
        if kind == 0:
            row, column = row - 1, column - 1
            pairs.append((row, column))
        elif kind == 1:
            row -= 1
            pairs.append((row, None))
        else:
            column -= 1
            pairs.append((None, column))
        kind = before
    return pairs[::-1]
