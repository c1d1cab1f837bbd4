"""Endings that follow a rule: how plurals, possessives and contractions are said after their word.

    dog's  dog + z        isn't  is + ax n t        judges'  judges        it'd  it + ax d

The phones are those of the CMU dictionary and of flite, with or without digits of stress.
"""

from __future__ import annotations

from collections.abc import Sequence

_HISSING = frozenset({"s", "z", "sh", "zh", "ch", "jh"})
_VOICELESS = frozenset({"p", "t", "k", "f", "th", *_HISSING - {"z", "zh", "jh"}})
_VOWELS = frozenset("aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw".split())
_LIQUIDS = frozenset({"l", "r", "m", "n", "ng"})
ENDING_PHONES = frozenset("ax d er l m n s t v z".split())
"""All that may be added."""
_ENDINGS = ("n't", "'ve", "'ll", "'re", "'d", "'m", "'s", "'")
_OWN_SOUND = frozenset("ain't can't don't shan't won't you're they're we're".split())
"""Contractions that are not said as their words are."""


def split_ending(word: str) -> tuple[str, str] | None:
    """A word with an apostrophe to what it is made of: `isn't` is ("is", "n't").

    Returns:
        None where the word has no ending of this kind, or is said in a way of its own.
    """
    if word in _OWN_SOUND:
        return None
    for ending in _ENDINGS:
        base = word.removesuffix(ending)
        if base != word and base.strip("'"):
            return base, ending
    return None


def add_ending(phones: Sequence[str], ending: str) -> tuple[str, ...]:
    """The phones of a word with an ending of `split_ending`, or `s` of a plural or a verb.

    Args:
        phones: of the word, at least one.
        ending: what is added.
    """
    last = phones[-1].rstrip("0123456789")
    is_vowel = last in _VOWELS
    if ending in ("s", "'s"):
        if last in _HISSING:
            return (*phones, "ax", "z")
        return (*phones, "s" if last in _VOICELESS else "z")
    if ending == "'":  # dogs', James'
        return tuple(phones)
    if ending == "n't":
        if last == "t" and len(phones) > 1 and phones[-2] == "s":
            phones = phones[:-1]  # the first t of mustn't is silent
        return (*phones, "n", "t") if is_vowel else (*phones, "ax", "n", "t")
    if ending == "'re":
        return (*phones, "er")
    sound = {"'ve": "v", "'ll": "l", "'d": "d", "'m": "m"}[ending]
    joins = is_vowel or (ending == "'d" and last in _LIQUIDS)
    return (*phones, sound) if joins else (*phones, "ax", sound)


def has_rough_end(phones: Sequence[str]) -> bool:
    """Whether a last z follows a voiceless phone, as it does in no English word."""
    return len(phones) > 1 and phones[-1] == "z" and phones[-2] in _VOICELESS
