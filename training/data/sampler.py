"""Which items form which micro-batch: a pure function of (durations, config, seed, epoch).

The micro-batches of all epochs form one endless sequence. A step takes `ranks x accumulation`
consecutive ones, so the order of the data does not depend on the number of ranks.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.config import BatchConfig
from training.loop.randomness import derive_seed


@dataclass(frozen=True)
class Position:
    """A place in the endless sequence of micro-batches."""

    epoch: int = 0
    """Epoch, from 0."""
    index: int = 0
    """Micro-batch within the epoch, from 0."""


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch before it is read."""

    items: tuple[int, ...]
    """Indices of the dataset."""
    epoch: int
    """Epoch that it belongs to."""
    first_item: int = 0
    """Number of its first item within the global batch of the step."""
    row_sizes: tuple[int, ...] = ()
    """Items of each row, where rows are packed; empty where every item is a row."""


@dataclass(frozen=True)
class StepPlan:
    """The micro-batches of one step over all ranks."""

    micro_batches: tuple[MicroBatch, ...]
    """`ranks x accumulation` of them; rank r takes number r, r + ranks, ..."""
    after: Position
    """Where the next step begins."""


PACK_WINDOW = 4096
"""Items that are packed together: enough that almost every row is filled, few enough that long
items do not end up with long ones over the whole epoch."""


def pack(durations: np.ndarray, order: np.ndarray, config: BatchConfig) -> list[tuple[int, ...]]:
    """Fill rows of at most `pack_seconds`: the longest first, each into the fullest row it fits.

    Args:
        durations: Seconds of each item.
        order: Indices in the order of the epoch; each window of them is packed by itself.
        config: Gives the length of a row.

    Returns:
        The rows, each the indices of its items.
    """
    rows: list[tuple[int, ...]] = []
    for start in range(0, len(order), PACK_WINDOW):
        window = order[start : start + PACK_WINDOW]
        longest_first = window[np.argsort(-durations[window], kind="stable")].tolist()
        free: list[tuple[float, int]] = []  # room of a row and its number, by room
        filled: list[list[int]] = []
        for index in longest_first:
            duration = float(durations[index])
            # The slack takes up the rounding of sums that fill a row to its end.
            found = bisect_left(free, (duration - 1e-9, -1))
            if found < len(free):
                room, number = free.pop(found)
            else:
                room, number = config.pack_seconds, len(filled)
                filled.append([])
            filled[number].append(index)
            insort(free, (room - duration, number))
        rows += [tuple(row) for row in filled]
    return rows


class DurationSampler:
    """Groups items of similar length into micro-batches of a bounded number of padded seconds."""

    def __init__(self, durations: Sequence[float], config: BatchConfig, seed: int) -> None:
        """Keep the durations.

        Args:
            durations: Seconds of each item.
            config: Budget and jitter.
            seed: Seed of the run.

        Raises:
            ValueError: If there are no items, or one alone is over the budget.
        """
        self._durations = np.asarray(durations, dtype=np.float64)
        self._config = config
        self._seed = seed
        self._cached: tuple[int, list[MicroBatch]] = (-1, [])
        if self._durations.size == 0:
            raise ValueError("There is no item to train on.")
        longest = int(self._durations.argmax())
        packing = config.pack_seconds > 0
        limit = config.pack_seconds if packing else config.max_seconds_per_batch
        if self._durations[longest] > limit:
            what = "row" if packing else "batch"
            key = "batch.pack_seconds" if packing else "batch.max_seconds_per_batch"
            raise ValueError(
                f"Item {longest} has {self._durations[longest]:.2f} s, more than a whole {what} "
                f"({key} = {limit:g}); raise that or leave out long items."
            )

    def micro_batches(self, epoch: int) -> list[MicroBatch]:
        """Return the shuffled micro-batches of one epoch, packed if the config says so."""
        if not self._config.pack_seconds:
            return [MicroBatch(items=items, epoch=epoch) for items in self.epoch(epoch)]
        rng = np.random.default_rng(derive_seed("order", self._seed, epoch))
        rows = pack(self._durations, rng.permutation(self._durations.size), self._config)
        rows = [rows[i] for i in rng.permutation(len(rows))]
        num_rows = int(self._config.max_seconds_per_batch // self._config.pack_seconds)
        groups = [rows[i : i + num_rows] for i in range(0, len(rows), num_rows)]
        return [
            MicroBatch(
                items=tuple(index for row in group for index in row),
                epoch=epoch,
                row_sizes=tuple(len(row) for row in group),
            )
            for group in groups
        ]

    def epoch(self, epoch: int, *, shuffle: bool = True) -> list[tuple[int, ...]]:
        """Return the padded micro-batches of one epoch, each a tuple of indices.

        Args:
            epoch: Epoch, from 0.
            shuffle: False sorts by length and has no randomness at all (evaluation).
        """
        rng = np.random.default_rng(derive_seed("order", self._seed, epoch))
        keys = np.log(np.maximum(self._durations, 1e-3))
        if shuffle:
            keys = keys + rng.uniform(0.0, self._config.length_jitter + 1e-9, keys.size)
        batches = self._fill(np.argsort(keys, kind="stable"))
        if shuffle:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return batches

    def _fill(self, order: np.ndarray) -> list[tuple[int, ...]]:
        batches: list[tuple[int, ...]] = []
        current: list[int] = []
        longest = 0.0
        for index in order.tolist():
            duration = float(self._durations[index])
            padded = max(longest, duration) * (len(current) + 1)
            full = len(current) == self._config.max_items
            if current and (full or padded > self._config.max_seconds_per_batch):
                batches.append(tuple(current))
                current, longest = [], 0.0
            current.append(index)
            longest = max(longest, duration)
        batches.append(tuple(current))
        return batches

    def seconds(self, micro_batch: MicroBatch) -> float:
        """Return the seconds of audio, without padding, of a micro-batch."""
        return float(self._durations[list(micro_batch.items)].sum())

    def plan(self, position: Position, num_micro_batches: int) -> StepPlan:
        """Return the step that begins at `position`.

        Args:
            position: Where the step begins.
            num_micro_batches: Ranks times accumulation. A step may reach over the end of an epoch.
        """
        epoch, index, first_item = position.epoch, position.index, 0
        taken: list[MicroBatch] = []
        while len(taken) < num_micro_batches:
            if self._cached[0] != epoch:
                self._cached = (epoch, self.micro_batches(epoch))
            batches = self._cached[1]
            if index >= len(batches):
                epoch, index = epoch + 1, 0
                continue
            taken.append(replace(batches[index], first_item=first_item))
            first_item += len(batches[index].items)
            index += 1
        return StepPlan(micro_batches=tuple(taken), after=Position(epoch=epoch, index=index))

    def plans(self, position: Position, num_micro_batches: int) -> Iterator[StepPlan]:
        """Yield the steps from `position` on, without end."""
        while True:
            plan = self.plan(position, num_micro_batches)
            yield plan
            position = plan.after
