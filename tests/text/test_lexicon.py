from __future__ import annotations

from pathlib import Path

import pytest

from tokenlm.text.lexicon import read_lexicon, write_lexicon
from tokenlm.text.tokenizer_config import TokenizerError


def test_reads_the_format_of_the_cmu_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text(";;; a comment\n\nREAD  R EH1 D\nREAD(1)  R IY1 D\nit's  ih1 t s\n")
    assert read_lexicon(path) == {"read": ("r", "eh1", "d"), "it's": ("ih1", "t", "s")}


def test_writes_in_order_and_reads_back(tmp_path: Path) -> None:
    lexicon = {"b": ("b", "iy1"), "a": ("ax",)}
    write_lexicon(lexicon, tmp_path / "lexicon.txt")
    assert (tmp_path / "lexicon.txt").read_text() == "a  ax\nb  b iy1\n"
    assert read_lexicon(tmp_path / "lexicon.txt") == lexicon


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("a  ax\nword\n")
    with pytest.raises(TokenizerError, match="line 2: the word 'word' has no phones"):
        read_lexicon(path)
    with pytest.raises(TokenizerError, match="cannot be read"):
        read_lexicon(tmp_path / "none.txt")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TokenizerError, match="cannot be read"):
        read_lexicon(path)
