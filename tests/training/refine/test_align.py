"""A transcript parted among clips."""

from __future__ import annotations

import random

import pytest

from training.refine.align import part_transcript


def test_parts_by_hand() -> None:
    words = "old eat away she placed it".split()
    assert part_transcript(words, ["oldetaway", "she plasd it"]) == [(0, 3), (3, 6)]
    assert part_transcript(words, ["olde", "", "eatwayshe", "placit"]) == [
        (0, 1), (1, 1), (1, 4), (4, 6),
    ]  # fmt: skip
    assert part_transcript(words, ["anything"]) == [(0, 6)]
    assert part_transcript([], ["a", "b"]) == [(0, 0), (0, 0)]
    with pytest.raises(ValueError, match="no clips"):
        part_transcript(words, [])


def test_a_word_without_letters_goes_with_the_one_before() -> None:
    assert part_transcript(["yes", "", "no"], ["yes", "no"]) == [(0, 2), (2, 3)]


def test_spelling_errors_do_not_move_the_cuts() -> None:
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    right = total = 0
    for _ in range(20):
        words = ["".join(draw.choices(letters, k=draw.randint(2, 8))) for _ in range(60)]
        cuts = [0, *sorted(draw.sample(range(1, 60), 7)), 60]
        truth = list(zip(cuts, cuts[1:], strict=False))
        heard = []
        for start, stop in truth:
            spelled = (
                draw.choice(letters) if draw.random() < 0.15 else letter
                for letter in "".join(words[start:stop])
                if draw.random() > 0.05
            )
            heard.append("".join(spelled))
        found = part_transcript(words, heard)
        assert found[0][0] == 0 and found[-1][1] == 60
        assert all(one[1] == two[0] for one, two in zip(found, found[1:], strict=False))
        right += sum(one == two for one, two in zip(found, truth, strict=True))
        total += len(truth)
    assert right / total > 0.9
