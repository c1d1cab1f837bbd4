"""Confidence intervals by resampling utterances (the percentile bootstrap of Efron, 1979)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


def bootstrap_interval(
    num_items: int,
    statistic: Callable[[np.ndarray], float],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[float, float]:
    """Give the interval that holds 95 % of a statistic over resampled utterances.

    Args:
        num_items: how many utterances there are.
        statistic: takes the indices (num_items,) of drawn utterances, with repetitions. A draw for
            which it is not finite (a ratio to no errors at all) is left out.
        seed: the same seed gives the same interval.
        num_resamples: how often utterances are drawn.

    Returns:
        Lower and upper end; twice NaN where no draw gave a number.

    Raises:
        ValueError: there are no utterances.
    """
    if num_items < 1:
        raise ValueError("there are no utterances, so there is no interval of what they show.")
    generator = np.random.default_rng(seed)
    drawn = generator.integers(num_items, size=(num_resamples, num_items))
    values = np.array([statistic(indices) for indices in drawn])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def mean_interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Interval of the mean of values (n,)."""
    return bootstrap_interval(len(values), lambda indices: float(values[indices].mean()), seed=seed)


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, *, seed: int = 0
) -> tuple[float, float]:
    """Interval of the sum of `numerators` (n,) over that of `denominators` (n,), drawn in pairs."""

    def ratio(indices: np.ndarray) -> float:
        total = float(denominators[indices].sum())
        return float(numerators[indices].sum()) / total if total else float("nan")

    return bootstrap_interval(len(numerators), ratio, seed=seed)
