from __future__ import annotations

from pathlib import Path

import pytest

from tokenlm.text.acronyms import SOUNDS
from tokenlm.text.lexicon import read_lexicon, write_lexicon
from tokenlm.text.tokenizer_config import TokenizerError

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


def test_interjections_are_sounds_and_no_letters() -> None:
    """Letter-to-sound rules spell what has no vowel: 'hmm' would be 'aitch em em'."""
    lexicon = read_lexicon(BUNDLE_LEXICON)
    assert len(SOUNDS) > 20
    for sound in SOUNDS:
        said = lexicon[sound]
        letters = sum(phone.rstrip("1") in ("ey", "eh", "iy") for phone in said)
        assert letters <= 1 and len(said) <= len(sound) + 1, (sound, said)
    assert lexicon["fi"] == ("f", "ay1") and lexicon["sci"] == ("s", "ay1")
