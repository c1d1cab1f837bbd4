"""Rows that hold several items: filled, complete, and blind to one another."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokenlm.models.lm import SpeechLM, SpeechLMConfig
from tokenlm.models.lm.layout import Layout, interleaved, one_shot
from tokenlm.models.lm.model import BackboneConfig, LayoutBatch
from training.config import BatchConfig
from training.data.sampler import DurationSampler, Position, pack
from training.losses.tokens import token_cross_entropy
from training.run import main

CONFIG = BatchConfig(max_seconds_per_batch=60.0, pack_seconds=20.0)
DURATIONS = np.random.default_rng(0).lognormal(1.2, 0.6, 5000).clip(0.3, 15.0)


def test_rows_by_hand() -> None:
    config = BatchConfig(max_seconds_per_batch=10.0, pack_seconds=10.0)
    durations = np.array([4.0, 6.0, 7.0, 3.0, 5.0, 1.0])
    rows = pack(durations, np.arange(6), config)
    # 7 | 6 | 5 beside neither, 4 fills up the 6, 3 the 7, 1 goes with the 5.
    assert sorted(map(sorted, rows)) == [[0, 1], [2, 3], [4, 5]]


def test_every_item_once_and_hardly_any_padding() -> None:
    sampler = DurationSampler(DURATIONS.tolist(), CONFIG, 7)
    batches = sampler.micro_batches(0)
    assert sorted(i for batch in batches for i in batch.items) == list(range(len(DURATIONS)))
    used = width = 0.0
    for batch in batches:
        rows, start = [], 0
        for size in batch.row_sizes:
            rows.append(DURATIONS[list(batch.items[start : start + size])].sum())
            start += size
        assert start == len(batch.items) and len(rows) <= 3 and max(rows) <= 20.0 + 1e-6
        used, width = used + sum(rows), width + max(rows) * len(rows)
    assert 1 - used / width < 0.03
    assert batches != sampler.micro_batches(1)
    assert batches == DurationSampler(DURATIONS.tolist(), CONFIG, 7).micro_batches(0)


def test_order_does_not_depend_on_the_number_of_ranks() -> None:
    def items(ranks: int, steps: int) -> list[Any]:
        sampler = DurationSampler(DURATIONS.tolist(), CONFIG, 7)
        plans = islice(sampler.plans(Position(), ranks), steps)
        return [(part.items, part.row_sizes) for plan in plans for part in plan.micro_batches]

    assert items(1, 600) == items(4, 150)


def test_an_item_that_is_longer_than_a_row_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"whole row \(batch.pack_seconds = 20\)"):
        DurationSampler([21.0], CONFIG, 0)
    with pytest.raises(ValueError, match="pack_seconds must be between"):
        BatchConfig(max_seconds_per_batch=10.0, pack_seconds=11.0)


def model() -> SpeechLM:
    torch.manual_seed(0)
    backbone = BackboneConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2,
        num_kv_heads=1,
    )  # fmt: skip
    return SpeechLM(SpeechLMConfig(backbone=backbone, codebook_size=9)).eval()


LAYOUTS: list[Layout] = [
    one_shot([1, 2, 3], [4, 5, 6, 7], 9),
    one_shot([9], [8, 1], 9),
    interleaved([3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7], 9, block_text=2, block_speech=3),
    one_shot([], [2, 2, 2], 9),
    one_shot([5, 6], [0, 1, 2], 9),
]


def test_packed_items_get_the_logits_that_they_get_alone() -> None:
    lm = model()
    sizes = (2, 3)
    packed = LayoutBatch.packed(LAYOUTS, sizes)
    assert packed.ids.shape == (2, max(9 + 5, 13 + 5 + 7))
    logits = lm(packed)
    assert logits.isfinite().all()
    start, place, row = 0, 0, 0
    for number, layout in enumerate(LAYOUTS):
        if number == sizes[0]:
            row, place = 1, 0
        alone = lm(LayoutBatch.from_layouts([layout]))[0]
        torch.testing.assert_close(
            logits[row, place : place + len(layout)], alone, rtol=1e-5, atol=1e-6
        )
        place, start = place + len(layout), start + 1
    padded = LayoutBatch.from_layouts(LAYOUTS)
    torch.testing.assert_close(
        token_cross_entropy(logits, packed.targets),
        token_cross_entropy(lm(padded), padded.targets),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_a_neighbour_changes_nothing() -> None:
    lm = model()
    other = one_shot([7, 7, 7], [1, 1, 1, 1], 9)
    one = lm(LayoutBatch.packed([LAYOUTS[0], LAYOUTS[1]], (2,)))
    two = lm(LayoutBatch.packed([other, LAYOUTS[1]], (2,)))
    assert len(other) == len(LAYOUTS[0])
    assert torch.equal(one[0, 9:], two[0, 9:]) and not torch.equal(one[0, :9], two[0, :9])


def test_stages_pack_by_config(stage_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    batch = {"max_seconds_per_batch": 9.0, "pack_seconds": 4.5, "num_workers": 0}
    assert main(["--config", str(stage_config("speech_lm", batch=batch))]) == 0
    assert main(["--config", str(stage_config("flow", "flow", batch=batch))]) == 1
    assert "the stage flow does not pack" in capsys.readouterr().err
    path = stage_config("speech_lm", "other", batch=batch, prior_steps=5)
    assert main(["--config", str(path)]) == 2
    assert "prior_steps is for padded batches" in capsys.readouterr().err
    assert Path(path).exists()
