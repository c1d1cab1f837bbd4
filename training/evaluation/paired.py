"""Two systems on the same items: the difference, its interval, and how likely chance is.

Items are the unit: several seeds of one item are averaged first, as they are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.evaluation.interval import bootstrap_interval

NUM_FLIPS = 10_000


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
