"""Draws that depend on where they stand alone."""

from __future__ import annotations

import pytest
import torch

from tokenlm.modules.exact import frame_noise, mix, uniform_draws

UNIFORM = [0.45035102333018784, 0.19925966597677713, 0.495706449395909]
MIXED = 3220344897584144929


def test_uniform_draws_are_fixed() -> None:
    """Literal values: a change of them changes what every seed says."""
    assert uniform_draws(7, 2, 5, 3) == UNIFORM
    assert uniform_draws(7, 2, 5, 2) == UNIFORM[:2]
    assert mix(0) == MIXED and mix(1 << 64) == MIXED


def test_uniform_draws_differ_in_every_argument() -> None:
    draws = {
        uniform_draws(seed, segment, index, 1)[0]
        for seed in (0, 1, -1, 1 << 70)
        for segment in range(4)
        for index in range(64)
    }
    # The seed counts modulo 2^64, so that 1 << 70 is 0.
    assert len(draws) == 3 * 4 * 64
    assert all(0 <= draw < 1 for draw in draws)
    assert abs(sum(draws) / len(draws) - 0.5) < 0.03


@pytest.mark.parametrize("schedule", [[1] * 200, [63, 1, 1, 135], [64, 64, 72], [200]])
def test_noise_in_pieces_is_the_whole(schedule: list[int]) -> None:
    pieces, start = [], 0
    for size in schedule:
        pieces.append(frame_noise(5, start, size, 3))
        start += size
    whole = frame_noise(5, 0, 200, 3)
    assert whole.shape == (200, 3)
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(frame_noise(5, 37, 90, 3), whole[37:127])


def test_noise_is_standard_normal_and_of_its_seed() -> None:
    noise = frame_noise(1, 0, 4000, 8)
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    assert not torch.equal(noise, frame_noise(2, 0, 4000, 8))
    assert not torch.equal(noise[:64], noise[64:128])
    assert frame_noise(1, 9, 0, 8).shape == (0, 8)


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    frame_noise(1, 0, 100, 2)
    assert torch.equal(torch.rand(1), expected)
