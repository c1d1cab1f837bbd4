from __future__ import annotations

import random
import time

import pytest

from tokenlm.text.segment import Segment, segment


def texts(segments: list[Segment]) -> list[str]:
    return [piece.text for piece in segments]


def test_sentences_and_their_pauses() -> None:
    text = (
        "this is the first sentence. is this the second one? it certainly is that! "
        "the next one is cut; and so is this part: here everything ends."
    )
    assert segment(text) == [
        Segment("this is the first sentence.", 0.35),
        Segment("is this the second one?", 0.4),
        Segment("it certainly is that!", 0.4),
        Segment("the next one is cut;", 0.25),
        Segment("and so is this part:", 0.25),
        Segment("here everything ends.", 0.0),
    ]


def test_short_neighbours_are_joined() -> None:
    text = "oh. yes. i think that this is so. no. really."
    assert texts(segment(text)) == ["oh. yes. i think that this is so. no. really."]
    assert texts(segment(text, min_length=0)) == text.replace(". ", ".|").split("|")
    assert texts(segment("one. two. three. four.", max_length=12, min_length=6)) == [
        "one. two.",
        "three. four.",
    ]


def test_a_long_sentence_is_cut_at_commas_then_conjunctions_then_words() -> None:
    assert texts(segment("the sun is up, the sky is blue.", max_length=20, min_length=5)) == [
        "the sun is up,",
        "the sky is blue.",
    ]
    assert texts(segment("the sun is up and the sky is blue", max_length=20, min_length=5)) == [
        "the sun is up",
        "and the sky is blue",
    ]
    assert texts(segment("one two six ten one two six ten", max_length=16, min_length=0)) == [
        "one two six ten",
        "one two six ten",
    ]


def test_pauses_inside_a_sentence() -> None:
    pieces = segment("aaa bbb, ccc ddd eee fff", max_length=9, min_length=0)
    assert pieces == [
        Segment("aaa bbb,", 0.15),
        Segment("ccc ddd", 0.1),
        Segment("eee fff", 0.0),
    ]


def test_a_monstrous_word_is_cut() -> None:
    pieces = texts(segment("x" * 95, max_length=20, min_length=0))
    assert "".join(pieces) == "x" * 95
    assert max(map(len, pieces)) <= 20


def test_paragraphs_pause_longer_and_are_not_joined() -> None:
    text = "chapter one\nit was late, and it was dark.\n\nwe slept."
    assert segment(text) == [
        Segment("chapter one", 0.6),
        Segment("it was late, and it was dark.", 0.6),
        Segment("we slept.", 0.0),
    ]


def test_nothing() -> None:
    assert segment("") == []
    assert segment(" \n ") == []


@pytest.mark.parametrize("lengths", [(0, 0), (10, 11), (5, -1)])
def test_lengths_that_make_no_sense(lengths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="min_length"):
        segment("a.", max_length=lengths[0], min_length=lengths[1])


def test_another_measure() -> None:
    def num_words(text: str) -> int:
        return len(text.split())

    pieces = texts(segment("a b c d e f g. h i.", max_length=4, min_length=3, measure=num_words))
    assert all(num_words(piece) <= 4 for piece in pieces)
    assert " ".join(pieces) == "a b c d e f g. h i."
    # A measure that nothing satisfies still ends.
    assert texts(segment("ab c", max_length=1, min_length=0, measure=lambda text: 9)) == [
        "a",
        "b",
        "c",
    ]


def test_no_word_is_lost_or_doubled() -> None:
    choose = random.Random(0)
    vocabulary = (
        "a I'm the quick and fox which because over twenty-one incomprehensibilities".split()
    )
    for _ in range(200):
        words = [
            choose.choice(vocabulary) + choose.choice(["", "", "", ",", ".", "?", ";", ":", "!"])
            for _ in range(choose.randrange(60))
        ]
        text = " ".join(words)
        max_length = choose.choice([30, 60, 200])
        pieces = segment(text, max_length=max_length, min_length=choose.choice([0, 10, 30]))
        assert " ".join(texts(pieces)).split() == words
        assert all(len(piece.text) <= max_length for piece in pieces)
        assert all(0.1 <= piece.pause_seconds <= 0.6 for piece in pieces[:-1])
        assert not pieces or pieces[-1].pause_seconds == 0


def test_a_long_text_is_quick() -> None:
    for text in ("word " * 10_000, "a. " * 16_000, "x" * 50_000, "one, two " * 5_500):
        start = time.process_time()
        pieces = segment(text)
        assert time.process_time() - start < 1.0
        assert "".join(texts(pieces)).replace(" ", "") == text.replace(" ", "")
