from __future__ import annotations

import pytest

from training.evaluation.error_rate import (
    ErrorCount,
    char_errors,
    error_rate,
    is_catastrophic,
    spoken_words,
    word_errors,
)


@pytest.mark.parametrize(
    ("reference", "heard", "errors", "length"),
    [
        ("The cat sat.", "the cat sat", 0, 3),
        ("The cat sat.", "the cat", 1, 3),
        ("The cat sat.", "a cat sat down", 2, 3),
        ("The cat sat.", "", 3, 3),
        ("Twenty-five people came.", "twenty five people came", 0, 4),
        ("It's 3 o'clock!", "it's three o'clock", 0, 3),
        ("Yes.", "no not at all", 4, 1),
    ],
)
def test_words_are_counted_on_normalised_text(
    reference: str, heard: str, errors: int, length: int
) -> None:
    assert word_errors(reference, heard) == ErrorCount(errors, length)


@pytest.mark.parametrize(
    ("reference", "heard", "errors", "length"),
    [("Cat!", "cat", 0, 3), ("cat", "cut", 1, 3), ("a cat", "acat", 1, 5), ("cat", "", 3, 3)],
)
def test_characters_include_spaces(reference: str, heard: str, errors: int, length: int) -> None:
    assert char_errors(reference, heard) == ErrorCount(errors, length)


def test_a_reference_without_words_is_an_error() -> None:
    with pytest.raises(ValueError, match="holds no words"):
        word_errors("...", "something")


def test_the_rate_weighs_by_length() -> None:
    assert error_rate([ErrorCount(1, 2), ErrorCount(1, 8)]) == pytest.approx(0.2)


def test_spoken_words_have_no_marks() -> None:
    assert spoken_words("Well -- don't, Mr. Smith?") == "well don't mister smith"


@pytest.mark.parametrize(
    ("spoken", "original", "failed"),
    [
        ((5, 10), None, False),  # 0.5 is not above 0.5
        ((6, 10), None, True),
        ((6, 10), (1, 10), True),  # 0.6 is 0.5 above 0.1
        ((6, 10), (2, 10), False),  # only 0.4 above
        ((9, 10), (5, 10), False),
        ((15, 10), (10, 10), True),
    ],
)
def test_catastrophic_means_lost_and_far_worse_than_the_engine(
    spoken: tuple[int, int], original: tuple[int, int] | None, failed: bool
) -> None:
    beside = None if original is None else ErrorCount(*original)
    assert is_catastrophic(ErrorCount(*spoken), beside) is failed
