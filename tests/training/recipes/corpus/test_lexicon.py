from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokenlm.text.pronunciation import TABLE_FILE, Homographs, parse_homographs, read_lexicon
from training.recipes.corpus import lexicon
from training.recipes.corpus.engines import EngineError

ROOT = Path(__file__).resolve().parents[4]
T2P = """#!/usr/bin/env python3
import sys
words = sys.argv[1].split()
said = []
for word in words:
    word = word.rstrip("?")
    if word == "mute":
        continue
    said += ["pau", *word, *(["pau", *word] if word == "twice" else [])]
print(*said, "pau")
"""


@pytest.fixture
def fake_t2p(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "t2p"
    program.parent.mkdir()
    program.write_text(T2P)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.slow
@pytest.mark.usefixtures("fake_t2p")
def test_words_keep_their_own_phones() -> None:
    """A word that is skipped, or said in two parts, moves the phones of no other word."""
    words = ["ab", "mute", "cd", "twice", "ef", "gh"]
    expected = {word: tuple(word) for word in ("ab", "cd", "ef", "gh")}
    assert lexicon.pronounce(words) == expected


def test_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match="apt-get install flite"):
        lexicon.pronounce(["a"])


def test_words_of_texts_and_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("Zebra\nzebra's\nBogotá\nA4\n")
    words = lexicon.corpus_words(["It's twenty-one.", "21 cats, o'clock"], tmp_path / "words")
    # The tokenizer says "it's" and "zebra's" by rule.
    assert words == ["cats", "o'clock", "one", "twenty", "zebra"]
    assert lexicon.corpus_words(["b a"], tmp_path / "none") == ["a", "b"]


def test_plurals_end_in_the_sound_that_their_word_asks_for() -> None:
    said = {
        "pagoda": "p ax g ow1 d ax", "pagodas": "p ax g ow d ax s",
        "seethe": "s iy1 dh", "seethes": "s iy1 th z",
        "intro": "ih1 n t r ow", "intros": "ih1 n t r ow z",
        "path": "p ae1 th", "paths": "p ae1 dh z",
        "prince": "p r ih1 n s", "princes": "p r ih1 n s ih z", "princess": "p r ih1 n s eh s",
        "marco": "m aa1 r k ow", "marcos": "m aa1 r k ow s",
        "ala": "ey1 l ax", "alas": "ax l ae1 s",
    }  # fmt: skip
    mended = lexicon.mended_plurals(
        {word: tuple(phones.split()) for word, phones in said.items()}, names={"marcos"}
    )
    assert mended == {
        "pagodas": ("p", "ax", "g", "ow1", "d", "ax", "z"),
        "seethes": ("s", "iy1", "dh", "z"),
    }


def test_what_is_written_by_hand_has_the_phones_of_the_bundle(mini_en: Path) -> None:
    by_hand = read_lexicon(lexicon.BY_HAND)
    phones = set((mini_en / "text_tokenizer" / "phones.txt").read_text().split())
    assert {phone for said in by_hand.values() for phone in said} <= phones
    bundled = read_lexicon(mini_en / "text_tokenizer" / "lexicon.txt")
    assert {word: bundled.get(word) for word in by_hand} == by_hand
    wanted = {
        f"{word}({meaning.variant})" for word, many in homographs().items() for meaning in many
    }
    assert wanted - by_hand.keys() == set()


def homographs() -> Homographs:
    return parse_homographs((ROOT / "tokenlm" / "text" / TABLE_FILE).read_text())


@pytest.fixture
def mini_en() -> Path:
    return ROOT / "checkpoints" / "mini-en"
