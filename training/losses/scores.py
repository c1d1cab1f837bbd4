"""Error rates of scores that tell two classes apart.

Shapes: N own scores, M other ones.
"""

from __future__ import annotations

import numpy as np


def equal_error(own: np.ndarray, other: np.ndarray) -> float:
    """Where misses and false alarms are equally frequent.

    Args:
        own: scores (N,) that should be high.
        other: scores (M,) that should be low.

    Returns:
        The rate; NaN where either has no scores.
    """
    if not len(own) or not len(other):
        return float("nan")
    thresholds = np.sort(np.concatenate([own, other]))
    misses = np.searchsorted(np.sort(own), thresholds, side="left") / len(own)
    alarms = 1 - np.searchsorted(np.sort(other), thresholds, side="left") / len(other)
    place = int(np.argmin(np.abs(misses - alarms)))
    return float((misses[place] + alarms[place]) / 2)
