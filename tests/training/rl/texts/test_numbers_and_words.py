from __future__ import annotations

import pytest

from training.rl.texts.inflection import inflect
from training.rl.texts.spoken_numbers import cardinal, clock, ordinal, year


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (14, "fourteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (205, "two hundred and five"),
        (1000, "one thousand"),
        (1010, "one thousand and ten"),
        (12345, "twelve thousand three hundred and forty five"),
        (2000001, "two million and one"),
    ],
)
def test_cardinal(value: int, words: str) -> None:
    assert cardinal(value) == words


def test_ordinal() -> None:
    assert [ordinal(value) for value in (1, 2, 12, 20, 21, 35, 100)] == [
        "first",
        "second",
        "twelfth",
        "twentieth",
        "twenty first",
        "thirty fifth",
        "one hundredth",
    ]


def test_year_and_clock() -> None:
    assert year(1900) == "nineteen hundred"
    assert year(1906) == "nineteen oh six"
    assert year(1984) == "nineteen eighty four"
    assert year(2000) == "two thousand"
    assert year(2007) == "two thousand and seven"
    assert year(2024) == "twenty twenty four"
    assert clock(4, 0) == "four o'clock"
    assert clock(4, 5) == "four oh five"
    assert clock(11, 30) == "half past eleven"


@pytest.mark.parametrize(
    ("entry", "form", "word"),
    [
        ("man/men", "plural", "men"),
        ("box", "plural", "boxes"),
        ("story", "plural", "stories"),
        ("boy", "plural", "boys"),
        ("write/wrote/written", "past", "wrote"),
        ("write/wrote/written", "done", "written"),
        ("write/wrote/written", "ing", "writing"),
        ("stop", "past", "stopped"),
        ("carry", "past", "carried"),
        ("lie/lay/lain", "ing", "lying"),
        ("see/saw/seen", "ing", "seeing"),
        ("agree", "ing", "agreeing"),
        ("go/went/gone", "s", "goes"),
        ("watch", "s", "watches"),
        ("look-at", "past", "looked-at"),
        ("show", "past", "showed"),
        ("rain", "past", "rained"),
        ("cat", "", "cat"),
    ],
)
def test_inflect(entry: str, form: str, word: str) -> None:
    assert inflect(entry, form) == word
