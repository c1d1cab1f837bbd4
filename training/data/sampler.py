"""Which items form which micro-batch: a pure function of (durations, config, seed, epoch).

The micro-batches of all epochs form one endless sequence. A step takes `ranks x accumulation`
consecutive ones, so the order of the data does not depend on the number of ranks. An epoch is kept
as arrays; a `MicroBatch` is made when it is needed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

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


def pack(
    durations: np.ndarray, order: np.ndarray, config: BatchConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Fill rows of at most `pack_seconds`: the longest first, each into the fullest row it fits.

    Args:
        durations: Seconds of each item.
        order: Indices in the order of the epoch; each window of them is packed by itself.
        config: Gives the length of a row.

    Returns:
        Indices of the items, row after row, and the number of items of each row.
    """
    items: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    for start in range(0, len(order), PACK_WINDOW):
        window = order[start : start + PACK_WINDOW]
        longest_first = window[np.argsort(-durations[window], kind="stable")]
        free: list[tuple[float, int]] = []  # room of a row and its number, by room
        rows: list[list[int]] = []
        for index, duration in zip(
            longest_first.tolist(), durations[longest_first].tolist(), strict=True
        ):
            # The slack takes up the rounding of sums that fill a row to its end.
            place = bisect_left(free, (duration - 1e-9, -1))
            if place < len(free):
                room, number = free.pop(place)
            else:
                room, number = config.pack_seconds, len(rows)
                rows.append([])
            rows[number].append(index)
            insort(free, (room - duration, number))
        items += [np.array(row, dtype=order.dtype) for row in rows]
        sizes.append(np.array([len(row) for row in rows]))
    return np.concatenate(items), np.concatenate(sizes)


BLOCK = 65_536
"""Items that become Python numbers at once."""


class Epoch(Sequence[MicroBatch]):
    """The micro-batches of an epoch."""

    def __init__(
        self, number: int, items: np.ndarray, starts: np.ndarray, sizes: np.ndarray, num_rows: int
    ) -> None:
        """Keep the arrays.

        Args:
            number: Epoch, from 0.
            items: Indices of the dataset.
            starts: Where each group of items that stay together begins in `items`.
            sizes: How many there are in each group.
            num_rows: Groups of a micro-batch that packs them as rows; 0 where a group is a
                micro-batch and every item a row.
        """
        self._number, self._num_rows = number, num_rows
        self._items, self._starts, self._sizes = items, starts, sizes

    def __len__(self) -> int:
        return -(-len(self._starts) // max(self._num_rows, 1))

    @overload
    def __getitem__(self, index: int) -> MicroBatch: ...
    @overload
    def __getitem__(self, index: slice) -> list[MicroBatch]: ...
    def __getitem__(self, index: int | slice) -> MicroBatch | list[MicroBatch]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        step = max(self._num_rows, 1)
        group = slice(index * step, (index + 1) * step)
        sizes = tuple(self._sizes[group].tolist())
        starts = self._starts[group].tolist()
        items = [self._items[at : at + n].tolist() for at, n in zip(starts, sizes, strict=True)]
        return MicroBatch(
            items=tuple(item for part in items for item in part),
            epoch=self._number,
            row_sizes=sizes if self._num_rows else (),
        )


class DurationSampler:
    """Groups items of similar length into micro-batches of a bounded number of padded seconds."""

    def __init__(
        self, durations: Sequence[float] | np.ndarray, config: BatchConfig, seed: int
    ) -> None:
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
        self._cached: tuple[int, Sequence[MicroBatch]] = (-1, ())
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

    def micro_batches(self, epoch: int, *, shuffle: bool = True) -> Epoch:
        """Return the micro-batches of one epoch, packed if the config says so.

        Args:
            epoch: Epoch, from 0.
            shuffle: False sorts by length and has no randomness at all (evaluation); not packed.
        """
        config, durations = self._config, self._durations
        rng = np.random.default_rng(derive_seed("order", self._seed, epoch))
        kind = np.int32 if durations.size < 2**31 else np.int64
        if shuffle and config.pack_seconds:
            order = rng.permutation(durations.size).astype(kind)
            items, sizes = pack(durations, order, config)
            starts = np.cumsum(sizes) - sizes
            num_rows = int(config.max_seconds_per_batch // config.pack_seconds)
        else:
            keys = np.maximum(durations, 1e-3)
            np.log(keys, out=keys)
            if shuffle:
                keys += rng.uniform(0.0, config.length_jitter + 1e-9, keys.size)
            items = np.argsort(keys, kind="stable").astype(kind)
            del keys
            starts = self._starts(items)
            sizes = np.diff(starts, append=durations.size)
            num_rows = 0
        if shuffle:
            places = rng.permutation(len(starts))
            starts, sizes = starts[places], sizes[places]
        return Epoch(epoch, items, starts, sizes, num_rows)

    def _starts(self, items: np.ndarray) -> np.ndarray:
        """Where micro-batches begin that take as many of these items, in order, as they hold."""
        limit, max_items = self._config.max_seconds_per_batch, self._config.max_items
        starts: list[int] = []
        count, longest = max_items, 0.0
        # Item by item: an array for each micro-batch takes ten times as long.
        for first in range(0, items.size, BLOCK):
            block = self._durations[items[first : first + BLOCK]].tolist()
            for place, duration in enumerate(block, first):
                count += 1
                if duration > longest:
                    longest = duration
                if count > max_items or count * longest > limit:
                    starts.append(place)
                    count, longest = 1, duration
        return np.array(starts)

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
