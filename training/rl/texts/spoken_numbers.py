"""Numbers, years, dates and times of day in words."""

from __future__ import annotations

import random
from collections.abc import Callable

ONES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
TENS = (
    "zero",
    "ten",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
)
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def cardinal(value: int) -> str:
    """A number from 0 to 999 999 999 in words."""
    assert 0 <= value < 10**9
    if value < 20:
        return ONES[value]
    if value < 100:
        return TENS[value // 10] + (f" {ONES[value % 10]}" if value % 10 else "")
    for size, name, link in (
        (10**6, "million", " "),
        (1000, "thousand", " "),
        (100, "hundred", " and "),
    ):
        if value >= size:
            rest = value % size
            if size > 100 and 0 < rest < 100:
                link = " and "
            head = f"{cardinal(value // size)} {name}"
            return head + (f"{link}{cardinal(rest)}" if rest else "")
    raise AssertionError


def ordinal(value: int) -> str:
    """An ordinal in words."""
    *head, last = cardinal(value).split()
    if last in ORDINALS:
        last = ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return " ".join([*head, last])


def year(value: int) -> str:
    """A year from 1100 to 2099 as it is read."""
    assert 1100 <= value < 2100
    if 2000 <= value < 2010:
        return "two thousand" + (f" and {ONES[value % 10]}" if value % 10 else "")
    head, tail = cardinal(value // 100), value % 100
    if tail == 0:
        return f"{head} hundred"
    return f"{head} {'oh ' if tail < 10 else ''}{cardinal(tail)}"


def clock(hour: int, minute: int) -> str:
    """A time of day; hour 1 to 12, minute 0 to 59."""
    if minute == 0:
        return f"{ONES[hour]} o'clock"
    if minute == 30:
        return f"half past {ONES[hour]}"
    if minute == 15:
        return f"a quarter past {ONES[hour]}"
    return f"{ONES[hour]} {'oh ' if minute < 10 else ''}{cardinal(minute)}"


def _number(rng: random.Random) -> str:
    size = rng.choice((10, 20, 100, 100, 1000, 10**4, 10**6, 10**8))
    value = rng.randrange(2, size)
    # A spoken large number is mostly a round one.
    round_to = max(1, size // 100)
    return cardinal(max(value // round_to * round_to, 2))


SPOKEN: dict[str, Callable[[random.Random], str]] = {
    "number": _number,
    "small_number": lambda rng: cardinal(rng.randrange(2, 20)),
    "ordinal": lambda rng: ordinal(rng.randrange(1, 100)),
    "day_of_month": lambda rng: ordinal(rng.randrange(1, 32)),
    "year": lambda rng: year(rng.randrange(1400, 2050)),
    "clock": lambda rng: clock(rng.randrange(1, 13), rng.randrange(0, 60, 5)),
}
"""Slots of the grammar that are numbers."""
