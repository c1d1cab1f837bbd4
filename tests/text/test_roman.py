from __future__ import annotations

import pytest

from tokenlm.text.roman import expand_roman, roman_value


@pytest.mark.parametrize(
    ("numeral", "value"),
    [("I", 1), ("IV", 4), ("IX", 9), ("XIV", 14), ("XL", 40), ("XC", 90), ("CD", 400),
     ("MCMLXXXIV", 1984), ("MMXXIV", 2024)],
)  # fmt: skip
def test_value(numeral: str, value: int) -> None:
    assert roman_value(numeral) == value


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Louis XIV", "Louis the fourteenth"),
        ("Act I, Scene II", "Act one, Scene two"),
        ("World War I saw", "World War one saw"),
        ("the part I like", "the part I like"),
        ("Vitamin C and D", "Vitamin C and D"),
        ("George V. Smith", "George V. Smith"),
        ("in MCMXCIX", "in nineteen ninety nine"),
    ],
)
def test_expand(text: str, spoken: str) -> None:
    assert expand_roman(text) == spoken
