"""Sampling against tables made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokenlm.models.lm.decoding import SamplingConfig, draw, sample, truncate

PLAIN = SamplingConfig(top_k=0, top_p=1.0, repetition_window=0)


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities]).log()


@pytest.mark.parametrize(
    ("top_k", "top_p", "expected"),
    [
        (0, 1.0, [0.15, 0.5, 0.05, 0.3]),
        (0, 0.79, [0.0, 0.625, 0.0, 0.375]),  # 0.5 < 0.79: the one that crosses it is kept
        (0, 0.49, [0.0, 1.0, 0.0, 0.0]),
        (0, 0.81, [0.15 / 0.95, 0.5 / 0.95, 0.0, 0.3 / 0.95]),
        (1, 1.0, [0.0, 1.0, 0.0, 0.0]),
        (3, 1.0, [0.15 / 0.95, 0.5 / 0.95, 0.0, 0.3 / 0.95]),
        (2, 0.96, [0.0, 0.625, 0.0, 0.375]),
        (9, 1e-9, [0.0, 1.0, 0.0, 0.0]),
    ],
)
def test_truncate(top_k: int, top_p: float, expected: list[float]) -> None:
    config = SamplingConfig(top_k=top_k, top_p=top_p)
    found = truncate(logits_of(0.15, 0.5, 0.05, 0.3), config)
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_truncate_keeps_exactly_k_of_equals() -> None:
    found = truncate(torch.zeros(1, 5), SamplingConfig(top_k=2, top_p=1.0))
    assert found.tolist() == [[0.5, 0.5, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("uniform", "expected"),
    [(0.0, 0), (0.19, 0), (0.21, 2), (0.69, 2), (0.71, 3), (0.9999999, 3)],
)
def test_draw(uniform: float, expected: int) -> None:
    probabilities = torch.tensor([[0.2, 0.0, 0.5, 0.3, 0.0]])
    assert draw(probabilities, torch.tensor([uniform])).tolist() == [expected]


def test_draw_never_gives_what_has_no_probability() -> None:
    probabilities = torch.tensor([[0.0, 1.0, 0.0]]).expand(3, -1)
    assert draw(probabilities, torch.tensor([0.0, 0.5, 1.0])).tolist() == [1, 1, 1]


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([[0.1, 0.6, 0.3]]).expand(1000, -1)
    counts = draw(probabilities, torch.arange(1000) / 1000 + 5e-4).bincount()
    assert counts.tolist() == [100, 600, 300]


def choose(logits: Tensor, history: list[int], uniforms: list[float], **options: object) -> int:
    config = SamplingConfig(**{"top_k": 0, "top_p": 1.0, **options})
    rows = torch.tensor([history], dtype=torch.long).view(1, -1)
    return int(sample(logits, rows, torch.tensor([uniforms]), config))


def test_repeated_token_is_replaced_by_a_draw_without_it() -> None:
    logits = logits_of(0.6, 0.3, 0.1)
    options = {"repetition_window": 4, "repetition_threshold": 0.5}
    assert choose(logits, [0, 1, 1, 1], [0.1, 0.1], **options) == 0  # once in 4 is not often
    # Twice in 4 is: what is left is 0.75 and 0.25.
    assert choose(logits, [0, 1, 0, 1], [0.1, 0.1], **options) == 1
    assert choose(logits, [0, 1, 0, 1], [0.1, 0.8], **options) == 2
    # Older tokens than the window do not count, nor do empty places.
    assert choose(logits, [0, 0, 0, -1, -1, 0, 1], [0.1, 0.1], **options) == 0
    assert choose(logits, [0, 1, 0, 1], [0.7, 0.1], repetition_window=0) == 1


def test_second_draw_is_from_the_whole_distribution() -> None:
    """Also from what top-k cut off."""
    logits = logits_of(0.6, 0.3, 0.1)
    options = {"top_k": 1, "repetition_window": 2, "repetition_threshold": 0.1}
    assert choose(logits, [1, 0], [0.5, 0.9], **options) == 2
    assert choose(logits, [1, 2], [0.5, 0.9], **options) == 0


def test_threshold_of_nothing_still_needs_one_repetition() -> None:
    options = {"repetition_window": 4, "repetition_threshold": 0.0}
    assert choose(logits_of(0.6, 0.4), [1, 1, 1, 1], [0.1, 0.9], **options) == 0


def test_forbidden_classes_are_never_drawn() -> None:
    logits = logits_of(0.6, 0.3, 0.1)
    forbidden = torch.tensor([[True, False, False]])
    empty = torch.zeros(1, 0, dtype=torch.long)
    for uniform, expected in ((0.0, 1), (0.74, 1), (0.76, 2)):
        draws = torch.tensor([[uniform, 0.0]])
        assert int(sample(logits, empty, draws, PLAIN, forbidden=forbidden)) == expected
    greedy = SamplingConfig(temperature=0.0)
    assert int(sample(logits, empty, torch.zeros(1, 2), greedy, forbidden=forbidden)) == 1
    # The second draw does not give them either; a class that is alone is repeated.
    often = torch.tensor([[1, 1, 1, 1]])
    again = SamplingConfig(top_k=0, top_p=1.0, repetition_window=4)
    for uniform in (0.0, 0.5, 0.99):
        draws = torch.tensor([[0.1, uniform]])
        assert int(sample(logits, often, draws, again, forbidden=forbidden)) == 2
        alone = torch.tensor([[True, False, True]])
        assert int(sample(logits, often, draws, again, forbidden=alone)) == 1


def test_temperature() -> None:
    logits = logits_of(0.8, 0.2)
    assert choose(logits, [], [0.7, 0.0]) == 0
    # At 0.5 the odds are squared (16 : 1), at 2 their root (2 : 1).
    assert choose(logits, [], [0.93, 0.0], temperature=0.5) == 0
    assert choose(logits, [], [0.95, 0.0], temperature=0.5) == 1
    assert choose(logits, [], [0.68, 0.0], temperature=2.0) == 1
    assert choose(logits, [0] * 10, [0.99, 0.0], temperature=0.0) == 0


def test_rows_are_independent() -> None:
    torch.manual_seed(0)
    logits, uniforms = torch.randn(5, 9), torch.rand(5, 2)
    history = torch.randint(-1, 9, (5, 6))
    config = SamplingConfig(top_k=4, top_p=0.9, repetition_window=6, repetition_threshold=0.2)
    together = sample(logits, history, uniforms, config)
    for row in range(5):
        rows = slice(row, row + 1)
        assert torch.equal(
            together[rows], sample(logits[rows], history[rows], uniforms[rows], config)
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": -1.0}, "temperature must not be negative"),
        ({"top_k": -1}, "top_k must not be negative"),
        ({"top_p": 0.0}, "top_p must be in"),
        ({"top_p": 1.1}, "top_p must be in"),
        ({"repetition_window": -1}, "repetition_window must not be negative"),
        ({"repetition_threshold": 2.0}, "its threshold in"),
    ],
)
def test_impossible_settings(change: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplingConfig(**change)
