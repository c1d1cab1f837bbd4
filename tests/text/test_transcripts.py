"""Transcripts: alphabets, what they keep of a text, and errors per character and per word."""

from __future__ import annotations

import pytest

from tokenlm.text.transcripts import (
    ENGLISH_ALPHABET,
    WordErrors,
    char_error,
    check_alphabet,
    collect_alphabet,
    decode_characters,
    encode_characters,
    known_characters,
    word_errors,
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
