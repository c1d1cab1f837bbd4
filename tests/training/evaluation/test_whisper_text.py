"""What Whisper writes and what was asked for, brought to the same words.

CI has no whisper-normalizer: there a stand-in joins numbers as it does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from training.evaluation import error_rate, judges
from training.evaluation.error_rate import (
    clean_for_whisper,
    has_lost_or_doubled,
    is_number_list,
    word_errors,
)

NORMALIZER = find_spec("whisper_normalizer") is not None
REASON = "whisper-normalizer is not installed: extra eval"


class Joining:
    """Joins digits, spells one word the American way, drops one."""

    def standardize_numbers(self, text: str) -> str:
        digits = {"one": "1", "two": "2", "three": "3"}
        return " ".join(digits.get(word, word) for word in text.split()).replace(" 2 3", "23")

    def __call__(self, text: str) -> str:
        words = [word for word in text.split() if word != "hmm"]
        return self.standardize_numbers(" ".join(words).replace("grey", "gray"))


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    english = SimpleNamespace(EnglishTextNormalizer=Joining)
    monkeypatch.setitem(sys.modules, "whisper_normalizer", SimpleNamespace(english=english))
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", english)
    monkeypatch.setattr(judges, "find_spec", lambda name: name)
    error_rate._normalizers.cache_clear()
    yield
    error_rate._normalizers.cache_clear()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("one two three", True),
        ("call five five five oh one two", True),
        ("ten twenty thirty", True),
        ("twenty one twenty two twenty three", True),
        ("ten nine eight", True),
        ("in nineteen eighty four", False),
        ("at seven oh five", False),
        ("nineteen oh five", False),
        ("one hundred and five", False),
        ("two thousand three hundred", False),
        ("one cat and two dogs", False),
        ("", False),
    ],
)
def test_lists_of_numbers_are_told_from_numbers(words: str, expected: bool) -> None:
    assert is_number_list(words) is expected


def test_figures_are_spelled_out_before_they_are_joined(joining: None) -> None:
    clean = clean_for_whisper("A grey cat, at 2 o'clock.")
    assert clean("A grey cat, at 2 o'clock.") == clean("a gray cat at two o'clock")
    assert clean("hmm") == "hmm"  # something was said


@pytest.mark.parametrize("heard", ["1, 2, 3", "1,2,3", "123", "one two three", "1-2-3."])
def test_a_count_keeps_its_words(joining: None, heard: str) -> None:
    clean = clean_for_whisper("One, two, three.")
    assert clean("One, two, three.") == clean(heard) == "one two three"


def test_a_lost_or_doubled_number_is_seen(joining: None) -> None:
    clean = clean_for_whisper("One, two, three.")
    assert word_errors("One, two, three.", "1, 3", clean).errors == 1
    assert has_lost_or_doubled("One, two, three.", "1, 3", clean)
    assert has_lost_or_doubled("One, two, three.", "1, 2, 2, 3", clean)
    assert not has_lost_or_doubled("One, two, three.", "1, 5, 3", clean)
    assert not has_lost_or_doubled("One, two, three.", "1, 2, 3", clean)


@pytest.mark.skipif(not NORMALIZER, reason=REASON)
@pytest.mark.parametrize(
    ("reference", "heard", "errors"),
    [
        ("It's grey, won't it be?", "It is gray, will not it be?", 0),
        ("In 1984 she left.", "In nineteen eighty-four, she left.", 0),
        ("Call 555-0123.", "Call 5550123", 0),
        ("Call 555-0123.", "Call five five five oh one two", 1),
        ("Ten, twenty, thirty", "10, 20, 30.", 0),
        ("room one oh one", "Room 101.", 0),
        ("one hundred and five", "105", 0),
        ("The 3rd of May", "the third of May", 0),
        ("Hmm.", "Hmm.", 0),
    ],
)
def test_the_normaliser_of_whisper_leaves_what_was_said(
    reference: str, heard: str, errors: int
) -> None:
    error_rate._normalizers.cache_clear()
    assert word_errors(reference, heard, clean_for_whisper(reference)).errors == errors
