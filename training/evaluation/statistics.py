"""Figures with confidence intervals, and the comparison of two systems on the same items.

Intervals of means and ratios are percentile bootstraps (Efron, 1979). Utterances in one voice are
not independent, so where the voices are known, these are drawn first, and utterances within each
that was drawn (Davison and Hinkley, 1997, section 3.8). Intervals of shares are Wilson's (1927),
which say something of a share of 0, too, with as many utterances as the spread between voices
leaves (Korn and Graubard, 1998). In a comparison, items are the unit: several seeds of one item are
averaged first, as they are not independent. Where many metrics are compared, their p-values are
corrected by Holm's method (1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tokenlm.report import CONFIDENCE, NUM_RESAMPLES, bootstrap_interval

NUM_FLIPS = 10_000
MAX_P_VALUE = 0.05
"""Corrected p-value up to which a difference counts as significant."""
_WILSON_Z = 1.959964
"""Of the normal distribution, for an interval of 95 %."""


def resampled_interval(
    num_items: int,
    statistic: Callable[[np.ndarray], float],
    voices: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of a statistic over resampled utterances, or voices and utterances within them.

    Args:
        num_items: utterances.
        statistic: see `bootstrap_interval`.
        voices: of the utterances; None, or a single voice, or one of its own for each, draws
            utterances alone.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: there are no utterances.
    """
    names, own = np.unique(np.array(voices or []), return_inverse=True)
    if not 1 < len(names) < num_items:
        return bootstrap_interval(num_items, statistic, seed=seed)
    places = [np.flatnonzero(own == number) for number in range(len(names))]
    generator = np.random.default_rng(seed)
    values = np.empty(NUM_RESAMPLES)
    for resample in range(NUM_RESAMPLES):
        drawn = [places[number] for number in generator.integers(len(places), size=len(places))]
        indices = [place[generator.integers(len(place), size=len(place))] for place in drawn]
        values[resample] = statistic(np.concatenate(indices))
    values = values[np.isfinite(values)]
    if values.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def share_interval(values: np.ndarray, voices: Sequence[str] | None = None) -> tuple[float, float]:
    """Wilson's interval of a share: the mean of values (n,) from 0 to 1, one for each utterance.

    Args:
        values: 0 or 1, or a mean of several seeds.
        voices: of the utterances. Where shares differ more between voices than chance makes them,
            the utterances count for fewer.

    Raises:
        ValueError: there are no utterances.
    """
    if not len(values):
        raise ValueError("there are no utterances, so there is no interval of what they show.")
    share, size = float(values.mean()), float(len(values))
    names, own = np.unique(np.array(voices or []), return_inverse=True)
    if 0 < share < 1 and 1 < len(names) < len(values):
        sums = np.bincount(own, values - share)
        variance = len(names) / (len(names) - 1) * float(sums @ sums) / size**2
        size = min(size, max(share * (1 - share) / max(variance, 1e-12), 1.0))
    square = _WILSON_Z**2 / size
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return max(middle - half, 0.0) if share else 0.0, min(middle + half, 1.0) if share < 1 else 1.0


def mean_interval(
    values: np.ndarray, voices: Sequence[str] | None = None, *, seed: int = 0
) -> tuple[float, float]:
    """Interval of the mean of values (n,); for `voices` see `resampled_interval`."""

    def mean(indices: np.ndarray) -> float:
        return float(values[indices].mean())

    return resampled_interval(len(values), mean, voices, seed=seed)


def ratio_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    voices: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the sum of `numerators` (n,) over that of `denominators` (n,), drawn in pairs."""

    def ratio(indices: np.ndarray) -> float:
        total = float(denominators[indices].sum())
        return float(numerators[indices].sum()) / total if total else float("nan")

    return resampled_interval(len(numerators), ratio, voices, seed=seed)


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
    original: float | None = None
    """The same of the recordings of the same sentences, by the teacher, engine or person."""
    note: str = ""
    """How it is to be read."""

    @property
    def key(self) -> str:
        """Name within a whole report."""
        return f"{self.group}/{self.section}/{self.name}"

    def row(self) -> dict[str, Any]:
        """The figure as plain data; what is not a number becomes null."""
        row = asdict(self)
        for name in ("value", "low", "high", "original"):
            if row[name] is not None and not math.isfinite(row[name]):
                row[name] = None
        return row


def mean_figure(
    section: str,
    group: str,
    name: str,
    values: list[float],
    voices: Sequence[str] | None = None,
    *,
    seed: int = 0,
    note: str = "",
) -> Figure:
    """The mean of one value per utterance, with its interval; see `resampled_interval`."""
    array = np.array(values, dtype=float)
    interval = mean_interval(array, voices, seed=seed)
    return _mean_of(section, group, name, array, interval, note)


def share_figure(
    section: str,
    group: str,
    name: str,
    values: list[float],
    voices: Sequence[str] | None = None,
    *,
    note: str = "",
) -> Figure:
    """The share of utterances for which something holds (1, else 0), with `share_interval`."""
    array = np.array(values, dtype=float)
    return _mean_of(section, group, name, array, share_interval(array, voices), note)


def _mean_of(
    section: str,
    group: str,
    name: str,
    values: np.ndarray,
    interval: tuple[float, float],
    note: str,
) -> Figure:
    low, high = interval
    return Figure(
        section=section,
        group=group,
        name=name,
        value=float(values.mean()),
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
    voices: Sequence[str] | None = None,
    *,
    seed: int = 0,
    note: str = "",
) -> Figure:
    """The sum of one value per utterance over that of another, with its interval."""
    above, below = np.array(numerators, dtype=float), np.array(denominators, dtype=float)
    low, high = ratio_interval(above, below, voices, seed=seed)
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


def beside(figures: Sequence[Figure], originals: Sequence[Figure]) -> list[Figure]:
    """Figures with those of the same names, of the recordings, as their `original`."""
    values = {figure.name: figure.value for figure in originals}
    return [replace(figure, original=values.get(figure.name)) for figure in figures]


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
    holm_p_value: float | None = None
    """The same, corrected for the number of metrics that are compared; see `correct_p_values`."""

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
        """Whether chance alone seldom makes as large a difference, correction included."""
        p_value = self.p_value if self.holm_p_value is None else self.holm_p_value
        return p_value <= MAX_P_VALUE


def correct_p_values(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values of a family of comparisons by Holm's step-down method.

    Of m comparisons the smallest p-value is multiplied by m, the next by m - 1, and so on, and none
    is left below one before it: the chance that any of those that are equal seems to differ stays
    at `MAX_P_VALUE`, whether they depend on one another or not.
    """
    corrected, largest = list(comparisons), 0.0
    ranked = sorted(range(len(corrected)), key=lambda place: corrected[place].p_value)
    for rank, place in enumerate(ranked):
        largest = max(largest, (len(corrected) - rank) * corrected[place].p_value)
        corrected[place] = replace(corrected[place], holm_p_value=min(largest, 1.0))
    return corrected


def compare_means(
    name: str,
    first: np.ndarray,
    second: np.ndarray,
    voices: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Comparison:
    """Compare the means of values (n,) of two systems on the same n items.

    Args:
        name: of the metric.
        first: of the one system.
        second: of the other.
        voices: of the items, for the interval; see `resampled_interval`.
        seed: of interval and p-value.

    Raises:
        ValueError: they are not of the same items, or of none.
    """
    _require_pairs(name, first, second)
    difference = second - first
    low, high = mean_interval(difference, voices, seed=seed)
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
    name: str,
    first: np.ndarray,
    second: np.ndarray,
    sizes: np.ndarray,
    voices: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Comparison:
    """Compare sums of values (n,) over the sum of `sizes` (n,), such as corpus error rates.

    See `compare_means`.

    Raises:
        ValueError: they are not of the same items, or of none.
    """
    _require_pairs(name, first, second, sizes)
    difference = second - first
    low, high = ratio_interval(difference, sizes, voices, seed=seed)
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
