"""Texts that no model may learn from."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tokenlm.checkpoint import packaged_configs
from tokenlm.text.normalize import normalize
from training.data.exclusion import (
    Exclusion,
    evaluation_exclusion,
    evaluation_files,
    read_texts,
    spoken_key,
)
from training.rl.texts.grammar import load_grammar
from training.rl.texts.hard_texts import harden


def test_the_same_words_are_the_same_text() -> None:
    same = ("1, 2, 3!", "one two three", "One. Two; THREE?", "“one-two” – three", "öne two thrée")
    assert {spoken_key(text) for text in same} == {"one two three"}
    assert spoken_key("It's O’Brien's.") == "its obriens"
    assert spoken_key("Dr. Smith paid $3.50.") == spoken_key(
        "doctor smith paid three dollars and fifty cents"
    )
    assert spoken_key("417") == spoken_key("four hundred and seventeen")
    assert spoken_key("...") == ""


@pytest.mark.parametrize(
    "text",
    [
        "Yes",
        "yes!!!",
        "I live at 10 Main Street.",
        "i live at ten main st.",
        "He was born in nineteen eighty-four, they say.",
        "As she said, he was born in 1984, they say.",
        "Mr Brown has 4 children.",
        "mister brown has four children",
        "He paid $3.50 for the coffee",
        "And then he paid three dollars and fifty cents for the coffee and left.",
        "1 2 3 4 5 6 7 8",
    ],
)
def test_a_text_is_excluded_however_it_is_written(text: str) -> None:
    exclusion = Exclusion(
        [
            "Yes.",
            "I live at 10 Main St.",
            "He was born in 1984, they say.",
            "Mr. Brown has four children.",
            "He paid $3.50 for the coffee.",
            "One, two, three, four, five, six, seven, eight.",
        ]
    )
    assert exclusion.excludes(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "Yes, of course.",  # the word is not excluded, the text is
        "one, two, three, four, five, six, seven, eight, nine, ten",  # holds a series
        "march april may june july august september october",
        "a b c d e f g h",
        "Thank you, Mary, and good night.",  # five words are too few to be looked for
        "He never has 4 children at the table.",
        "It was he who paid for the coffee.",
        "我有四个孩子",
        "“Yes” 吗？",  # its words in Latin script are not the text
    ],
)
def test_other_texts_are_not(text: str) -> None:
    exclusion = Exclusion(
        [
            "Yes.",
            "He has 4 children.",
            "One, two, three, four, five, six, seven, eight.",
            "April, May, June, July, August, September, October.",
            "A, B, C, D, E, F, G.",
            "Mary, and good night.",
            "He paid $3.50 for the coffee.",
            "...",
        ]
    )
    assert exclusion.match(text) is None


def test_what_is_read_out_only_where_it_may_match_is_found_as_if_all_were() -> None:
    grammar, rng = load_grammar(), random.Random(5)
    exclusion = evaluation_exclusion()
    lines = [text for path in evaluation_files() for text in read_texts(path)]
    for number in range(200):
        text = rng.choice(lines)
        if number % 2:
            text = harden(text, grammar.draw(rng), rng)
        if number % 4 > 1:
            text = f"{grammar.draw(rng)} {text} In 1999, {grammar.draw(rng)}"
        read = normalize(text)
        assert (exclusion.match(text) is None) == (exclusion.match(read) is None), text


def test_every_file_of_evaluation_texts_is_known(tmp_path: Path) -> None:
    names = {path.stem for path in evaluation_files()}
    known = {"hard", "plain", "development", "regression", "sealed", "heldout_sentences"}
    assert known <= names
    exclusion = evaluation_exclusion()
    for path in evaluation_files():
        assert all(exclusion.excludes(text) for text in read_texts(path)[::5]), path
    (tmp_path / "new.jsonl").write_text('{"text": "It is 5.", "spoken": "it is five"}\n\n')
    (tmp_path / "more.txt").write_text("# ours\nA quiet afternoon.\n")
    (tmp_path / "sealed.log.jsonl").write_text('{"date": "today"}\n')
    (tmp_path / "other.frozen.json").write_text("{}")
    found = evaluation_files(tmp_path)
    assert [path.name for path in found] == ["more.txt", "new.jsonl"]
    own = Exclusion(text for path in found for text in read_texts(path))
    assert own.excludes("It is five.") and own.excludes("a quiet afternoon")
    further = evaluation_exclusion((tmp_path / "more.txt",))
    assert further.excludes("a quiet afternoon") and further.excludes("yes")


def test_further_files_are_read_or_refused(tmp_path: Path) -> None:
    listed = tmp_path / "meta.lst"
    listed.write_text("a|what the prompt says|a.wav|The pears are ripe.\n")
    assert read_texts(listed) == ["The pears are ripe."]
    bad = tmp_path / "bad.jsonl"
    for row in ("[]", "{", '{"id": "a"}', '"text"'):
        bad.write_text(f"{json.dumps({'text': 'x'})}\n{row}\n")
        with pytest.raises(ValueError, match="row 2 is no JSON object with a text"):
            read_texts(bad)
    with pytest.raises(ValueError, match="no test set at"):
        read_texts(tmp_path / "absent.txt")
    assert read_texts(Path("configs/eval/plain.jsonl")) == read_texts(
        packaged_configs() / "eval/plain.jsonl"
    )


def test_plain_rows_are_not_read_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a text out takes a hundred times as long as all the rest: few rows may need it."""
    exclusion = evaluation_exclusion()
    grammar, rng = load_grammar(), random.Random(3)
    calls: list[str] = []

    def counted(text: str) -> str:
        calls.append(text)
        return normalize(text)

    monkeypatch.setattr("training.data.exclusion.normalize", counted)
    for _ in range(2000):
        exclusion.match(grammar.draw(rng))
    assert len(calls) < 60
