"""Losses of speech enhancement, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses.enhancement import compressed_spectral_loss, si_sdr


def test_si_sdr_by_hand() -> None:
    target = torch.tensor([[1.0, -1.0, 1.0, -1.0]]).repeat(1, 100)
    other = torch.tensor([[1.0, 1.0, -1.0, -1.0]]).repeat(1, 100)  # at right angles to it
    found = si_sdr(3.0 * target + 0.3 * other + 0.7, target)  # a mean and a scale do not count
    assert float(found) == pytest.approx(20.0, abs=1e-3)


def test_spectral_loss_by_hand() -> None:
    target = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    same = compressed_spectral_loss(target, target, 512, 128)
    assert [float(part) for part in same] == [0.0, 0.0]
    # A sign is nothing to magnitudes; values then differ by twice their size.
    magnitude, values = compressed_spectral_loss(-target, target, 512, 128)
    assert float(magnitude) == pytest.approx(0.0, abs=1e-9) and float(values) > 0.1
    # What is twice as loud is 2 ** 0.3 times as large.
    louder, _ = compressed_spectral_loss(2 * target, target, 512, 128)
    silent, _ = compressed_spectral_loss(torch.zeros_like(target), target, 512, 128)
    assert float(louder / silent) == pytest.approx((2**0.3 - 1) ** 2, rel=0.1)


def test_soft_recordings_count_as_much() -> None:
    generator = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, 1, 4000, generator=generator).unbind(0)
    loud, soft = (
        compressed_spectral_loss(gain * (target + noise), gain * target, 512, 128)
        for gain in (0.5, 0.005)
    )
    for one, other in zip(loud, soft, strict=True):
        assert math.isclose(float(one), float(other), rel_tol=1e-3)
