"""Abbreviations, Roman numerals, acronyms."""

from __future__ import annotations

import pytest

from tokenlm.text.letters import (
    expand_abbreviations,
    expand_acronyms,
    expand_roman,
    is_spelled,
    lower_shouting,
    roman_value,
)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Ask Dr. Lee on Oak Dr. at noon", "Ask doctor Lee on Oak drive at noon"),
        ("St. Ives, 5 High St.", "saint Ives, 5 High street."),
        ("On Wall St. He fell.", "On Wall street. He fell."),
        ("tea, etc. Then home", "tea, et cetera. Then home"),
        ("tea, etc., at home", "tea, et cetera, at home"),
        ("a U.S. Army base", "a u s Army base"),
        ("in the U.S. They left", "in the u s. They left"),
        ("Foo Co. Ltd. sells", "Foo company limited sells"),
        ("at 5 p.m. Call me", "at 5 p m. Call me"),
        ("see the Prof.", "see the professor."),
        ("the end", "the end"),
    ],
)
def test_abbreviations(text: str, spoken: str) -> None:
    assert expand_abbreviations(text) == spoken


@pytest.mark.parametrize(
    ("numeral", "value"),
    [("I", 1), ("IV", 4), ("IX", 9), ("XIV", 14), ("XL", 40), ("XC", 90), ("CD", 400),
     ("MCMLXXXIV", 1984), ("MMXXIV", 2024)],
)  # fmt: skip
def test_roman_values(numeral: str, value: int) -> None:
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
def test_roman_numerals(text: str, spoken: str) -> None:
    assert expand_roman(text) == spoken


@pytest.mark.parametrize("letters", ["FBI", "HTML", "USA", "UNHCR", "XYZ", "OECD", "ESPN", "TSLA"])
def test_spelled(letters: str) -> None:
    assert is_spelled(letters)


@pytest.mark.parametrize("letters", ["NASA", "UNESCO", "STOP", "AND", "HELLO", "RAM", "SCHOOL"])
def test_said_as_words(letters: str) -> None:
    assert not is_spelled(letters)


@pytest.mark.parametrize(
    ("text", "calm"),
    [
        ("LOOK OUT BELOW!", "look out below!"),
        ("CALL THE FBI NOW. I mean NOW.", "call the FBI now. I mean NOW."),
        ("FBI CIA NSA", "FBI CIA NSA"),
        ("HTML", "HTML"),
    ],
)
def test_shouting(text: str, calm: str) -> None:
    assert lower_shouting(text) == calm


@pytest.mark.parametrize(
    ("text", "words"),
    [("XMLParser", "x m l parser"), ("DVD's", "d v d's"), ("YOU'RE", "you're"),
     ("rock-and-roll", "rock-and-roll"), ("B-52", "b fifty two"), ("x86", "x eighty six"),
     ("brrrr", "brr"), ("12", "12")],
)  # fmt: skip
def test_acronyms(text: str, words: str) -> None:
    assert expand_acronyms(text) == words
