"""Batches: within budget, every item once, a function of (seed, epoch), the same on all ranks."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

from training.config import BatchConfig
from training.data.sampler import DurationSampler, MicroBatch, Position

DURATIONS = np.random.default_rng(0).uniform(0.5, 9.0, 203).tolist()
CONFIG = BatchConfig(max_seconds_per_batch=30.0, max_items=8)


def sampler(seed: int = 0, config: BatchConfig = CONFIG) -> DurationSampler:
    return DurationSampler(DURATIONS, config, seed)


def epoch(number: int, *, shuffle: bool = True, **changes: Any) -> list[tuple[int, ...]]:
    return [part.items for part in sampler(**changes).micro_batches(number, shuffle=shuffle)]


def test_every_item_once_and_within_budget() -> None:
    batches = epoch(3)
    assert sorted(index for batch in batches for index in batch) == list(range(203))
    for batch in batches:
        assert len(batch) <= 8
        assert max(DURATIONS[i] for i in batch) * len(batch) <= 30.0


def test_hand_made_batches_without_shuffling() -> None:
    config = BatchConfig(max_seconds_per_batch=4.0, max_items=3)
    made = DurationSampler([1.0, 3.0, 1.0, 1.5, 0.5], config, 0)
    plan = [part.items for part in made.micro_batches(0, shuffle=False)]
    # By length: 0.5 1.0 1.0 | 1.5 | 3.0, since 2 x 3.0 is over 4 s.
    assert plan == [(4, 0, 2), (3,), (1,)]


def test_deterministic_and_different_between_epochs_and_seeds() -> None:
    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)
    assert epoch(1, seed=0) != epoch(1, seed=1)
    sets = [{frozenset(batch) for batch in epoch(number)} for number in (1, 2)]
    assert sets[0] != sets[1], "jitter should mix the batches, not only their order"


def test_jitter_zero_groups_by_exact_length() -> None:
    config = BatchConfig(max_seconds_per_batch=30.0, max_items=8, length_jitter=0.0)
    for batch in epoch(0, config=config):
        lengths = sorted(DURATIONS[i] for i in batch)
        between = [d for d in DURATIONS if lengths[0] < d < lengths[-1]]
        assert len(between) == max(0, len(batch) - 2)


def items(position: Position, ranks: int, num_steps: int) -> list[tuple[int, ...]]:
    plans = islice(sampler().plans(position, ranks), num_steps)
    return [part.items for plan in plans for part in plan.micro_batches]


def test_order_does_not_depend_on_the_number_of_ranks() -> None:
    assert items(Position(), 1, 120) == items(Position(), 4, 30) == items(Position(), 3, 40)


def test_resume_from_a_position() -> None:
    plans = list(islice(sampler().plans(Position(), 4), 30))
    for step in (0, 7, 14, 15, 29):
        rest = list(islice(sampler().plans(plans[step].after, 4), 29 - step))
        assert rest == plans[step + 1 :]
    assert plans[-1].after.epoch >= 2


def test_first_item_counts_through_the_step() -> None:
    plan = sampler().plan(Position(), 3)
    sizes = [len(part.items) for part in plan.micro_batches]
    assert [part.first_item for part in plan.micro_batches] == [0, sizes[0], sizes[0] + sizes[1]]


def test_step_larger_than_an_epoch() -> None:
    small = DurationSampler([1.0], CONFIG, 0)
    plan = small.plan(Position(), 3)
    assert [part.epoch for part in plan.micro_batches] == [0, 1, 2]
    assert plan.after == Position(epoch=2, index=1)


def test_seconds() -> None:
    made = DurationSampler([1.0, 2.5, 4.0], CONFIG, 0)
    assert made.seconds(MicroBatch(items=(0, 2), epoch=0)) == 5.0


def test_errors() -> None:
    with pytest.raises(ValueError, match="no item"):
        DurationSampler([], CONFIG, 0)
    with pytest.raises(ValueError, match=r"Item 1 has 31\.00 s"):
        DurationSampler([1.0, 31.0], CONFIG, 0)
