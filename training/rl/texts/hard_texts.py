"""Texts that speech LMs fail at, made of ordinary ones: what post-training should see much of.

A corpus holds sentences with punctuation in its usual places. A model trained on it has never had
to do without, to count the same word said five times, or to say a single word. The texts of a test
set take no part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random

from training.data.exclusion import Exclusion

LONGEST_JOINED = 30
"""Words of two texts joined; longer ones are cut into segments before they reach the LM."""
MAX_DRAWS = 20
"""Ways to make a text harder that are tried until one is not excluded."""
ENDS = ("", "...", "!", "!!!", "?!", ";", " -", ":")


def bare(text: str, other: str, rng: Random) -> str:
    """The words without any punctuation, in lower case."""
    return " ".join(words_of(text)).lower()


def joined(text: str, other: str, rng: Random) -> str:
    """Two texts as one, with or without anything between them."""
    first, second = words_of(text), words_of(other)
    if not 1 <= len(second) <= LONGEST_JOINED - len(first):
        return text
    between = rng.choice((" ", ", ", ", and ", " and "))
    return " ".join(first) + between + " ".join(second) + rng.choice(("", "."))


def repeated(text: str, other: str, rng: Random) -> str:
    """One or two of the words, said several times."""
    words = words_of(text)
    start = rng.randrange(len(words))
    phrase = " ".join(words[start : start + rng.choice((1, 1, 2))])
    gap = rng.choice((" ", ", ", ". "))
    return gap.join([phrase] * rng.randint(2, 6)) + rng.choice(("", "."))


def dwelling(text: str, other: str, rng: Random) -> str:
    """The text with one of its words said several times where it stands."""
    words = words_of(text)
    place = rng.randrange(len(words))
    gap = rng.choice((" ", ", ", ", ", " and "))
    words[place] = gap.join([words[place]] * rng.randint(2, 5))
    return " ".join(words) + rng.choice(("", "."))


def short(text: str, other: str, rng: Random) -> str:
    """One to three of the words."""
    words = words_of(text)
    length = rng.choice((1, 1, 2, 3))
    start = rng.randrange(max(len(words) - length, 0) + 1)
    return " ".join(words[start : start + length]) + rng.choice(("", ".", "?", "!"))


def listed(text: str, other: str, rng: Random) -> str:
    """Some of the words as a list, in another order."""
    words = words_of(text)
    chosen = rng.sample(words, rng.randint(min(2, len(words)), min(8, len(words))))
    if len(chosen) < 2:
        return text
    between = rng.choice((", ", ", ", ", and ", " and "))
    return ", ".join(chosen[:-1]) + between + chosen[-1] + rng.choice(("", "."))


def marked(text: str, other: str, rng: Random) -> str:
    """The words with punctuation where there is usually none."""
    words = [f'"{word}"' if rng.random() < 0.1 else word for word in words_of(text)]
    words = [word + rng.choice((",", "-", "!", ".", ";")) * (rng.random() < 0.15) for word in words]
    return " ".join(words).rstrip(",-!.;") + rng.choice(ENDS)


KINDS: dict[str, Callable[[str, str, Random], str]] = {
    "bare": bare,
    "joined": joined,
    "repeated": repeated,
    "dwelling": dwelling,
    "short": short,
    "listed": listed,
    "marked": marked,
}
"""Ways to make a text harder, by name."""


def harden(
    text: str,
    other: str,
    rng: Random,
    weights: Mapping[str, float] | None = None,
    exclusion: Exclusion | None = None,
) -> str:
    """Make an ordinary text harder in one of the ways of `KINDS`.

    Args:
        text: normalised words and punctuation.
        other: another text of the corpus.
        rng: decides; the same state gives the same text.
        weights: how often each way is taken, beside the others; those without one count 1.
        exclusion: what must not come out, as the texts of test sets.

    Returns:
        Words and punctuation; the text itself where it has no word, or where nothing that may come
        out is found.
    """
    if not words_of(text):
        return text
    names = sorted(KINDS)
    own = [(weights or {}).get(name, 1.0) for name in names]
    for _ in range(MAX_DRAWS):
        harder = KINDS[rng.choices(names, own)[0]](text, other, rng)
        if exclusion is None or not exclusion.excludes(harder):
            return harder
    return text


def words_of(text: str) -> list[str]:
    """The words of a text, without punctuation around them."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text)
