"""Rows that hold several items: filled, complete, and blind to one another."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tokenlm.models.lm import SpeechLM, SpeechLMConfig
from tokenlm.models.lm.backbone import PackedItems
from tokenlm.models.lm.layout import Layout, interleaved, one_shot
from tokenlm.models.lm.model import BackboneConfig, LayoutBatch
from training.config import BatchConfig
from training.data.sampler import DurationSampler, Position, pack
from training.loop.checkpoints import latest_checkpoint
from training.losses.tokens import token_cross_entropy
from training.run import main

CONFIG = BatchConfig(max_seconds_per_batch=60.0, pack_seconds=20.0)
DURATIONS = np.random.default_rng(0).lognormal(1.2, 0.6, 5000).clip(0.3, 15.0)


def test_rows_by_hand() -> None:
    config = BatchConfig(max_seconds_per_batch=10.0, pack_seconds=10.0)
    durations = np.array([4.0, 6.0, 7.0, 3.0, 5.0, 1.0])
    items, sizes = pack(durations, np.arange(6), config)
    rows = np.split(items, np.cumsum(sizes)[:-1])
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
    assert list(batches) != list(sampler.micro_batches(1))
    again = DurationSampler(DURATIONS.tolist(), CONFIG, 7)
    assert list(batches) == list(again.micro_batches(0))


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


def model(num_layers: int = 2) -> SpeechLM:
    torch.manual_seed(0)
    backbone = BackboneConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_layers=num_layers, num_heads=2,
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
    packed = LayoutBatch.in_rows(LAYOUTS, sizes)
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


def test_groups_by_hand() -> None:
    # Rows of 8: items of 3 and 4, then of 5 and 1.
    packed = PackedItems.of_rows([[3, 4], [5, 1]], 8)
    assert [group.tolist() for group in packed.places] == [
        [[8, 9, 10, 11, 12], [3, 4, 5, 6, 3]],
        [[0, 1, 2]],
        [[13]],
    ]
    own = [10, 11, 12, 5, 6, 7, 8], [0, 1, 2, 3, 4, 13]
    assert packed.back[0, :7].tolist() == own[0] and packed.back[1, :6].tolist() == own[1]


def test_gradients_are_those_of_the_items_alone() -> None:
    found = []
    for batch in (LayoutBatch.in_rows(LAYOUTS, (2, 3)), LayoutBatch.from_layouts(LAYOUTS)):
        lm = model()
        token_cross_entropy(lm(batch), batch.targets).backward()
        found.append({name: p.grad for name, p in lm.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5)


def test_pairs_that_do_not_see_one_another_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    whole = torch.nn.functional.scaled_dot_product_attention

    def counted(query: Any, key: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(query.shape[0] * query.shape[2] * key.shape[2])
        assert options["is_causal"] and options["attn_mask"] is None
        return whole(query, key, *arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    items = [one_shot([1] * 5, [2] * 20, 9) for _ in range(8)]
    model()(LayoutBatch.in_rows(items, (8,)))
    assert sizes == [8 * 27 * 27] * 2, "two layers; a masked row would have 64 times 27 x 27"


def test_a_neighbour_changes_nothing() -> None:
    lm = model()
    other = one_shot([7, 7, 7], [1, 1, 1, 1], 9)
    one = lm(LayoutBatch.in_rows([LAYOUTS[0], LAYOUTS[1]], (2,)))
    two = lm(LayoutBatch.in_rows([other, LAYOUTS[1]], (2,)))
    assert len(other) == len(LAYOUTS[0])
    assert torch.equal(one[0, 9:], two[0, 9:]) and not torch.equal(one[0, :9], two[0, :9])


@pytest.mark.slow
def test_compiled_and_forgetful_it_is_the_same_run(stage_config: Any, tmp_path: Path) -> None:
    batch = {"max_seconds_per_batch": 9.0, "pack_seconds": 4.5}
    ways: dict[str, dict[str, bool]] = {
        "plain": {},
        "compiled": {"compile": True},
        "forgetful": {"activation_checkpointing": True},
        "both": {"compile": True, "activation_checkpointing": True},
    }
    found = {}
    for name, way in ways.items():
        path = stage_config("speech_lm", name, batch=batch, precision="fp32", **way)
        assert main(["--config", str(path)]) == 0
        checkpoint = latest_checkpoint(tmp_path / name)
        assert checkpoint is not None
        found[name] = load_file(checkpoint / "speech_lm.safetensors")
    for name, weights in found.items():
        assert weights.keys() == found["plain"].keys()
        for key, value in weights.items():
            torch.testing.assert_close(value, found["plain"][key], rtol=1e-4, atol=1e-5)
            assert name != "forgetful" or torch.equal(value, found["plain"][key])


def graphs_of_rows(num_layers: int) -> list[int]:
    """Graphs that are compiled after each of some batches, whose logits are those without."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    lm, plain = model(num_layers), model(num_layers)
    lm.compile()
    generator = torch.Generator().manual_seed(0)
    counts = []
    for _ in range(12):
        sizes = torch.randint(1, 12, (6,), generator=generator).tolist()
        batch = LayoutBatch.in_rows([one_shot([1, 2], [3] * n, 9) for n in sizes], (2, 4))
        torch.testing.assert_close(lm(batch), plain(batch), rtol=1e-4, atol=1e-5)
        counts.append(torch._dynamo.utils.counters["frames"]["ok"])
    assert not any("limit" in reason for reason in torch._dynamo.utils.counters["unimplemented"])
    return counts


@pytest.mark.slow
def test_compiled_once_for_rows_of_any_items() -> None:
    # The attention of packed items is not compiled and parts the layers into frames of their own.
    # Once for each shape, and once more with sizes left open; never again for further items.
    counts = graphs_of_rows(2)
    assert counts[-1] == counts[5] > 0, counts
    assert graphs_of_rows(4)[-1] == counts[-1], "layers share their graphs"


def test_stages_pack_by_config(stage_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    batch = {"max_seconds_per_batch": 9.0, "pack_seconds": 4.5, "num_workers": 0}
    assert main(["--config", str(stage_config("speech_lm", batch=batch))]) == 0
    assert main(["--config", str(stage_config("flow", "flow", batch=batch))]) == 1
    assert "the stage flow does not pack" in capsys.readouterr().err
    path = stage_config("speech_lm", "other", batch=batch, prior_steps=5)
    assert main(["--config", str(path)]) == 2
    assert "prior_steps is for padded batches" in capsys.readouterr().err
    assert Path(path).exists()
