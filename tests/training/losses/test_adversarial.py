"""Adversarial losses by hand."""

from __future__ import annotations

import pytest
import torch

from training.losses.adversarial import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    relative_loss,
)

REAL = [torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[[0.5]], [[2.0]]])]
FAKE = [torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[[1.0]], [[0.0]]])]


def test_discriminator_loss() -> None:
    # First: items 0.5 and 0 on real, 0.5 and 2 on fake; second: 0.25 and 1, 1 and 0.
    assert discriminator_loss(REAL, FAKE).item() == pytest.approx((3.0 + 2.25) / 2)
    perfect = [torch.ones(2, 3)], [torch.zeros(2, 3)]
    assert discriminator_loss(*perfect).item() == 0


def test_generator_loss() -> None:
    # First: items 0.5 and 1; second: 0 and 1.
    assert generator_loss(FAKE).item() == pytest.approx((1.5 + 1.0) / 2)
    assert generator_loss([torch.ones(4, 2)]).item() == 0


def test_feature_matching_loss() -> None:
    real = [[torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0]])], [torch.tensor([[0.0]])]]
    fake = [[torch.tensor([[2.0, 4.0]]), torch.tensor([[1.0]])], [torch.tensor([[5.0]])]]
    # First discriminator: layers 1.5 and 3; second: 5.
    assert feature_matching_loss(real, fake).item() == pytest.approx((2.25 + 5.0) / 2)
    assert feature_matching_loss(real, real).item() == 0


def test_relative_loss() -> None:
    higher = [torch.tensor([[5.0, 3.0, 3.5], [1.0, 2.0, 3.0]])]
    lower = [torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 2.0]])]
    # Differences 4, 1 and 0.5 with the median 1: 0.5 lies 0.5 below. The others are all alike.
    assert relative_loss(higher, lower, 9.0).item() == pytest.approx(0.25)
    assert relative_loss(higher, lower, 0.04).item() == pytest.approx(0.04)
    # Of lower and higher exchanged the one of -4 lies 3 below.
    assert relative_loss(lower, higher, 99.0).item() == pytest.approx(9.0)
    twice = [[score[0], score[0]] for score in (higher, lower)]
    assert relative_loss(*twice, 9.0).item() == pytest.approx(0.25)


def test_features_of_real_speech_get_no_gradient() -> None:
    real = torch.zeros(1, 3, requires_grad=True)
    fake = torch.ones(1, 3, requires_grad=True)
    feature_matching_loss([[real]], [[fake]]).backward()
    assert real.grad is None and fake.grad is not None


def test_losses_are_sums_over_items() -> None:
    doubled = [torch.cat([score, score]) for score in FAKE]
    assert generator_loss(doubled).item() == pytest.approx(2 * generator_loss(FAKE).item())
