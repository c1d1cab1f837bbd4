from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path
from random import Random

import pytest

from tokenlm.text.normalize import normalize
from training.rl.texts.hard_texts import KINDS, LONGEST_JOINED, harden, words_of

TEXT = "The old captain waited by the window, didn't he?"
OTHER = "My sister bought a car."


def test_each_kind_is_what_it_says() -> None:
    own, both = words_of(TEXT), words_of(TEXT) + words_of(OTHER)
    for seed in range(50):
        made = {name: kind(TEXT, OTHER, Random(seed)) for name, kind in KINDS.items()}
        assert made["bare"] == "the old captain waited by the window didn't he"
        assert [word for word in words_of(made["joined"]) if word != "and"] == both
        repeated = words_of(made["repeated"])
        assert 2 <= len(repeated) <= 12 and len(set(repeated)) <= 2
        said = [word for word in words_of(made["dwelling"]) if word != "and"]
        assert [word for word, _ in groupby(said)] == own and len(said) > len(own)
        assert 1 <= len(words_of(made["short"])) <= 3
        assert set(words_of(made["listed"])) <= {*own, "and"}
        assert re.search(", | and ", made["listed"])
        assert words_of(made["marked"]) == own


def test_all_kinds_come_and_the_same_state_gives_the_same_text() -> None:
    made = {harden(TEXT, OTHER, Random(seed)) for seed in range(200)}
    assert len(made) > 60
    assert harden(TEXT, OTHER, Random(7)) == harden(TEXT, OTHER, Random(7))
    assert all(words_of(normalize(text)) for text in made)


def test_ways_are_taken_as_often_as_they_weigh() -> None:
    weights = {name: 0.0 for name in KINDS} | {"short": 3.0, "bare": 1.0}
    made = [harden(TEXT, OTHER, Random(seed), weights) for seed in range(400)]
    num_bare = sum(text == KINDS["bare"](TEXT, OTHER, Random(0)) for text in made)
    assert 60 < num_bare < 140
    assert all(len(words_of(text)) <= 3 or text == text.lower() for text in made)


def test_what_cannot_be_made_harder_stays() -> None:
    assert harden("...", OTHER, Random(0)) == "..."
    long = "word " * LONGEST_JOINED
    assert KINDS["joined"](long, OTHER, Random(0)) == long
    for kind in KINDS.values():
        assert words_of(kind("Yes.", "No.", Random(0)))


@pytest.mark.parametrize("name", ["hard", "plain"])
def test_no_text_of_a_test_set_is_used(name: str) -> None:
    """The module makes its texts of what it is given: it holds none of the test sets' lines."""
    source = Path("training/rl/texts/hard_texts.py").read_text(encoding="utf-8").lower()
    lines = Path(f"configs/eval/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"].lower() for line in lines]
    assert len(texts) > 100
    assert not [text for text in texts if len(text.split()) > 2 and text in source]
