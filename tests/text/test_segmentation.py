"""Segments of text that is still coming in."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tokenlm.text.incremental import PARAGRAPH
from tokenlm.text.segment import segment
from tokenlm.text.segmenter import ClosedSegmenter, OpenSegmenter
from tokenlm.text.writing import SPOKEN

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
        segmenter = ClosedSegmenter(max_length=size)
        for word in words:
            segmenter.add(word)
        segmenter.finish()
        text = "\n".join(part.strip() for part in " ".join(words).split(PARAGRAPH))
        expected = [(part.text, part.pause_seconds) for part in segment(text, max_length=size)]
        assert [(part.text, part.pause_seconds) for part in segmenter.segments] == expected


def test_closed_segments_come_when_the_next_one_is_no_fragment() -> None:
    segmenter = ClosedSegmenter(max_length=160)
    for word in "this is the first sentence. then there comes".split():
        segmenter.add(word)
    assert segmenter.segments == []
    segmenter.add("another")  # "then there comes another": longer than 20
    assert [part.text for part in segmenter.segments] == ["this is the first sentence."]


def test_open_segments_lose_nothing_and_fit() -> None:
    draw = random.Random(2)
    for _ in range(300):
        words, size = random_words(draw), draw.choice([60, 160])
        segmenter = OpenSegmenter(max_length=size)
        for word in words:
            segmenter.add(word)
        segmenter.finish()
        joined = " ".join(part.text for part in segmenter.segments)
        assert joined == " ".join(word for word in words if word != PARAGRAPH)
        assert all(len(part.text) <= size and part.is_complete for part in segmenter.segments)
        assert segmenter.segments[-1].pause_seconds == 0.0


def test_open_segments_grow_word_by_word() -> None:
    segmenter = OpenSegmenter(max_length=160)
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
    segmenter = OpenSegmenter(max_length=40, min_length=5)
    text = "one two three four five six, seven eight nine ten eleven twelve ab and so it goes"
    for word in text.split():
        segmenter.add(word)
    segmenter.finish()
    assert [(part.text, part.pause_seconds) for part in segmenter.segments] == [
        ("one two three four five six,", 0.15),
        ("seven eight nine ten eleven twelve ab", 0.1),
        ("and so it goes", 0.0),
    ]


@pytest.mark.parametrize("kind", [ClosedSegmenter, OpenSegmenter])
@pytest.mark.parametrize("start", [[], ["no."]])
def test_work_is_linear(
    kind: type[ClosedSegmenter] | type[OpenSegmenter], start: list[str]
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
        segmenter = kind(max_length=100, writing=replace(SPOKEN, measure=measure))
        for word in [*start, *["word"] * count]:
            segmenter.add(word)
        segmenter.finish()
        assert sum(len(part.words) for part in segmenter.segments) == count + len(start)
        work.append(measured)
    assert work[1] < 6 * work[0]


def test_a_word_that_is_too_long_is_cut() -> None:
    segmenter = OpenSegmenter(max_length=100)
    for word in ["so", "x" * 1000, "it", "is."]:
        segmenter.add(word)
    segmenter.finish()
    assert all(len(part.text) <= 100 for part in segmenter.segments)
    assert "".join(part.text.replace(" ", "") for part in segmenter.segments) == (
        "so" + "x" * 1000 + "itis."
    )


def test_paragraphs() -> None:
    segmenter = OpenSegmenter(max_length=100)
    for word in ["one.", PARAGRAPH, "two", "three", PARAGRAPH]:
        segmenter.add(word)
    segmenter.finish()
    assert [(part.text, part.pause_seconds) for part in segmenter.segments] == [
        ("one.", 0.6),
        ("two three", 0.0),
    ]
