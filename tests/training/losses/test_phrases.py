"""Losses of phrases and palettes, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses.palettes import initial_palette, range_penalty, soft_palette
from training.losses.phrases import branch_loss


def test_branch_takes_the_maximum_of_one_unit_and_the_sum_of_the_other() -> None:
    said = torch.tensor([0.1, 0.8, 0.5])
    log_probs = torch.stack([said.log(), (1 - said).log()], dim=-1)[None, :, None]
    mask = torch.tensor([[True, True, False]])
    own = branch_loss(log_probs, torch.tensor([[True]]), mask)
    assert own.item() == pytest.approx(-math.log(0.8))
    other = branch_loss(log_probs, torch.tensor([[False]]), mask)
    assert other.item() == pytest.approx(-math.log(0.9) - math.log(0.2))


def test_soft_palette_becomes_k_means() -> None:
    weights = torch.tensor([0.0, 0.2, 1.0, 1.2], requires_grad=True)
    palette = initial_palette(weights, 1)
    soft, values = soft_palette(weights, palette, temperature=1e-3)
    assert torch.allclose(values, torch.tensor([0.1, 1.1]), atol=1e-4)
    assert torch.allclose(soft, torch.tensor([0.1, 0.1, 1.1, 1.1]), atol=1e-4)
    soft[0].backward()  # the first value is the mean of the first two weights
    assert weights.grad is not None
    assert torch.allclose(weights.grad, torch.tensor([0.5, 0.5, 0.0, 0.0]), atol=1e-3)


def test_range_is_the_sum_of_the_largest_magnitudes() -> None:
    weights = {"a": torch.tensor([0.5, -2.0]), "b": torch.tensor([[1.0, 0.0]])}
    assert range_penalty(weights).item() == 3.0
