from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluation.statistics import (
    bootstrap_interval,
    mean_interval,
    ratio_interval,
    share_interval,
)


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


def test_none_of_a_hundred_is_not_none_at_all() -> None:
    low, high = share_interval(np.zeros(100))
    assert low == 0.0 and high == pytest.approx(0.0370, abs=1e-4)  # Wilson's, by hand
    low, high = share_interval(np.ones(100))
    assert high == 1.0 and low == pytest.approx(0.9630, abs=1e-4)
    low, high = share_interval(np.array([1.0] * 30 + [0.0] * 70))
    assert (low, high) == (pytest.approx(0.2189, abs=1e-4), pytest.approx(0.3958, abs=1e-4))
    with pytest.raises(ValueError, match="there are no utterances"):
        share_interval(np.array([]))


def test_voices_that_differ_count_for_fewer_utterances() -> None:
    values = np.array([1.0] * 25 + [0.0] * 75)
    voices = [name for name in "abcd" for _ in range(25)]
    low, high = share_interval(values, voices)  # all of the failures in one voice
    alone = share_interval(values)
    assert low < alone[0] - 0.05 and high > alone[1] + 0.2
    mixed = [name for _ in range(25) for name in "abcd"]
    even = np.array([value for value in (1.0, 0.0, 0.0, 0.0) for _ in range(25)])
    assert share_interval(even, mixed) == pytest.approx(share_interval(even), abs=0.02)
    wide, narrow = mean_interval(values, voices), mean_interval(values)
    assert wide[0] < narrow[0] and wide[1] > narrow[1] + 0.2
    # One voice alone, or a voice of its own for each, leaves utterances to be drawn.
    assert mean_interval(values, ["a"] * 100) == narrow
    assert mean_interval(values, [str(number) for number in range(100)]) == narrow


def test_ratios_are_drawn_by_voice_too() -> None:
    errors = np.array([5.0] * 10 + [0.0] * 30)
    words = np.full(40, 10.0)
    voices = [name for name in "abcd" for _ in range(10)]
    wide, narrow = ratio_interval(errors, words, voices), ratio_interval(errors, words)
    assert wide[0] == 0.0 and wide[1] > narrow[1]
    assert ratio_interval(errors, words, voices, seed=1) == ratio_interval(
        errors, words, voices, seed=1
    )
