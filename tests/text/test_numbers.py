from __future__ import annotations

import pytest

from tokenlm.text.numbers import (
    cardinal,
    code_number,
    digits,
    ordinal,
    pair,
    plural,
    spoken_number,
    year,
)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (1_000, "one thousand"),
        (1_001, "one thousand one"),
        (20_300, "twenty thousand three hundred"),
        (1_000_000, "one million"),
        (10**33, "one decillion"),
        (10**9 + 7, "one billion seven"),
        (-42, "minus forty two"),
    ],
)
def test_cardinal(number: int, words: str) -> None:
    assert cardinal(number) == words


def test_cardinal_without_a_name_is_refused() -> None:
    assert cardinal(10**36 - 1).startswith("nine hundred ninety nine decillion")
    with pytest.raises(ValueError, match="36 digits"):
        cardinal(10**36)


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "first"), (2, "second"), (3, "third"), (5, "fifth"), (8, "eighth"), (9, "ninth"),
     (12, "twelfth"), (20, "twentieth"), (21, "twenty first"), (100, "one hundredth"),
     (1_000, "one thousandth"), (113, "one hundred thirteenth"), (0, "zeroth")],
)  # fmt: skip
def test_ordinal(number: int, words: str) -> None:
    assert ordinal(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(1984, "nineteen eighty four"), (1900, "nineteen hundred"), (1905, "nineteen oh five"),
     (2000, "two thousand"), (2005, "two thousand five"), (2010, "twenty ten"),
     (2024, "twenty twenty four"), (1001, "one thousand one"), (476, "four hundred seventy six"),
     (3021, "thirty twenty one")],
)  # fmt: skip
def test_year(number: int, words: str) -> None:
    assert year(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [("7", "seven"), ("64", "sixty four"), ("380", "three eighty"), ("101", "one oh one"),
     ("500", "five hundred"), ("4090", "forty ninety"), ("2000", "two thousand"),
     ("007", "zero zero seven"), ("12345", "one two three four five"), ("0", "zero")],
)  # fmt: skip
def test_code_number(number: str, words: str) -> None:
    assert code_number(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [("1,234.50", "one thousand two hundred thirty four point five zero"), (".5", "point five"),
     ("0.05", "zero point zero five"), ("3", "three"), ("3.", "three"),
     ("9" * 37, " ".join(["nine"] * 37))],
)  # fmt: skip
def test_spoken_number(number: str, words: str) -> None:
    assert spoken_number(number) == words


def test_small_parts() -> None:
    assert digits("4-2 0") == "four two zero"
    assert pair(7) == "oh seven"
    assert pair(45) == "forty five"
    assert plural("nineteen ninety") == "nineteen nineties"
    assert plural("six") == "sixes"
    assert plural("eighteen hundred") == "eighteen hundreds"
