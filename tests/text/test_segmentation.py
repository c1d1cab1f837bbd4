"""Segments of whole texts, and of text that is still arriving."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from tokenlm.text.segmentation import (
    NORMALIZED,
    PARAGRAPH,
    GreedySegmenter,
    IncrementalSegmenter,
    Segment,
    segment,
)


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


VOCABULARY = (
    "a the fox jumps over lazy and but when quick yes no it is incomprehensible dog".split()
)


def random_words(draw: random.Random) -> list[str]:
    words: list[str] = []
    for _ in range(draw.randint(1, 70)):
        words.append(draw.choice(VOCABULARY) + draw.choice([""] * 8 + [",", ".", "?", ";"]))
        if draw.random() < 0.04:
            words.append(PARAGRAPH)
    return words


def test_closed_segments_are_those_of_the_whole_text() -> None:
    draw = random.Random(1)
    for _ in range(300):
        words, size = random_words(draw), draw.choice([100, 160])
        segmenter = IncrementalSegmenter(max_length=size)
        for word in words:
            segmenter.add(word)
        segmenter.finish()
        text = "\n".join(part.strip() for part in " ".join(words).split(PARAGRAPH))
        expected = [(part.text, part.pause_seconds) for part in segment(text, max_length=size)]
        assert [(part.text, part.pause_seconds) for part in segmenter.segments] == expected


def test_closed_segments_come_when_the_next_one_is_no_fragment() -> None:
    segmenter = IncrementalSegmenter(max_length=160)
    for word in "this is the first sentence. then there comes".split():
        segmenter.add(word)
    assert segmenter.segments == []
    segmenter.add("another")  # "then there comes another": longer than 20
    assert [part.text for part in segmenter.segments] == ["this is the first sentence."]


def test_open_segments_lose_nothing_and_fit() -> None:
    draw = random.Random(2)
    for _ in range(300):
        words, size = random_words(draw), draw.choice([60, 160])
        segmenter = GreedySegmenter(max_length=size)
        for word in words:
            segmenter.add(word)
        segmenter.finish()
        joined = " ".join(part.text for part in segmenter.segments)
        assert joined == " ".join(word for word in words if word != PARAGRAPH)
        assert all(len(part.text) <= size and part.is_complete for part in segmenter.segments)
        assert segmenter.segments[-1].pause_seconds == 0.0


def test_open_segments_grow_word_by_word() -> None:
    segmenter = GreedySegmenter(max_length=160)
    segmenter.add("hello")
    assert segmenter.segments[0].words == ["hello"] and not segmenter.segments[0].is_complete
    for word in "there, this is a sentence. yes.".split():
        segmenter.add(word)
    # "yes." is too short to stand alone.
    assert len(segmenter.segments) == 1 and segmenter.segments[0].text.endswith("sentence. yes.")
    for word in "and here is one of its own.".split():
        segmenter.add(word)
    assert [part.is_complete for part in segmenter.segments] == [True, False]
    assert segmenter.segments[0].pause_seconds == 0.35


def test_overlong_sentences_are_cut_at_commas_and_conjunctions() -> None:
    segmenter = GreedySegmenter(max_length=40, min_length=5)
    text = "one two three four five six, seven eight nine ten eleven twelve ab and so it goes"
    for word in text.split():
        segmenter.add(word)
    segmenter.finish()
    assert [(part.text, part.pause_seconds) for part in segmenter.segments] == [
        ("one two three four five six,", 0.15),
        ("seven eight nine ten eleven twelve ab", 0.1),
        ("and so it goes", 0.0),
    ]


@pytest.mark.parametrize("kind", [IncrementalSegmenter, GreedySegmenter])
@pytest.mark.parametrize("start", [[], ["no."]])
def test_work_is_linear(
    kind: type[IncrementalSegmenter] | type[GreedySegmenter], start: list[str]
) -> None:
    """A sentence without end, alone and behind a short one: characters that are measured."""
    measured = 0

    def measure(text: str) -> int:
        nonlocal measured
        measured += len(text)
        return len(text)

    work = []
    for count in (500, 2000):
        measured = 0
        segmenter = kind(max_length=100, rules=replace(NORMALIZED, measure=measure))
        for word in [*start, *["word"] * count]:
            segmenter.add(word)
        segmenter.finish()
        assert sum(len(part.words) for part in segmenter.segments) == count + len(start)
        work.append(measured)
    assert work[1] < 6 * work[0]


def test_a_word_that_is_too_long_is_cut() -> None:
    segmenter = GreedySegmenter(max_length=100)
    for word in ["so", "x" * 1000, "it", "is."]:
        segmenter.add(word)
    segmenter.finish()
    assert all(len(part.text) <= 100 for part in segmenter.segments)
    assert "".join(part.text.replace(" ", "") for part in segmenter.segments) == (
        "so" + "x" * 1000 + "itis."
    )


def test_paragraphs_of_words() -> None:
    segmenter = GreedySegmenter(max_length=100)
    for word in ["one.", PARAGRAPH, "two", "three", PARAGRAPH]:
        segmenter.add(word)
    segmenter.finish()
    assert [(part.text, part.pause_seconds) for part in segmenter.segments] == [
        ("one.", 0.6),
        ("two three", 0.0),
    ]
