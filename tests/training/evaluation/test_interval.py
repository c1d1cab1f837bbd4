from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluation.statistics import bootstrap_interval, mean_interval, ratio_interval


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.9, 0.3])
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_equal_values_leave_no_doubt() -> None:
    assert mean_interval(np.full(7, 0.25)) == (0.25, 0.25)


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = mean_interval(values)
    error = values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.02)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.02)


def test_a_ratio_is_drawn_in_pairs() -> None:
    # Every utterance has twice the errors of its original: whatever is drawn, the ratio is two.
    original = np.array([1.0, 3.0, 0.0, 5.0])
    assert ratio_interval(2 * original, original) == (2.0, 2.0)


def test_draws_without_a_denominator_are_left_out() -> None:
    assert ratio_interval(np.array([1.0, 1.0]), np.array([0.0, 1.0])) == (1.0, 2.0)
    low, high = ratio_interval(np.array([1.0]), np.array([0.0]))
    assert math.isnan(low) and math.isnan(high)


def test_the_statistic_sees_as_many_utterances_as_there_are() -> None:
    sizes = set()

    def statistic(indices: np.ndarray) -> float:
        sizes.add(len(indices))
        return 1.0

    assert bootstrap_interval(6, statistic, num_resamples=10) == (1.0, 1.0)
    assert sizes == {6}


def test_of_nothing_there_is_no_interval() -> None:
    with pytest.raises(ValueError, match="there are no utterances"):
        mean_interval(np.array([]))
