"""Figures with confidence intervals, and the comparison of two systems on the same items.

Intervals are percentile bootstraps over utterances (Efron, 1979). In a comparison, items are the
unit: several seeds of one item are averaged first, as they are not independent.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokenlm.report import bootstrap_interval

NUM_FLIPS = 10_000


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


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the report."""

    section: str
    """What was measured, one of `SECTIONS`."""
    group: str
    """Test set, such as `heldout` or `unheard`."""
    name: str
    """Metric, such as `word_error_rate`."""
    value: float
    """The figure; NaN where there is nothing to divide by."""
    low: float | None = None
    """Lower end of the 95 % interval, where there is one."""
    high: float | None = None
    """Upper end."""
    num_items: int
    """Utterances that it was measured on."""
    note: str = ""
    """How it is to be read."""

    @property
    def key(self) -> str:
        """Name within a whole report."""
        return f"{self.group}/{self.section}/{self.name}"

    def row(self) -> dict[str, Any]:
        """The figure as plain data; what is not a number becomes null."""
        row = asdict(self)
        for name in ("value", "low", "high"):
            if row[name] is not None and not math.isfinite(row[name]):
                row[name] = None
        return row


def mean_figure(
    section: str, group: str, name: str, values: list[float], *, seed: int = 0, note: str = ""
) -> Figure:
    """The mean of one value per utterance, with its interval."""
    array = np.array(values, dtype=float)
    low, high = mean_interval(array, seed=seed)
    return Figure(
        section=section,
        group=group,
        name=name,
        value=float(array.mean()),
        low=low,
        high=high,
        num_items=len(values),
        note=note,
    )


def ratio_figure(
    section: str,
    group: str,
    name: str,
    numerators: list[float],
    denominators: list[float],
    *,
    seed: int = 0,
    note: str = "",
) -> Figure:
    """The sum of one value per utterance over that of another, with its interval."""
    above, below = np.array(numerators, dtype=float), np.array(denominators, dtype=float)
    low, high = ratio_interval(above, below, seed=seed)
    return Figure(
        section=section,
        group=group,
        name=name,
        value=float(above.sum() / below.sum()) if below.sum() else float("nan"),
        low=low,
        high=high,
        num_items=len(numerators),
        note=note,
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A metric of two systems, on the items that both have."""

    name: str
    first: float
    second: float
    low: float
    """Lower end of the 95 % interval of `second - first`."""
    high: float
    """Upper end."""
    p_value: float
    """Of the sign-flip test: how often chance alone makes as large a difference."""
    num_items: int

    @property
    def difference(self) -> float:
        """Of the second to the first."""
        return self.second - self.first

    @property
    def ratio(self) -> float:
        """Of the second to the first; NaN where the first is 0."""
        return self.second / self.first if self.first else float("nan")

    @property
    def is_significant(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.low > 0 or self.high < 0


def compare_means(name: str, first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> Comparison:
    """Compare the means of values (n,) of two systems on the same n items.

    Raises:
        ValueError: they are not of the same items, or of none.
    """
    _require_pairs(name, first, second)
    difference = second - first
    low, high = bootstrap_interval(
        len(difference), lambda drawn: float(difference[drawn].mean()), seed=seed
    )
    return Comparison(
        name=name,
        first=float(first.mean()),
        second=float(second.mean()),
        low=low,
        high=high,
        p_value=sign_flip_p_value(difference, seed=seed),
        num_items=len(difference),
    )


def compare_ratios(
    name: str, first: np.ndarray, second: np.ndarray, sizes: np.ndarray, *, seed: int = 0
) -> Comparison:
    """Compare sums of values (n,) over the sum of `sizes` (n,), such as corpus error rates.

    Raises:
        ValueError: they are not of the same items, or of none.
    """
    _require_pairs(name, first, second, sizes)
    difference = second - first

    def statistic(drawn: np.ndarray) -> float:
        return float(difference[drawn].sum() / sizes[drawn].sum())

    low, high = bootstrap_interval(len(sizes), statistic, seed=seed)
    return Comparison(
        name=name,
        first=float(first.sum() / sizes.sum()),
        second=float(second.sum() / sizes.sum()),
        low=low,
        high=high,
        p_value=sign_flip_p_value(difference, seed=seed),
        num_items=len(sizes),
    )


def sign_flip_p_value(
    differences: np.ndarray, *, seed: int = 0, num_flips: int = NUM_FLIPS
) -> float:
    """Two-sided p-value that paired differences (n,) are centred on 0.

    If the two systems are alike, each difference might as well have the other sign (Fisher's
    randomisation test). All sign patterns are tried where they are few, else random ones.
    """
    nonzero = differences[differences != 0]
    if nonzero.size == 0:
        return 1.0
    observed = abs(nonzero.sum()) - 1e-12
    if 2**nonzero.size <= num_flips:
        patterns = np.arange(2**nonzero.size)[:, None] >> np.arange(nonzero.size)
        sums = ((patterns & 1) * 2 - 1) @ nonzero
        return float((np.abs(sums) >= observed).mean())
    generator = np.random.default_rng(seed)
    hits = 0
    for start in range(0, num_flips, 1000):
        signs = generator.integers(0, 2, size=(min(1000, num_flips - start), nonzero.size)) * 2 - 1
        hits += int((np.abs(signs @ nonzero) >= observed).sum())
    # The observed pattern is one of those that chance may give.
    return (hits + 1) / (num_flips + 1)


def _require_pairs(name: str, *values: np.ndarray) -> None:
    shapes = [array.shape for array in values]
    if len(set(shapes)) > 1 or not values[0].size:
        sizes = ", ".join(str(array.size) for array in values)
        raise ValueError(f"{name}: values of the same items are needed, at least one; got {sizes}.")
