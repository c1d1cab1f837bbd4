"""Sequences that grow: the positions are those of the layouts that the model is trained on."""

from __future__ import annotations

import random

import pytest

from tokenlm.models.lm.layout import (
    SPECIAL,
    SPEECH,
    TEXT,
    InputSequence,
    LayoutName,
    interleaved,
    one_shot,
)


def build(layout: LayoutName, text: list[int], speech: list[int]) -> InputSequence:
    return InputSequence(
        layout, block_text=2, block_speech=3, prompt_text=text, prompt_tokens=speech
    )


def run(
    sequence: InputSequence, text: list[int], speech: list[int], sizes: list[int]
) -> list[tuple[int, int]]:
    """All positions, text given in pieces of `sizes`, speech whenever some is predicted."""
    read: list[tuple[int, int]] = []
    coming = list(speech)

    def write() -> None:
        while sequence.predicts and coming:
            read.extend(zip(*sequence.take(), strict=True))
            sequence.add_speech(coming.pop(0))

    position = 0
    for size in sizes:
        sequence.add_text(text[position : position + size])
        position += size
        write()
    sequence.add_text(text[position:])
    sequence.end_text()
    write()
    assert not coming
    read.extend(zip(*sequence.take(), strict=True))
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
        sequence = build(layout, text[:num_prompt], speech[:num_spoken])
        sizes = [draw.randint(0, 3) for _ in range(draw.randint(0, 4))]
        read = run(sequence, text[num_prompt:], speech[num_spoken:], sizes)
        assert read == list(zip(expected.kinds, expected.ids, strict=True))
        assert sequence.num_text == len(text) - num_prompt and sequence.is_past_tos


def test_interleaved_speech_comes_after_each_block() -> None:
    sequence = build("interleaved", [], [])
    assert sequence.take() == ([SPECIAL], [0])
    sequence.add_text([5])
    assert sequence.needs_text and len(sequence.pending) == 0
    sequence.add_text([6])
    assert sequence.predicts and sequence.take() == ([TEXT, TEXT], [5, 6])
    for token in (1, 2, 3):
        assert sequence.predicts and not sequence.is_past_tos
        sequence.add_speech(token)
    assert sequence.needs_text
    sequence.end_text()
    assert sequence.is_past_tos
    assert sequence.take() == ([SPEECH] * 3 + [SPECIAL], [1, 2, 3, 1])


def test_one_shot_speech_waits_for_the_end_of_the_text() -> None:
    sequence = build("one_shot", [7], [9])
    sequence.add_text([5])
    assert sequence.needs_text and sequence.take() == ([SPECIAL, TEXT, TEXT], [0, 7, 5])
    sequence.end_text()
    sequence.end_text()
    assert sequence.predicts and sequence.take() == ([SPECIAL, SPEECH], [1, 9])


def test_copies_go_their_own_ways() -> None:
    sequence = build("interleaved", [5], [])
    other = sequence.copy()
    sequence.add_text([6])
    assert other.needs_text and sequence.predicts and sequence.num_text == 1 and other.num_text == 0


LENGTHS = [(7, 12, 20), (7, 12, 15), (7, 13, 30), (6, 14, 17), (0, 10, 0), (0, 9, 0), (0, 3, 0),
           (12, 1, 2), (30, 3, 17), (3, 4, 20), (5, 0, 15), (10, 5, 29), (10, 5, 31)]  # fmt: skip
"""Of the prompt's text, the text and the prompt's speech."""


def reference_inference(
    prompt_text: list[int], text: list[int], prompt: list[int], speech: list[int], m: int, n: int
) -> list[tuple[int, int]]:
    """Positions that the reference feeds while its text comes id by id, as its notes describe it.

    A fill that is forced is asked for, but never fed.
    """
    known, waiting, written = list(prompt), list(prompt_text), list(speech)
    fed: list[tuple[int, int]] = [(SPECIAL, 0)]
    last: int | None = None
    # Ids that are written until the next fill is forced.
    until_fill = n - len(prompt) % n
    behind_fill = not prompt
    for word in text:
        waiting.append(word)
        while known and len(waiting) >= m:
            fed += [(TEXT, item) for item in waiting[:m]] + [(SPEECH, item) for item in known[:n]]
            waiting, known = waiting[m:], known[n:]
        if known:
            continue
        if behind_fill:
            if len(waiting) < m:
                continue
            fed += [(TEXT, item) for item in waiting[:m]]
            waiting = waiting[m:]
        for _ in range(until_fill):
            last = written.pop(0)
            fed.append((SPEECH, last))
        until_fill, behind_fill = n, True
    if last is not None:
        fed.append((SPEECH, last))
    fed += [(TEXT, item) for item in waiting] + [(SPECIAL, 1)]
    return fed + [(SPEECH, item) for item in written]


def reads(sizes: tuple[int, int, int], *, as_reference: bool, num_speech: int = 200) -> list:
    prompt_text, text = list(range(100, 100 + sizes[0])), list(range(200, 200 + sizes[1]))
    prompt, speech = list(range(300, 300 + sizes[2])), list(range(1000, 1000 + num_speech))
    sequence = InputSequence("interleaved", block_text=5, block_speech=15, prompt_text=prompt_text,
                prompt_tokens=prompt, as_reference=as_reference)  # fmt: skip
    expected = reference_inference(prompt_text, text, prompt, speech, 5, 15)
    if not as_reference:
        layout = interleaved([*prompt_text, *text], [*prompt, *speech], 5000, block_text=5,
                             block_speech=15)  # fmt: skip
        expected = list(zip(layout.kinds, layout.ids, strict=True))
    assert run(sequence, text, speech, [1] * len(text)) == expected
    return expected


@pytest.mark.parametrize("sizes", LENGTHS)
def test_positions_at_many_lengths(sizes: tuple[int, int, int]) -> None:
    """As in training; with the switch, as the reference's own inference."""
    ours = reads(sizes, as_reference=False)
    theirs = reads(sizes, as_reference=True)
    total = sizes[0] + sizes[1]
    ends_behind_a_block = total >= 5
    if sizes == (7, 12, 20):
        # Two blocks of 15 less 20 of the prompt, one more block, then the end of the text.
        place = 1 + 3 * 5 + 20 + 10 + 15
        assert ours[:place] == theirs[:place] and ours[place][0] == TEXT
        assert theirs[place] == theirs[place - 1] == ours[place - 1]
        assert theirs[place + 1 :] == ours[place:]
    elif not ends_behind_a_block:
        assert ours == theirs


@pytest.mark.parametrize("as_reference", [False, True])
def test_positions_do_not_depend_on_when_text_comes(as_reference: bool) -> None:
    draw = random.Random(0)
    for num_prompt_text, num_text, num_prompt in LENGTHS:
        seen = set()
        for _ in range(10):
            text = list(range(num_text))
            sequence = InputSequence(
                "interleaved",
                block_text=5,
                block_speech=15,
                prompt_text=[7] * num_prompt_text,
                prompt_tokens=[8] * num_prompt,
                as_reference=as_reference,
            )
            sizes = [draw.randint(0, 6) for _ in range(draw.randint(0, 5))]
            seen.add(tuple(run(sequence, text, list(range(200)), sizes)))
        assert len(seen) == 1
