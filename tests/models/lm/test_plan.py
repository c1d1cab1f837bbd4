"""Sequences that grow: the positions are those of the layouts that the model is trained on."""

from __future__ import annotations

import random

import pytest

from tokenlm.models.lm.layout import SPECIAL, SPEECH, TEXT, interleaved, one_shot
from tokenlm.models.lm.plan import LayoutName, Plan


def build(layout: LayoutName, text: list[int], speech: list[int]) -> Plan:
    return Plan(layout, block_text=2, block_speech=3, prompt_text=text, prompt_tokens=speech)


def run(plan: Plan, text: list[int], speech: list[int], sizes: list[int]) -> list[tuple[int, int]]:
    """All positions, text given in pieces of `sizes`, speech whenever some is predicted."""
    read: list[tuple[int, int]] = []
    coming = list(speech)

    def write() -> None:
        while plan.predicts and coming:
            read.extend(zip(*plan.take(), strict=True))
            plan.add_speech(coming.pop(0))

    position = 0
    for size in sizes:
        plan.add_text(text[position : position + size])
        position += size
        write()
    plan.add_text(text[position:])
    plan.end_text()
    write()
    assert not coming
    read.extend(zip(*plan.take(), strict=True))
    return read


@pytest.mark.parametrize("num_prompt", [0, 1, 2, 5])
@pytest.mark.parametrize("layout", ["one_shot", "interleaved"])
def test_positions_are_those_of_training(layout: LayoutName, num_prompt: int) -> None:
    text, speech = list(range(10, 17)), list(range(30, 44))
    draw = random.Random(num_prompt)
    if layout == "one_shot":
        expected = one_shot(text, speech, 50)
    else:
        expected = interleaved(text, speech, 50, block_text=2, block_speech=3)
    for _ in range(10):
        num_spoken = 2 * num_prompt
        plan = build(layout, text[:num_prompt], speech[:num_spoken])
        sizes = [draw.randint(0, 3) for _ in range(draw.randint(0, 4))]
        read = run(plan, text[num_prompt:], speech[num_spoken:], sizes)
        assert read == list(zip(expected.kinds, expected.ids, strict=True))
        assert plan.num_text == len(text) - num_prompt and plan.has_turned


def test_interleaved_speech_comes_after_each_block() -> None:
    plan = build("interleaved", [], [])
    assert plan.take() == ([SPECIAL], [0])
    plan.add_text([5])
    assert plan.needs_text and len(plan.pending) == 0
    plan.add_text([6])
    assert plan.predicts and plan.take() == ([TEXT, TEXT], [5, 6])
    for token in (1, 2, 3):
        assert plan.predicts and not plan.has_turned
        plan.add_speech(token)
    assert plan.needs_text
    plan.end_text()
    assert plan.has_turned
    assert plan.take() == ([SPEECH] * 3 + [SPECIAL], [1, 2, 3, 1])


def test_one_shot_speech_waits_for_the_end_of_the_text() -> None:
    plan = build("one_shot", [7], [9])
    plan.add_text([5])
    assert plan.needs_text and plan.take() == ([SPECIAL, TEXT, TEXT], [0, 7, 5])
    plan.end_text()
    plan.end_text()
    assert plan.predicts and plan.take() == ([SPECIAL, SPEECH], [1, 9])


def test_copies_go_their_own_ways() -> None:
    plan = build("interleaved", [5], [])
    other = plan.copy()
    plan.add_text([6])
    assert other.needs_text and plan.predicts and plan.num_text == 1 and other.num_text == 0
