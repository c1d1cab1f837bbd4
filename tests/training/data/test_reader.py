"""Reading ahead and moving to a device."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import torch
from toy_stage import ToyData, ToyTask, toy_config

from tokenlm.audio.io import AudioError
from training.config import BatchConfig
from training.data.reader import MicroBatchDataset, StepReader, UnreadableItems, read, to_device
from training.data.rejects import TooManyRejects, read_rejects
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


class BrokenData(ToyData):
    """Some items cannot be read."""

    def __init__(self, num_items: int, broken: set[int]) -> None:
        super().__init__(num_items)
        self.broken = broken

    def draw(self, index: int, generator: torch.Generator) -> dict:
        if index in self.broken:
            raise AudioError(f"{index}.wav is no sound")
        return super().draw(index, generator)


def test_another_item_stands_in_for_one_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task, path = ToyTask(toy_config("unused")), tmp_path / "rejects.jsonl"
    whole = MicroBatchDataset(task, ToyData(20), 0, augment=True)
    data = MicroBatchDataset(
        task, BrokenData(20, {1}), 0, augment=True, unreadable=UnreadableItems(path, 0.5)
    )
    expected = whole[MicroBatch((3, 1, 2), 0)]["x"]
    for _ in range(2):
        found = data[MicroBatch((3, 1, 2), 0)]["x"]
        assert torch.equal(found, expected[[0, 2, 2]])
    # Logged once.
    (reject,) = read_rejects(path)
    assert reject.file == "item 1" and "1.wav is no sound" in reject.reason
    assert caplog.text.count("left out: ") == 1
    with pytest.raises(AudioError, match=r"1\.wav"):
        data[MicroBatch((1,), 0)]
    strict = MicroBatchDataset(task, BrokenData(20, {1}), 0, augment=True)
    with pytest.raises(AudioError, match=r"1\.wav"):
        strict[MicroBatch((3, 1), 0)]


def test_too_many_broken_items_end_the_run(tmp_path: Path) -> None:
    task, broken = ToyTask(toy_config("unused")), set(range(0, 400, 10))
    few = UnreadableItems(tmp_path / "few.jsonl", 0.2)
    data = MicroBatchDataset(task, BrokenData(400, broken), 0, augment=True, unreadable=few)
    for start in range(0, 400, 4):
        data[MicroBatch(tuple(range(start, start + 4)), 0)]
    assert len(read_rejects(tmp_path / "few.jsonl")) == 40
    many = UnreadableItems(tmp_path / "many.jsonl", 0.05)
    data = MicroBatchDataset(task, BrokenData(400, broken), 0, augment=True, unreadable=many)
    with pytest.raises(TooManyRejects, match="more than the allowed share of 0.05"):
        for start in range(0, 400, 4):
            data[MicroBatch(tuple(range(start, start + 4)), 0)]


@pytest.mark.slow
def test_a_process_ends_in_peace_while_workers_read_ahead() -> None:
    folder = Path(__file__).parent
    program = f"""
import sys
sys.path[:0] = [{str(folder)!r}, {str(folder.parent)!r}]
from test_reader import reader
kept = reader(0, 1, 4, num_workers=2)
kept.next_step()
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
