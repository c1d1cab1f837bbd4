"""A measured figure, with its interval and what it was measured on."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.evaluation.interval import mean_interval, ratio_interval


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
