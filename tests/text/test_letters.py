from __future__ import annotations

import pytest

from tokenlm.text.acronyms import expand_acronyms, is_spelled, lower_shouting


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
def test_expand(text: str, words: str) -> None:
    assert expand_acronyms(text) == words
