"""Layouts, position by position; the codebook has 100 codes, so eos is 100 and fill 101."""

from __future__ import annotations

import pytest
import torch

from tokenlm.models.lm.layout import (
    IGNORE,
    SOS,
    SPECIAL,
    SPEECH,
    TEXT,
    TOS,
    Layout,
    eos_class,
    fill_class,
    fits_interleaved,
    interleaved,
    one_shot,
    one_shot_prefix,
)
from tokenlm.models.lm.model import LayoutBatch

EOS, FILL = 100, 101
KINDS = {"t": TEXT, "s": SPEECH, "*": SPECIAL}
NONE = IGNORE


def check(layout: Layout, kinds: str, ids: list[int], targets: list[int]) -> None:
    assert layout.kinds == [KINDS[kind] for kind in kinds]
    assert layout.ids == ids
    assert layout.targets == targets
    assert len(layout) == len(ids)
    assert layout.num_targets == sum(target != NONE for target in targets)


def test_classes() -> None:
    assert (eos_class(100), fill_class(100)) == (EOS, FILL)


def test_one_shot() -> None:
    check(
        one_shot([7, 8], [20, 21, 22], 100),
        "*tt*sss",
        [SOS, 7, 8, TOS, 20, 21, 22],
        [NONE, NONE, NONE, 20, 21, 22, EOS],
    )


def test_one_shot_without_text_or_speech() -> None:
    check(one_shot([], [20], 100), "**s", [SOS, TOS, 20], [NONE, 20, EOS])
    check(one_shot([7], [], 100), "*t*", [SOS, 7, TOS], [NONE, NONE, EOS])


def test_one_shot_prefix() -> None:
    layout = one_shot_prefix([7, 8, 9], [20, 21])
    check(layout, "*ttt*ss", [SOS, 7, 8, 9, TOS, 20, 21], [NONE] * 7)
    whole = one_shot([7, 8, 9], [20, 21, 22], 100)
    assert whole.ids[:7] == layout.ids and whole.kinds[:7] == layout.kinds


def test_interleaved_with_a_rest_of_text() -> None:
    """Two blocks of 2 : 3, one text token over."""
    check(
        interleaved([1, 2, 3, 4, 5], list(range(20, 29)), 100, block_text=2, block_speech=3),
        "*ttsssttssst*sss",
        [SOS, 1, 2, 20, 21, 22, 3, 4, 23, 24, 25, 5, TOS, 26, 27, 28],
        [NONE, NONE, 20, 21, 22, FILL, NONE, 23, 24, 25, FILL, NONE, 26, 27, 28, EOS],
    )


def test_interleaved_without_a_rest_of_text() -> None:
    """Text a multiple of the block: nothing stands between the last fill and <tos>."""
    check(
        interleaved([1, 2], [20, 21, 22, 23], 100, block_text=2, block_speech=3),
        "*ttsss*s",
        [SOS, 1, 2, 20, 21, 22, TOS, 23],
        [NONE, NONE, 20, 21, 22, FILL, 23, EOS],
    )


def test_interleaved_text_shorter_than_a_block_is_one_shot() -> None:
    layout = interleaved([1], [20, 21, 22], 100, block_text=2, block_speech=3)
    assert layout == one_shot([1], [20, 21, 22], 100)


def test_interleaved_block_of_one() -> None:
    check(
        interleaved([1, 2], [20, 21, 22], 100, block_text=1, block_speech=1),
        "*tsts*s",
        [SOS, 1, 20, 2, 21, TOS, 22],
        [NONE, 20, FILL, 21, FILL, 22, EOS],
    )


def test_too_little_speech_for_its_text() -> None:
    assert fits_interleaved(5, 16, 5, 15)
    assert not fits_interleaved(5, 15, 5, 15)
    assert fits_interleaved(4, 13, 5, 15) and not fits_interleaved(4, 12, 5, 15)
    with pytest.raises(ValueError, match="3 speech tokens are too few .* 2 text tokens at 2:3"):
        interleaved([1, 2], [20, 21, 22], 100, block_text=2, block_speech=3)


def test_batches_are_padded_on_either_side() -> None:
    layouts = [one_shot([7], [20, 21], 100), one_shot([], [], 100)]
    batch = LayoutBatch.from_layouts(layouts)
    assert batch.kinds.tolist() == [
        [SPECIAL, TEXT, SPECIAL, SPEECH, SPEECH],
        [SPECIAL, SPECIAL, SPECIAL, SPECIAL, SPECIAL],
    ]
    assert batch.ids.tolist() == [[SOS, 7, TOS, 20, 21], [SOS, TOS, 0, 0, 0]]
    assert batch.targets.tolist() == [[NONE, NONE, 20, 21, EOS], [NONE, EOS, NONE, NONE, NONE]]
    assert batch.mask.tolist() == [[True] * 5, [True] * 2 + [False] * 3]
    left = LayoutBatch.from_layouts(layouts, left=True)
    assert left.ids.tolist()[1] == [0, 0, 0, SOS, TOS]
    assert left.mask.tolist()[1] == [False] * 3 + [True] * 2
    assert torch.equal(left.to("cpu").ids, left.ids)
