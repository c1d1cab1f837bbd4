from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from verb_runner import run_verb

from tokenlm.text.pronunciation import write_lexicon
from tokenlm.text.tokenizers import load_text_tokenizer
from training.commands import text_tokenizer
from training.data.manifest import Utterance, write_manifest
from training.data.text_tokenizer import train_phoneme_tokenizer

SOUNDS = {"b": "b", "d": "d", "a": "ae1", "o": "ao1", "x": "k s"}
WORDS = ["".join(letters) for letters in itertools.product("bdx", "ao", "bdx", "ao")]
REGULAR = {word: tuple(" ".join(SOUNDS[c] for c in word).split()) for word in WORDS}


def test_rules_are_learned_and_exceptions_kept() -> None:
    heard = {word: said for word, said in REGULAR.items() if word != "doba"}
    odd = {"bob": ("b", "iy1")}
    tokenizer = train_phoneme_tokenizer(heard | odd, num_epochs=70, dim=16, lr=3e-2)
    assert len(tokenizer.lexicon) < 9, "the rules of 35 regular words were not learned"
    # A word that was never seen follows the rules, the exception does not.
    assert tokenizer.decode(tokenizer.encode("bob doba")) == "b iy1 | d ao1 b ae1"


def test_every_listed_word_is_said_as_listed_whatever_was_learned() -> None:
    tokenizer = train_phoneme_tokenizer(REGULAR, num_epochs=1, dim=4)
    for word, phones in REGULAR.items():
        assert tokenizer.decode(tokenizer.encode(word)).split() == list(phones)


def test_endings_and_variants_are_said_as_listed() -> None:
    endings = {phone: (phone,) for phone in "ax d er l m n s t v z".split()}
    listed = REGULAR | endings | {"bob's": ("b", "iy1"), "bob'll": ("b", "ao1", "b", "ax", "l")}
    listed |= {"live(verb)": ("l", "iy1", "v"), "live(adj)": ("l", "ae1", "v")}
    tokenizer = train_phoneme_tokenizer(listed, num_epochs=1, dim=4)
    assert tokenizer.decode(tokenizer.encode("bob's")) == "b iy1"
    assert tokenizer.decode(tokenizer.encode("bob'll")) == "b ao1 b ax l"
    assert tokenizer.decode(tokenizer.encode("they live")).split()[-3:] == ["l", "iy1", "v"]
    assert tokenizer.decode(tokenizer.encode("a live band")).split().count("ae1") >= 1
    with pytest.raises(ValueError, match="no word"):
        train_phoneme_tokenizer({"live(verb)": ("l", "iy1", "v")})


def test_the_same_lexicon_and_seed_give_the_same_tokenizer() -> None:
    first, second = (train_phoneme_tokenizer(REGULAR, num_epochs=2, dim=4) for _ in range(2))
    assert first.lexicon == second.lexicon
    assert first.encode("abba") == second.encode("abba")


def test_an_empty_lexicon_is_an_error() -> None:
    with pytest.raises(ValueError, match="no word"):
        train_phoneme_tokenizer({})


def test_command(tmp_path: Path) -> None:
    write_lexicon(REGULAR, tmp_path / "lexicon.txt")
    arguments = ["phonemes", "--epochs", "1", tmp_path / "lexicon.txt", tmp_path / "out"]
    result = run_verb(text_tokenizer, *arguments)
    assert result.exit_code == 0 and "15 ids" in result.stdout
    assert load_text_tokenizer(tmp_path / "out").vocab_size == 15
    (tmp_path / "lexicon.txt").write_text("word\n")
    result = run_verb(text_tokenizer, *arguments)
    assert result.exit_code == 2 and "has no phones" in result.stderr
    result = run_verb(text_tokenizer, "pieces", tmp_path / "m.jsonl", tmp_path / "out")
    assert result.exit_code == 2 and "need --vocab-size" in result.stderr


def test_pieces_of_a_manifest(tmp_path: Path) -> None:
    rows = [
        Utterance(id=str(n), audio=tmp_path / "a.wav", text=text, speaker="s", duration=1.0)
        for n, text in enumerate(f"{word} is one of the words." for word in WORDS)
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    arguments = ["pieces", tmp_path / "m.jsonl", tmp_path / "out", "--vocab-size", 64]
    result = run_verb(text_tokenizer, *arguments)
    assert result.exit_code == 0 and "64 pieces" in result.stdout, result.output
    assert load_text_tokenizer(tmp_path / "out").vocab_size == 64
