"""Reading ahead and moving to a device."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from toy_stage import ToyData, ToyTask, toy_config

from training.config import BatchConfig
from training.data.reader import MicroBatchDataset, StepReader, read, to_device
from training.data.sampler import DurationSampler, MicroBatch, Position


@dataclass
class Box:
    x: torch.Tensor
    name: str


def test_to_device_keeps_the_structure() -> None:
    Pair = namedtuple("Pair", "a b")
    value = {
        "list": [torch.ones(1), 2],
        "pair": Pair(torch.ones(2), "t"),
        "box": Box(torch.ones(3), "n"),
    }
    moved = to_device(value, torch.device("meta"))
    assert moved["list"][0].is_meta and moved["list"][1] == 2
    assert isinstance(moved["pair"], Pair) and moved["pair"].a.is_meta and moved["pair"].b == "t"
    assert moved["box"].x.is_meta and moved["box"].name == "n"


def reader(rank: int, num_ranks: int, accumulation: int, num_workers: int = 0) -> StepReader:
    task, data = ToyTask(toy_config("unused")), ToyData(20)
    config = BatchConfig(max_seconds_per_batch=8.0, max_items=4)
    sampler = DurationSampler(data.durations, config, 0)
    return StepReader(
        MicroBatchDataset(task, data, 0, augment=True),
        sampler,
        Position(),
        rank=rank,
        num_ranks=num_ranks,
        accumulation=accumulation,
        num_workers=num_workers,
    )


def test_ranks_share_out_the_same_micro_batches() -> None:
    alone = reader(0, 1, 4)
    ranks = [reader(rank, 2, 2) for rank in range(2)]
    for _ in range(5):
        plan, parts = alone.next_step()
        shared = sorted(
            (part for rank in ranks for part in rank.next_step()[1]), key=lambda part: part[0]
        )
        assert [part[0] for part in parts] == [part[0] for part in shared] == [0, 1, 2, 3]
        for (_, one, batch), (_, other, same) in zip(parts, shared, strict=True):
            assert one == other and torch.equal(batch["x"], same["x"])
        assert len(plan.micro_batches) == 4


def test_draws_differ_between_epochs_only() -> None:
    task, data = ToyTask(toy_config("unused")), ToyData(20)
    augmented = MicroBatchDataset(task, data, 0, augment=True)
    plain = MicroBatchDataset(task, data, 0, augment=False)
    one, same, other = (augmented[MicroBatch((1, 2), epoch)]["x"] for epoch in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(plain[MicroBatch((1, 2), 0)]["x"], data.points[1:3])


def test_finite_plan_ends(tmp_path: Path) -> None:
    task, data = ToyTask(toy_config(tmp_path)), ToyData(20)
    dataset = MicroBatchDataset(task, data, 0, augment=False)
    batches = list(read(dataset, iter([MicroBatch((0,), 0), MicroBatch((1, 2), 0)]), 0))
    assert [len(batch["x"]) for batch in batches] == [1, 2]
    assert len(list(islice(read(dataset, iter([]), 0), 1))) == 0
