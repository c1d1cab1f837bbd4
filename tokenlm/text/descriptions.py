"""Descriptions of voices, such as "a calm older man", as values of attributes.

Each word that is known moves attributes by some standard deviations of the voices of a bundle;
words such as "very" and "slightly" change by how much, and "not" and "less" the direction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Moves = dict[str, float]

ATTRIBUTES = {
    "pitch": "how high the voice is",
    "brightness": "how much of the sound is in high frequencies",
    "liveliness": "how much the pitch moves",
    "age": "how old the speaker sounds",
    "sex": "from male (below 0) to female (above 0)",
}
"""Attributes of voices, in units of standard deviations from the mean voice."""


def _table(*rows: tuple[str, Moves]) -> dict[str, Moves]:
    return {word: moves for words, moves in rows for word in words.split()}


WORDS = _table(
    ("man male masculine gentleman guy he his", {"sex": -1.0}),
    ("woman female feminine lady she her", {"sex": 1.0}),
    ("boy", {"sex": -0.7, "age": -1.8, "pitch": 1.0}),
    ("girl", {"sex": 1.0, "age": -1.8, "pitch": 1.2}),
    ("child kid childlike", {"age": -2.0, "pitch": 1.5}),
    ("grandfather grandpa", {"sex": -1.0, "age": 2.0}),
    ("grandmother grandma", {"sex": 1.0, "age": 2.0}),
    ("androgynous neutral", {"sex": 0.0}),
    ("old older elderly aged senior mature", {"age": 1.5}),
    ("middle-aged", {"age": 0.6}),
    ("young younger youthful teenage teenager", {"age": -1.3}),
    ("deep low lower bass baritone low-pitched", {"pitch": -1.5}),
    ("high higher high-pitched squeaky soprano", {"pitch": 1.5}),
    ("tenor", {"pitch": 0.4, "sex": -1.0}),
    ("bright brighter crisp sharp clear tinny thin shrill", {"brightness": 1.4}),
    ("dark darker warm warmer mellow muffled soft round rich velvety", {"brightness": -1.4}),
    ("calm calmer monotone monotonous flat serious relaxed bored sober even", {"liveliness": -1.4}),
    ("gentle quiet sleepy soothing", {"liveliness": -1.0, "brightness": -0.6}),
    ("lively livelier animated expressive excited energetic cheerful", {"liveliness": 1.4}),
    ("enthusiastic dramatic happy melodic sing-song", {"liveliness": 1.4}),
)
"""What words say of a voice."""
_SCALES = {
    **dict.fromkeys(("very", "really", "extremely", "quite", "strongly", "much"), 1.5),
    **dict.fromkeys(("slightly", "somewhat", "bit", "little", "rather", "fairly", "mildly"), 0.5),
    **dict.fromkeys(("not", "less", "without", "never", "isn't", "no"), -0.8),
}
_PASSED_OVER = frozenset(
    "a an the of with and but who whose voice voiced speaker speaking speaks sounding sounds sound "
    "person one that is in very-like like tone kind".split()
)
_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*")


class DescriptionError(ValueError):
    """A description of which no word is understood."""


@dataclass(frozen=True)
class Description:
    """What is understood of a description."""

    attributes: Moves
    """Value of each attribute that is mentioned."""
    ignored: list[str] = field(default_factory=list)
    """Words that are not understood."""


def read_description(text: str) -> Description:
    """The attributes that a description mentions.

    Args:
        text: in English, in any case.

    Raises:
        DescriptionError: no word of it is understood.
    """
    found: dict[str, list[float]] = {}
    ignored: list[str] = []
    scale = 1.0
    for word in _words(text):
        if word in _SCALES:
            scale *= _SCALES[word]
        elif word in WORDS:
            for name, value in WORDS[word].items():
                found.setdefault(name, []).append(scale * value)
            scale = 1.0
        elif word not in _PASSED_OVER:
            ignored.append(word)
            scale = 1.0
    if not found:
        known = ", ".join(sorted(WORDS)[:: max(len(WORDS) // 12, 1)])
        raise DescriptionError(
            f"nothing of the description {text[:60]!r} is understood; words such as: {known}."
        )
    # Of several words about one thing the strongest counts: an elderly lady is not twice female.
    return Description({name: max(values, key=abs) for name, values in found.items()}, ignored)


def _words(text: str) -> list[str]:
    words = []
    for word in _WORD.findall(text.lower()):
        words += [word] if word in WORDS or word in _SCALES else word.split("-")
    return words
