"""Reads micro-batches, in worker processes or in this one, with the same result either way."""

from __future__ import annotations

import json
import logging
import signal
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tokenlm.audio.io import AudioError
from tokenlm.config import ConfigError
from training.config import RunConfig
from training.data.dataset import ShardError
from training.data.rejects import EARLIEST_STOP, REJECTS, Reject, TooManyRejects
from training.data.sampler import DurationSampler, MicroBatch, Position, StepPlan
from training.data.split import DataConfig
from training.loop.randomness import make_generator
from training.loop.task import Task, TrainingDataset

logger = logging.getLogger(__name__)

UNREADABLE = (AudioError, ShardError)
"""What an item raises whose file is damaged or gone."""


class MicroBatchDataset(Dataset):
    """Maps a `MicroBatch` to its collated batch."""

    def __init__(
        self,
        task: Task,
        dataset: TrainingDataset,
        seed: int,
        *,
        augment: bool,
        unreadable: UnreadableItems | None = None,
    ) -> None:
        """Bind the dataset of one split.

        Args:
            task: Collates.
            dataset: The items.
            seed: Of the draws.
            augment: Whether `draw` is preferred over indexing.
            unreadable: Counts items that cannot be read, another item of the micro-batch then
                stands in for each; with None they are an error.
        """
        self._unreadable = unreadable
        self._collate, self._collate_packed = task.collate, task.collate_packed
        self._dataset = dataset
        self._seed = seed
        self._draw = getattr(dataset, "draw", None) if augment else None

    def __getitem__(self, micro_batch: MicroBatch) -> Any:
        """Read and collate the items."""
        items, problem = [], None
        for index in micro_batch.items:
            try:
                items.append(self._read(index, micro_batch.epoch))
            except UNREADABLE as error:
                if self._unreadable is None:
                    raise
                self._unreadable.add_bad(self._dataset, index, error)
                items.append(None)
                problem = error
            else:
                if self._unreadable is not None:
                    self._unreadable.add_good(self._dataset, index)
        if problem is not None:
            # Not left out: plans count on as many items as they have.
            good = [item for item in items if item is not None]
            if not good:
                raise problem
            items = [good[n % len(good)] if item is None else item for n, item in enumerate(items)]
        if micro_batch.row_sizes:
            return self._collate_packed(items, micro_batch.row_sizes)
        return self._collate(items)

    def _read(self, index: int, epoch: int) -> Any:
        if self._draw is None:
            return self._dataset[index]
        return self._draw(index, make_generator("draw", self._seed, epoch, index))


class UnreadableItems:
    """Counts items that cannot be read: each is logged once, and written to the rejects file.

    Every reading process counts for itself.
    """

    def __init__(self, path: Path, max_share: float) -> None:
        """Begin with nothing.

        Args:
            path: The rejects file, which is added to.
            max_share: Share of the items that may be unreadable.
        """
        self._path, self._max_share = path, max_share
        self._bad: set[int] = set()
        self._num_good = 0
        self._seen = np.zeros(0, dtype=bool)

    def add_good(self, dataset: TrainingDataset, index: int) -> None:
        """Count an item that was read, once however often it is."""
        if not self._seen.size:
            self._seen = np.zeros(len(dataset), dtype=bool)
        self._num_good += not self._seen[index]
        self._seen[index] = True

    def add_bad(self, dataset: TrainingDataset, index: int, error: ValueError) -> None:
        """Count an item that cannot be read.

        Raises:
            TooManyRejects: If more than the allowed share of the items could not be read, once
                `EARLIEST_STOP` of them have been asked for.
        """
        if index in self._bad:
            return
        self._bad.add(index)
        rows: Any = dataset
        while hasattr(rows, "utterances"):  # of crops, those of what they are cut from
            rows = rows.utterances
        rows = None if rows is dataset else rows
        name = f"item {index}" if rows is None else f"{rows[index].id}, {rows[index].audio}"
        reject = Reject(file=name, line=None, reason=str(error))
        logger.warning("left out: %s", reject)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(reject), ensure_ascii=False) + "\n")
        seen = len(self._bad) + self._num_good
        if seen >= EARLIEST_STOP and len(self._bad) > self._max_share * seen:
            raise TooManyRejects(
                f"{len(self._bad)} of {seen} items cannot be read, more than the allowed "
                f"share of {self._max_share:g} (data.max_reject_share); all of them: {self._path}"
            )


def training_items(
    task: Task, dataset: TrainingDataset, config: RunConfig, folder: Path
) -> MicroBatchDataset:
    """Return the training split as it is read in a run: drawn, without what is broken.

    Args:
        task: Collates.
        dataset: The items.
        config: Of the run.
        folder: Of the run; gets `rejects.jsonl`.
    """
    data = getattr(config, "data", None)
    share = data.max_reject_share if isinstance(data, DataConfig) else 0.0
    unreadable = UnreadableItems(folder / REJECTS, share)
    return MicroBatchDataset(task, dataset, config.seed, augment=True, unreadable=unreadable)


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
        self._ahead: deque[StepPlan] = deque()
        # In a list, which is emptied before the process ends: workers of an endless loader that
        # live as long as the process are torn down too late, and complain.
        self._batches = [read(dataset, self._own_micro_batches(), num_workers)]
        weakref.finalize(self, self._batches.clear)

    def _own(self, plan: StepPlan) -> tuple[MicroBatch, ...]:
        return plan.micro_batches[self._rank :: self._num_ranks]

    def _own_micro_batches(self) -> Iterator[MicroBatch]:
        for plan in self._plans:
            self._ahead.append(plan)
            yield from self._own(plan)

    def next_step(self) -> tuple[StepPlan, list[tuple[int, MicroBatch, Any]]]:
        """Return the next step and, for each micro-batch of this rank, (number, plan, batch)."""
        first = next(self._batches[0])  # which plans the step, if it was not planned ahead
        plan = self._ahead.popleft()
        own = self._own(plan)
        numbers = range(self._rank, len(plan.micro_batches), self._num_ranks)
        batches = [first, *(next(self._batches[0]) for _ in own[1:])]
        return plan, list(zip(numbers, own, batches, strict=True))


def sizes(train: TrainingDataset, config: RunConfig) -> Sequence[float] | np.ndarray:
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
    plan: Sequence[MicroBatch] = DurationSampler(
        valid.durations, padded, config.seed
    ).micro_batches(0, shuffle=False)
    limit = config.log.evaluate_batches
    if limit and limit < len(plan):
        # Spread over all lengths, the same ones every time.
        plan = [plan[i * len(plan) // limit] for i in range(limit)]
    dataset = MicroBatchDataset(task, valid, config.seed, augment=False)
    for batch in read(dataset, iter(plan), config.batch.num_workers):
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
