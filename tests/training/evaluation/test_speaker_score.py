from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.cloning import hardest, nearest
from training.evaluation.components import (
    equal_error_interval,
    equal_error_rate,
    pair_scores,
)
from training.evaluation.suite import similarity

VOICES = {
    "east": np.array([1.0, 0.0]),
    "north": np.array([0.0, 1.0]),
    "north-east": np.array([1.0, 1.0]),
}


def test_similarity_is_the_cosine() -> None:
    assert similarity(np.array([3.0, 4.0]), np.array([1.0, 0.0])) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("embedding", "expected"),
    [([2.0, 0.1], "east"), ([0.1, 5.0], "north"), ([3.0, 2.0], "north-east")],
)
def test_the_nearest_voice_is_found(embedding: list[float], expected: str) -> None:
    assert nearest(np.array(embedding), VOICES) == expected


def test_the_hardest_candidates_are_the_most_similar_ones() -> None:
    assert hardest("east", VOICES["east"], VOICES, 2) == ["north-east", "north"]
    assert hardest("new", np.array([0.2, 1.0]), VOICES, 1) == ["north"]


def test_pairs_are_split_by_speaker() -> None:
    embeddings = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    same, different = pair_scores(embeddings, ["a", "b", "a"])
    assert same.tolist() == [1.0]
    assert different.tolist() == [0.0, 0.0]


def test_separate_scores_have_no_errors() -> None:
    assert equal_error_rate(np.array([0.8, 0.9]), np.array([0.1, 0.7]))[0] == 0.0


def test_one_wrong_in_four_of_both_kinds() -> None:
    same = np.array([0.9, 0.8, 0.7, 0.3])
    different = np.array([0.1, 0.2, 0.25, 0.75])
    rate, threshold = equal_error_rate(same, different)
    assert rate == pytest.approx(0.25)
    assert 0.3 < threshold <= 0.7


def test_pairs_of_both_kinds_are_needed() -> None:
    with pytest.raises(ValueError, match="different ones"):
        equal_error_rate(np.array([0.5]), np.array([]))


def test_the_interval_of_the_rate_holds_it_and_repeats() -> None:
    generator = np.random.default_rng(0)
    speakers = [name for name in "abcd" for _ in range(8)]
    centres = {name: generator.normal(size=8) for name in "abcd"}
    embeddings = np.stack([centres[name] + generator.normal(size=8) for name in speakers])
    rate = equal_error_rate(*pair_scores(embeddings, speakers))[0]
    low, high = equal_error_interval(embeddings, speakers, num_resamples=50)
    assert low <= rate <= high
    assert (low, high) == equal_error_interval(embeddings, speakers, num_resamples=50)
