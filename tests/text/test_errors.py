"""Edit distances by hand."""

from __future__ import annotations

import pytest

from tokenlm.text.alphabet import ENGLISH_ALPHABET
from tokenlm.text.errors import char_error, edit_distance


def test_distance_by_hand() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3 and edit_distance("abc", "abc") == 0
    assert edit_distance([1, 2, 3], [2, 3, 4]) == 2


def test_char_error_by_hand() -> None:
    assert char_error("The cat.", "the cat", ENGLISH_ALPHABET) == 0.0
    assert char_error("abcd", "abxd", ENGLISH_ALPHABET) == 0.25
    assert char_error("abcd", "", ENGLISH_ALPHABET) == 1.0  # an early stop
    assert char_error("abcd", "abcdabcd", ENGLISH_ALPHABET) == 1.0  # a repeat
    assert char_error("one-two", "one two", ENGLISH_ALPHABET) == 0.0
    assert char_error("...", "x", ENGLISH_ALPHABET) is None  # nothing to be checked
    assert char_error("你好，吗？", "你吗", "你吗好") == pytest.approx(1 / 3)
    assert char_error("你好", "hello", ENGLISH_ALPHABET) is None
