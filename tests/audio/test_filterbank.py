"""Filterbanks against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenlm.audio.filterbank import MelScale, hertz_to_mel, mel_filterbank, mel_to_hertz


def test_slaney_scale_by_hand() -> None:
    # 3 mel per 200 Hz up to 1 kHz (15 mel), 27 mel per factor of 6.4 above.
    mel = hertz_to_mel(np.array([0.0, 200.0, 1000.0, 6400.0]), "slaney")
    np.testing.assert_allclose(mel, [0.0, 3.0, 15.0, 42.0], atol=1e-12)


def test_htk_scale_by_hand() -> None:
    mel = hertz_to_mel(np.array([0.0, 700.0]), "htk")
    np.testing.assert_allclose(mel, [0.0, 1127.0 * np.log(2.0)], atol=1e-12)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_scales_invert(scale: MelScale) -> None:
    hertz = np.linspace(0.0, 12000.0, 97)
    np.testing.assert_allclose(mel_to_hertz(hertz_to_mel(hertz, scale), scale), hertz, atol=1e-8)


def test_small_bank_by_hand() -> None:
    # Below 1 kHz Slaney's scale is linear: two filters from 0 to 900 Hz have their corners at
    # 0, 300, 600, 900 Hz; the bins lie at 0, 150, ..., 1200 Hz.
    filters = mel_filterbank(2400, 16, 2, 0.0, 900.0, unit_area=False)
    half = [0, 0.5, 1, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0.5, 1, 0.5, 0, 0, 0]
    torch.testing.assert_close(filters, torch.tensor(half))
    areas = mel_filterbank(2400, 16, 2, 0.0, 900.0)
    torch.testing.assert_close(areas, torch.tensor(half) * 2 / 600)


def test_sides_straight_in_mel() -> None:
    filters = mel_filterbank(
        16000, 512, 1, 0.0, None, scale="htk", unit_area=False, linear_in="mel"
    )
    mel = hertz_to_mel(np.arange(257) * 31.25, "htk")
    expected = 1.0 - np.abs(mel / mel[-1] * 2 - 1)
    np.testing.assert_allclose(filters[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("fmin", "fmax"), [(-1.0, None), (5000.0, 4000.0), (0.0, 8001.0)])
def test_bad_range(fmin: float, fmax: float | None) -> None:
    with pytest.raises(ValueError, match="half the sample rate"):
        mel_filterbank(16000, 400, 80, fmin, fmax)
