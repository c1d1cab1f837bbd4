"""Alphabets: what they keep of a text, and what can stand in one."""

from __future__ import annotations

import pytest

from tokenlm.text.alphabet import (
    ENGLISH_ALPHABET,
    check_alphabet,
    collect_alphabet,
    decode_characters,
    encode_characters,
    known_characters,
)


def test_english() -> None:
    assert len(ENGLISH_ALPHABET) == 28
    assert encode_characters("Ab c'", ENGLISH_ALPHABET) == [3, 4, 1, 5, 2]
    known = known_characters("  well-known,  é  ", ENGLISH_ALPHABET)
    assert known == known_characters("well\nknown", ENGLISH_ALPHABET) == "well known"
    assert encode_characters("?!", ENGLISH_ALPHABET) == []
    assert decode_characters([0, 10, 11, 0, 1, 0], ENGLISH_ALPHABET) == "hi"
    assert known_characters("It’s so.", ENGLISH_ALPHABET) == "it's so"


def test_another_script() -> None:
    alphabet = collect_alphabet(["今天是2024年。", "你好吗？", "ＡＰＰ 今天"])
    assert alphabet == " 024ap今你吗天好年是"
    # Full-width letters are the same letters; marks and what is not known are dropped.
    assert known_characters("今天，Ａpp是吧？", alphabet) == "今天app是"
    assert encode_characters("你好", "你好") == [1, 2]
    # Without a space in the alphabet words are not parted.
    assert known_characters("你 好-你", "你好") == "你好你"


def test_what_is_collected() -> None:
    assert collect_alphabet(["Don’t!", "un-do"]) == " 'dnotu"
    assert collect_alphabet([" dich "]) == "cdhi"  # a space around a text parts nothing
    # One character or a letter and its accent: the same in both.
    assert collect_alphabet(["é"]) == collect_alphabet(["e\u0301"]) == "é"
    # Vowel signs are part of the script: they stand behind their letters, as marks.
    assert collect_alphabet(["कि की"]) == " किी"
    assert collect_alphabet(["…!?"]) == ""


def test_tags_are_not_said() -> None:
    text = "<|endofprompt|>So [breath] it <strong>is</strong>[vocalized-noise]."
    assert known_characters(text, ENGLISH_ALPHABET) == "so it is"
    assert collect_alphabet(["a[mn]"]) == "a"


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [
        ("", "is empty"),
        ("abca", "'a' more than once"),
        ("aB", "'B', which no text has"),
        ("a\t", "which no text has"),
        ("ａ", "NFKC"),
    ],
)
def test_impossible_alphabets(alphabet: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_alphabet(alphabet)


def test_what_was_collected_is_possible() -> None:
    check_alphabet(collect_alphabet(["Straße, İstanbul: 3½ µm ﬁne", "हिन्दी", "ไทย", "한국어"]))
