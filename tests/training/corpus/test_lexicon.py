from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.corpus import lexicon
from training.corpus.engines import EngineError

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
    assert words == ["cats", "it's", "o'clock", "one", "twenty", "zebra", "zebra's"]
    assert lexicon.corpus_words(["b a"], tmp_path / "none") == ["a", "b"]
