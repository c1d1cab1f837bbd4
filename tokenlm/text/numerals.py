"""Numbers to words: cardinals, ordinals, years, digit strings. American English, without `and`."""

from __future__ import annotations

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = (
    " thousand million billion trillion quadrillion quintillion sextillion septillion octillion "
    "nonillion decillion"
).split(" ")
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip

MAX_CARDINAL_DIGITS = 36
"""Longer integers have no name that people know; they are read digit by digit."""


def cardinal(number: int) -> str:
    """1234 -> 'one thousand two hundred thirty four'; negative numbers get 'minus'."""
    if number < 0:
        return f"minus {cardinal(-number)}"
    if number >= 10**MAX_CARDINAL_DIGITS:
        raise ValueError(f"a cardinal has at most {MAX_CARDINAL_DIGITS} digits")
    if number < 1000:
        return _below_thousand(number)
    words: list[str] = []
    for power in range(len(_SCALES) - 1, -1, -1):
        group = number // 1000**power % 1000
        if group:
            words.append(_below_thousand(group))
            if power:
                words.append(_SCALES[power])
    return " ".join(words)


def _below_thousand(number: int) -> str:
    if number < 20:
        return _UNITS[number]
    if number < 100:
        tens, unit = divmod(number, 10)
        return f"{_TENS[tens]} {_UNITS[unit]}" if unit else _TENS[tens]
    hundreds, rest = divmod(number, 100)
    words = f"{_UNITS[hundreds]} hundred"
    return f"{words} {_below_thousand(rest)}" if rest else words


def ordinal(number: int) -> str:
    """22 -> 'twenty second'."""
    head, _, last = cardinal(number).rpartition(" ")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    elif last.endswith("y"):
        last = f"{last[:-1]}ieth"
    else:
        last = f"{last}th"
    return f"{head} {last}".strip()


def digits(number: str) -> str:
    """'007' -> 'zero zero seven'. Characters that are no ASCII digits are passed over."""
    return " ".join(_UNITS[int(digit)] for digit in number if digit in "0123456789")


def pair(number: int) -> str:
    """Two digits as said inside a year or a time: 5 -> 'oh five', 45 -> 'forty five'."""
    return f"oh {_UNITS[number]}" if number < 10 else _below_thousand(number)


def year(number: int) -> str:
    """1984 -> 'nineteen eighty four', 2005 -> 'two thousand five', 1900 -> 'nineteen hundred'."""
    if number < 1000 or number > 9999 or number % 1000 < 10:
        return cardinal(number)
    century, rest = divmod(number, 100)
    return f"{_below_thousand(century)} {pair(rest) if rest else 'hundred'}"


def code_number(number: str) -> str:
    """A number in a name (A380, x86): '380' -> 'three eighty', '4090' -> 'forty ninety'."""
    if len(number) > 4 or (number[0] == "0" and len(number) > 1):
        return digits(number)
    value = int(number)
    if len(number) == 4:
        return year(value)
    if len(number) == 3 and value % 100:
        return f"{_UNITS[value // 100]} {pair(value % 100)}"
    return cardinal(value)


def spoken_number(number: str) -> str:
    """A written unsigned number: '1,020.50' -> 'one thousand twenty point five zero'.

    Leading zeros are read out ('007'), as is every digit after the point. Never raises on a string
    of ASCII digits, commas and at most one point.
    """
    whole, point, decimals = number.replace(",", "").partition(".")
    if len(whole) > MAX_CARDINAL_DIGITS or (len(whole) > 1 and whole[0] == "0"):
        words = digits(whole)
    else:
        words = cardinal(int(whole)) if whole else ""
    if point and decimals:
        words = f"{words} point {digits(decimals)}"
    return words.strip()


def is_one(number: str) -> bool:
    """Whether a unit after this written number stands in the singular."""
    return number.strip() == "1"


def plural(words: str) -> str:
    """The plural of number words: 'nineteen ninety' -> 'nineteen nineties', 'six' -> 'sixes'."""
    if words.endswith("y"):
        return f"{words[:-1]}ies"
    return f"{words}es" if words.endswith("x") else f"{words}s"
