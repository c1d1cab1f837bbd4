"""Losses of flow matching."""

from __future__ import annotations

import pytest
import torch

from training.losses.flow import envelope_loss, velocity_loss


def test_only_valid_frames_count() -> None:
    predicted = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [9.0, 9.0]]])
    velocity = torch.zeros(2, 2, 2)
    mask = torch.tensor([[True, True], [True, False]])
    assert velocity_loss(predicted, velocity, mask).item() == 1 + 4 + 9
    assert velocity_loss(velocity, velocity, mask).item() == 0
    assert velocity_loss(predicted, velocity, ~mask).item() == 162


def test_half_precision_is_summed_in_full() -> None:
    predicted = torch.full((1, 1000, 80), 2.0, dtype=torch.bfloat16)
    loss = velocity_loss(predicted, torch.zeros(1, 1000, 80), torch.ones(1, 1000, dtype=torch.bool))
    assert loss.dtype == torch.float32 and loss.item() == 320_000


def test_envelope_is_what_neighbouring_bins_share() -> None:
    """By hand: averages of three bins, of two at the ends, and their change over time."""
    error = torch.tensor([[[3.0, 0.0, 0.0, 6.0], [3.0, 0.0, 0.0, 6.0], [0.0, 0.0, 0.0, 0.0]]])
    mask = torch.tensor([[True, True, True]])
    smooth = 1.5**2 + 1**2 + 2**2 + 3**2
    loss = envelope_loss(error, torch.zeros(1, 3, 4), mask, 3)
    assert loss.item() == 2 * smooth + smooth
    # Two frames that count do not change; what lies behind them is not looked at.
    mask = torch.tensor([[True, True, False]])
    assert envelope_loss(error, torch.zeros(1, 3, 4), mask, 3).item() == 2 * smooth
    assert envelope_loss(error, error, mask, 3).item() == 0


def test_harmonics_count_less_than_the_envelope() -> None:
    """Two errors of one power: one that alternates from bin to bin, and one that does not."""
    mask = torch.ones(1, 50, dtype=torch.bool)
    even = torch.ones(1, 50, 80)
    ripple = even * torch.tensor([1.0, -1.0]).repeat(40)
    right = torch.zeros(1, 50, 80)
    assert velocity_loss(even, right, mask) == velocity_loss(ripple, right, mask)
    assert envelope_loss(even, right, mask, 9) > 20 * envelope_loss(ripple, right, mask, 9)


def test_changing_error_counts_more_than_a_steady_one() -> None:
    mask = torch.ones(1, 50, dtype=torch.bool)
    steady = torch.ones(1, 50, 80)
    changing = steady * torch.tensor([1.0, -1.0]).repeat(25)[:, None]
    right = torch.zeros(1, 50, 80)
    losses = [envelope_loss(error, right, mask, 9).item() for error in (steady, changing)]
    assert losses == pytest.approx([4000, 4000 + 4 * 49 * 80])


def test_envelope_has_a_gradient_where_it_counts() -> None:
    predicted = torch.randn(1, 6, 8, dtype=torch.float64, requires_grad=True)
    right = torch.randn(1, 6, 8, dtype=torch.float64)
    mask = torch.arange(6)[None] < 4
    envelope_loss(predicted, right, mask, 3).backward()
    assert predicted.grad is not None
    assert bool((predicted.grad[:, :4] != 0).all()) and not bool(predicted.grad[:, 4:].any())
