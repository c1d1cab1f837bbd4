"""The characters that a recogniser writes, and texts in them.

An alphabet is a text of distinct characters; character n of it has the index n + 1, because 0 is
the blank of CTC and the end of the attention decoder. What a text is compared in, trained with and
decoded to is the same everywhere: that of the recogniser that reads.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

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
