"""Scores of speaker embeddings: similarity, nearest of several, equal error rate.

Shapes: n utterances, E embedding channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine between two embeddings (E,)."""
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def nearest(embedding: np.ndarray, candidates: Mapping[str, np.ndarray]) -> str:
    """Name of the candidate (E,) most similar to an embedding (E,); the first of equals."""
    return max(candidates, key=lambda name: similarity(embedding, candidates[name]))


def hardest(
    name: str, embedding: np.ndarray, others: Mapping[str, np.ndarray], num_others: int
) -> list[str]:
    """The `num_others` of `others` that are most similar to `embedding`, most similar first."""
    ranked = sorted(
        (other for other in others if other != name),
        key=lambda other: (-similarity(embedding, others[other]), other),
    )
    return ranked[:num_others]


def pair_scores(embeddings: np.ndarray, speakers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Similarities of all pairs of utterances.

    Args:
        embeddings: (n, E).
        speakers: n names.

    Returns:
        The scores of pairs of the same speaker, and of different ones.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows, columns = np.triu_indices(len(speakers), k=1)
    scores = (unit @ unit.T)[rows, columns]
    names = np.asarray(speakers)
    same = names[rows] == names[columns]
    return scores[same], scores[~same]


def equal_error_rate(same: np.ndarray, different: np.ndarray) -> tuple[float, float]:
    """Where as many pairs of one speaker are rejected as pairs of two are accepted.

    Args:
        same: scores of pairs of the same speaker.
        different: scores of pairs of different speakers.

    Returns:
        The rate (the mean of both where they do not meet), and the threshold.

    Raises:
        ValueError: there are no pairs of one of both kinds.
    """
    if not len(same) or not len(different):
        raise ValueError("an equal error rate needs pairs of one speaker and of different ones.")
    same, different = np.sort(same), np.sort(different)
    thresholds = np.unique(np.concatenate([same, different]))
    rejected = np.searchsorted(same, thresholds, side="left") / len(same)
    accepted = 1.0 - np.searchsorted(different, thresholds, side="left") / len(different)
    best = int(np.argmin(np.abs(rejected - accepted)))
    return float((rejected[best] + accepted[best]) / 2), float(thresholds[best])


def equal_error_interval(
    embeddings: np.ndarray,
    speakers: Sequence[str],
    *,
    seed: int = 0,
    num_resamples: int = 200,
) -> tuple[float, float]:
    """95 % interval of the equal error rate, utterances resampled within each speaker."""
    names = np.asarray(speakers)
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = unit @ unit.T
    generator = np.random.default_rng(seed)
    rows, columns = np.triu_indices(len(names), k=1)
    rates = []
    for _ in range(num_resamples):
        drawn = np.concatenate([generator.choice(group, len(group)) for group in groups])
        first, second = drawn[rows], drawn[columns]
        distinct = first != second
        first, second = first[distinct], second[distinct]
        same = names[first] == names[second]
        picked = scores[first, second]
        if same.any() and not same.all():
            rates.append(equal_error_rate(picked[same], picked[~same])[0])
    if not rates:
        return float("nan"), float("nan")
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)
