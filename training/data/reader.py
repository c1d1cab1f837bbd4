"""Reads micro-batches, in worker processes or in this one, with the same result either way."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tokenlm.config import ConfigError
from training.config import RunConfig
from training.data.sampler import DurationSampler, MicroBatch, Position, StepPlan
from training.randomness import make_generator
from training.task import Task, TrainingDataset


class MicroBatchDataset(Dataset):
    """Maps a `MicroBatch` to its collated batch."""

    def __init__(self, task: Task, dataset: TrainingDataset, seed: int, *, augment: bool) -> None:
        """Bind the dataset of one split; `augment` prefers `draw` over indexing."""
        self._collate, self._collate_packed = task.collate, task.collate_packed
        self._dataset = dataset
        self._seed = seed
        self._draw = getattr(dataset, "draw", None) if augment else None

    def __getitem__(self, micro_batch: MicroBatch) -> Any:
        """Read and collate the items."""
        items = []
        for index in micro_batch.items:
            if self._draw is None:
                items.append(self._dataset[index])
            else:
                generator = make_generator("draw", self._seed, micro_batch.epoch, index)
                items.append(self._draw(index, generator))
        if micro_batch.row_sizes:
            return self._collate_packed(items, micro_batch.row_sizes)
        return self._collate(items)


def read(
    dataset: MicroBatchDataset, micro_batches: Iterator[MicroBatch], num_workers: int
) -> Iterator[Any]:
    """Yield the collated batch of every micro-batch, in order, some read ahead by workers."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=_Once(micro_batches),  # type: ignore[arg-type]
        collate_fn=_same,
        num_workers=num_workers,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )
    return iter(loader)


class StepReader:
    """The endless sequence of steps of the training split, as one rank reads it."""

    def __init__(
        self,
        dataset: MicroBatchDataset,
        sampler: DurationSampler,
        position: Position,
        *,
        rank: int,
        num_ranks: int,
        accumulation: int,
        num_workers: int,
    ) -> None:
        """Begin to read at `position`."""
        self._rank = rank
        self._num_ranks = num_ranks
        num_micro_batches = num_ranks * accumulation
        self._plans = sampler.plans(position, num_micro_batches)
        ahead = sampler.plans(position, num_micro_batches)
        self._batches = read(
            dataset, (part for plan in ahead for part in self._own(plan)), num_workers
        )

    def _own(self, plan: StepPlan) -> tuple[MicroBatch, ...]:
        return plan.micro_batches[self._rank :: self._num_ranks]

    def next_step(self) -> tuple[StepPlan, list[tuple[int, MicroBatch, Any]]]:
        """Return the next step and, for each micro-batch of this rank, (number, plan, batch)."""
        plan = next(self._plans)
        numbers = range(self._rank, len(plan.micro_batches), self._num_ranks)
        own = self._own(plan)
        batches = [next(self._batches) for _ in own]
        return plan, list(zip(numbers, own, batches, strict=True))


def sizes(train: TrainingDataset, config: RunConfig) -> Sequence[float]:
    """Return the seconds of every item, by which batches are filled.

    Raises:
        ConfigError: If rows are to be packed and the stage has no such items.
    """
    if not config.batch.pack_seconds:
        return train.durations
    packed = getattr(train, "packed_durations", None)
    if packed is None:
        raise ConfigError(f"batch.pack_seconds: the stage {config.stage} does not pack")
    return packed


def valid_batches(
    task: Task, valid: TrainingDataset, config: RunConfig, device: torch.device
) -> Iterator[Any]:
    """Yield the batches of an evaluation: padded, by length, without draws, always the same."""
    padded = replace(config.batch, pack_seconds=0.0)
    plan = DurationSampler(valid.durations, padded, config.seed).epoch(0, shuffle=False)
    limit = config.log.evaluate_batches
    if limit and limit < len(plan):
        # Spread over all lengths, the same ones every time.
        plan = [plan[i * len(plan) // limit] for i in range(limit)]
    dataset = MicroBatchDataset(task, valid, config.seed, augment=False)
    micro_batches = (MicroBatch(items=items, epoch=0) for items in plan)
    for batch in read(dataset, micro_batches, config.batch.num_workers):
        yield to_device(batch, device)


def to_device(value: Any, device: torch.device) -> Any:
    """Move the tensors of nested dicts, lists, tuples and dataclasses to a device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(part, device) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(part, device) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(part, device) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        moved = {f.name: to_device(getattr(value, f.name), device) for f in fields(value) if f.init}
        return replace(value, **moved)
    return value


class _Once:
    """A sampler that hands out one iterator."""

    def __init__(self, micro_batches: Iterator[MicroBatch]) -> None:
        self._micro_batches = micro_batches

    def __iter__(self) -> Iterator[MicroBatch]:
        return self._micro_batches


def _same(value: Any) -> Any:
    return value


def _start_worker(worker: int) -> None:
    # The training process alone decides what a signal means; Ctrl-C reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
