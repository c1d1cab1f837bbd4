"""Spectral losses."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses.spectral import magnitude_spectrum, mel_loss, stft_loss

RESOLUTIONS = ((64, 16), (128, 32))


def noise(batch: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(batch, 1024, generator=torch.Generator().manual_seed(0))


def test_equal_signals_have_no_loss() -> None:
    convergence, log_magnitude = stft_loss(noise(), noise(), RESOLUTIONS)
    assert convergence.item() == 0 and log_magnitude.item() == 0
    assert mel_loss(torch.ones(2, 3, 4), torch.ones(2, 3, 4)).item() == 0


def test_double_the_level() -> None:
    """||T - 2 T|| / ||T|| = 1 for each of two items; log magnitudes differ by log 2."""
    convergence, log_magnitude = stft_loss(2 * noise(), noise(), RESOLUTIONS)
    assert convergence.item() == pytest.approx(2.0, rel=1e-3)
    assert log_magnitude.item() == pytest.approx(2 * math.log(2), rel=1e-2)


def test_losses_are_sums_over_items() -> None:
    generated = noise().flip(1)
    whole = stft_loss(generated, noise(), RESOLUTIONS)
    for number in range(2):
        parts = [
            stft_loss(generated[i : i + 1], noise()[i : i + 1], RESOLUTIONS)[number]
            for i in range(2)
        ]
        torch.testing.assert_close(whole[number], parts[0] + parts[1])


def test_silence_is_finite() -> None:
    generated = torch.zeros(1, 1024, requires_grad=True)
    convergence, log_magnitude = stft_loss(generated, torch.zeros(1, 1024), RESOLUTIONS)
    (convergence + log_magnitude).backward()
    assert generated.grad is not None and bool(generated.grad.isfinite().all())
    assert convergence.item() == 0


def test_magnitudes_of_a_cosine() -> None:
    """In bin 8 of 64 the window gives a quarter of its length, in its neighbours an eighth."""
    time = torch.arange(512)
    wave = torch.cos(2 * math.pi * 8 * time / 64)[None]
    middle = magnitude_spectrum(wave, 64, 16)[0, :, 16]
    expected = torch.zeros(33)
    expected[7:10] = torch.tensor([8.0, 16.0, 8.0])
    torch.testing.assert_close(middle, expected, atol=1e-3, rtol=0)


def test_mel_loss_by_hand() -> None:
    generated = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    target = torch.tensor([[[0.0, 0.0]], [[4.0, 0.0]]])
    assert mel_loss(generated, target).item() == pytest.approx(1.5 + 2.0)
