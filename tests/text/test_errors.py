"""Character and word errors by hand."""

from __future__ import annotations

import pytest

from tokenlm.text.alphabet import ENGLISH_ALPHABET
from tokenlm.text.errors import WordErrors, char_error, word_errors


def test_char_error_by_hand() -> None:
    assert char_error("The cat.", "the cat", ENGLISH_ALPHABET) == 0.0
    assert char_error("abcd", "abxd", ENGLISH_ALPHABET) == 0.25
    assert char_error("abcd", "", ENGLISH_ALPHABET) == 1.0  # an early stop
    assert char_error("abcd", "abcdabcd", ENGLISH_ALPHABET) == 1.0  # a repeat
    assert char_error("one-two", "one two", ENGLISH_ALPHABET) == 0.0
    assert char_error("...", "x", ENGLISH_ALPHABET) is None  # nothing to be checked
    assert char_error("你好，吗？", "你吗", "你吗好") == pytest.approx(1 / 3)
    assert char_error("你好", "hello", ENGLISH_ALPHABET) is None


@pytest.mark.parametrize(
    ("text", "heard", "errors"),
    [
        ("one two three four", "one two three four", WordErrors()),
        ("one two three four", "one tuo threw for", WordErrors()),
        ("one two three four", "one two four", WordErrors(missing=1)),
        ("one two three four", "one", WordErrors(missing=3)),
        ("one two three four", "one two two three four", WordErrors(repeated=1)),
        ("we go home", "we go we go home", WordErrors(repeated=2)),
        ("one two three", "one two elephants three", WordErrors(inserted=2)),
        ("red bus red car red bike", "red bus red bike", WordErrors(missing=2)),
        ("a b c d", "a b d", WordErrors(missing=1)),
        ("stop", "quick", WordErrors(missing=1)),
        ("yes", "", WordErrors(missing=1)),
        ("", "yes", WordErrors(inserted=1)),
        ("", "", WordErrors()),
    ],
)
def test_words_by_hand(text: str, heard: str, errors: WordErrors) -> None:
    """The reader does not say where words end."""
    found = word_errors([list(word) for word in text.split()], list(heard.replace(" ", "")))
    assert found == errors and found.total == errors.missing + errors.repeated + errors.inserted


def test_one_lost_item_of_many_is_always_found() -> None:
    numbers = "one two three four five six seven eight nine ten eleven twelve".split()
    words = [list(word) for word in numbers]
    for left_out in range(len(numbers)):
        heard = list("".join(numbers[:left_out] + numbers[left_out + 1 :]))
        assert word_errors(words, heard) == WordErrors(missing=1)
        heard = list("".join(numbers[:left_out] + [numbers[left_out]] + numbers[left_out:]))
        assert word_errors(words, heard) == WordErrors(repeated=1)
