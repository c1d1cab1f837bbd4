"""Lexicon, endings, and the pronunciations of the embedded bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenlm.text.letters import SOUNDS
from tokenlm.text.pronunciation import (
    LexiconError,
    add_ending,
    ends_in_voiceless_z,
    read_lexicon,
    split_ending,
    write_lexicon,
)
from tokenlm.text.tokenizers import PhonemeTokenizer

BUNDLE_LEXICON = (
    Path(__file__).parents[2] / "checkpoints" / "mini-en" / "text_tokenizer" / "lexicon.txt"
)


def test_reads_the_format_of_the_cmu_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text(";;; a comment\n\nREAD  R EH1 D\nREAD(1)  R IY1 D\nit's  ih1 t s\n")
    assert read_lexicon(path) == {"read": ("r", "eh1", "d"), "it's": ("ih1", "t", "s")}


def test_writes_in_order_and_reads_back(tmp_path: Path) -> None:
    lexicon = {"b": ("b", "iy1"), "a": ("ax",)}
    write_lexicon(lexicon, tmp_path / "lexicon.txt")
    assert (tmp_path / "lexicon.txt").read_text() == "a  ax\nb  b iy1\n"
    assert read_lexicon(tmp_path / "lexicon.txt") == lexicon


def test_mistakes_of_a_lexicon_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("a  ax\nword\n")
    with pytest.raises(LexiconError, match="line 2: the word 'word' has no phones"):
        read_lexicon(path)
    with pytest.raises(LexiconError, match="cannot be read"):
        read_lexicon(tmp_path / "none.txt")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LexiconError, match="cannot be read"):
        read_lexicon(path)


def test_interjections_are_sounds_and_no_letters() -> None:
    """Letter-to-sound rules spell what has no vowel: 'hmm' would be 'aitch em em'."""
    lexicon = read_lexicon(BUNDLE_LEXICON)
    assert len(SOUNDS) > 20
    for sound in SOUNDS:
        said = lexicon[sound]
        letters = sum(phone.rstrip("1") in ("ey", "eh", "iy") for phone in said)
        assert letters <= 1 and len(said) <= len(sound) + 1, (sound, said)
    assert lexicon["fi"] == ("f", "ay1") and lexicon["sci"] == ("s", "ay1")


BUNDLE = Path(__file__).resolve().parents[2] / "checkpoints" / "mini-en"


@pytest.fixture(scope="module")
def tokenizer() -> PhonemeTokenizer:
    return PhonemeTokenizer.from_folder(BUNDLE / "text_tokenizer")


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("isn't", "ih z ax n t"),
        ("hasn't", "hh ae z ax n t"),
        ("doesn't", "d ah z ax n t"),
        ("wasn't", "w aa z ax n t"),
        ("didn't", "d ih d ax n t"),
        ("haven't", "hh ae v ax n t"),
        ("wouldn't", "w uh d ax n t"),
        ("mustn't", "m ah s ax n t"),
        ("weren't", "w er n t"),
        ("can't", "k ae n t"),
        ("won't", "w ow n t"),
        ("don't", "d ow n t"),
        ("it'd", "ih t ax d"),
        ("he'd", "hh iy d"),
        ("there'd", "dh eh r d"),
        ("it'll", "ih t ax l"),
        ("they'll", "dh ey l"),
        ("should've", "sh uh d ax v"),
        ("we've", "w iy v"),
        ("shouldn't've", "sh uh d ax n t ax v"),
        ("they're", "dh eh r"),
        ("who're", "hh uw er"),
        ("i'm", "ay m"),
        ("dog's", "d ao g z"),
        ("cat's", "k ae t s"),
        ("boss's", "b aa s ax z"),
        ("cats'", "k ae t s"),
        ("judges'", "jh ah jh ih z"),
        ("james'", "jh ey m z"),
        ("house's", "hh aw s ax z"),
        ("houses", "hh aw z ax z"),
        ("warehouses", "w eh r hh aw z ax z"),
        ("baths", "b ae dh z"),
        ("mouths", "m aw dh z"),
        ("months", "m ah n th s"),
        ("pagodas", "p ax g ow d ax z"),
        ("seethes", "s iy dh z"),
    ],
)
def test_voiced_endings_of_the_bundle(tokenizer: PhonemeTokenizer, word: str, phones: str) -> None:
    assert " ".join(tokenizer.pronounce(word)) == phones


def test_words_that_nobody_listed_have_their_endings(tokenizer: PhonemeTokenizer) -> None:
    for word, ending in (("zorgub", ["z"]), ("blarfit", ["s"]), ("quibbix", ["ax", "z"])):
        assert tokenizer.pronounce(f"{word}'s") == tokenizer.pronounce(word) + ending


def test_parts_of_a_word() -> None:
    assert split_ending("isn't") == ("is", "n't")
    assert split_ending("dogs'") == ("dogs", "'")
    assert split_ending("i'd've") == ("i'd", "'ve")
    for word in ("dogs", "can't", "they're", "o'clock", "'em", "'s", "'"):
        assert split_ending(word) is None


def test_the_sound_of_an_ending_follows_the_last_phone() -> None:
    assert add_ending(["aa1"], "s") == ("aa1", "z")
    assert add_ending(["f"], "'s") == ("f", "s")
    assert add_ending(["jh"], "s") == ("jh", "ax", "z")
    assert add_ending(["n"], "'d") == ("n", "d")
    assert add_ending(["k"], "'d") == ("k", "ax", "d")
    assert ends_in_voiceless_z(["th", "z"]) and not ends_in_voiceless_z(["dh", "z"])
