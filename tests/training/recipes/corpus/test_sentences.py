from __future__ import annotations

import random
from pathlib import Path

import pytest

from training.recipes.corpus.plan import text_source
from training.recipes.corpus.sentences import (
    chosen_from,
    clean,
    documentation,
    fortunes,
    wordnet_examples,
)
from training.rl.texts.grammar import TextGrammar


@pytest.mark.parametrize(
    ("written", "cleaned"),
    [
        ("she  was able to swim", "She was able to swim."),
        ("is it true?", "Is it true?"),
        ("\"Now?\" he said -- and left", "\"Now?\" he said, and left."),
        ("...startled him awake", "Startled him awake."),
        ("it costs 5 dollars", ""),
        ("see http://example.org", ""),
        ("the FBI knew", ""),
        ("ask Dr. Smith", ""),
        ("an \"open quote", ""),
        ("the letter b", ""),
        ("I am what I am", "I am what I am."),
        (" ".join(["word"] * 41), ""),
    ],
)  # fmt: skip
def test_sentences_are_made_of_words_alone(written: str, cleaned: str) -> None:
    assert clean(written) == cleaned


def test_examples_are_read_out_of_glosses(tmp_path: Path) -> None:
    line = '0001 00 a 01 able 0 000 | having the skill; "able to swim"; "she was able to walk"\n'
    (tmp_path / "data.adj").write_text(line)
    assert wordnet_examples(tmp_path) == ["Able to swim.", "She was able to walk."]
    assert wordnet_examples(tmp_path / "none") == []


def test_fortunes_lose_their_authors_and_keep_neighbours_together(tmp_path: Path) -> None:
    (tmp_path / "wisdom").write_text(
        "The sky knows.  You will\nknow too.\n\t\t-- Anna Author\n%\nIt was 5 past 3.\n%\n"
    )
    (tmp_path / "wisdom.dat").write_bytes(b"\0\1")
    assert fortunes(tmp_path) == [
        "The sky knows.", "The sky knows. You will know too.", "You will know too.",
    ]  # fmt: skip


def test_documentation_takes_prose_alone(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "README").write_text(
        "This is the text that you should read before the program is used.\n\n"
        "usage: program option option option option file file file file\n"
    )
    assert documentation(tmp_path) == [
        "This is the text that you should read before the program is used."
    ]


def test_questions_are_drawn_more_often_than_they_are_there() -> None:
    draw = chosen_from([f"This is sentence {word}." for word in "abcdefghi"] + ["Is it?"])
    rng = random.Random(0)
    share = sum(draw(rng) == "Is it?" for _ in range(2000)) / 2000
    assert 0.25 < share < 0.45
    with pytest.raises(ValueError, match="wordnet-base"):
        chosen_from([])


def test_kinds_of_texts_are_drawn_by_weight_and_checked() -> None:
    grammar = TextGrammar({"utterance": ["hello."]}, {}, ["rare"])
    assert text_source({"grammar": 1.0}, grammar)(random.Random(0)) == "Hello."
    with pytest.raises(ValueError, match="there is no kind poems"):
        text_source({"poems": 1.0}, grammar)
    with pytest.raises(ValueError, match="above 0"):
        text_source({"grammar": 0.0}, grammar)
