"""Levels, trimming, high-pass, on waveforms whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tokenlm.audio import high_pass, is_silent, rms_dbfs, trim_silence

RATE = 16000


def tone(frequency: float, seconds: float, amplitude: float = 1.0) -> Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    return amplitude * torch.sin(2 * math.pi * frequency * time)


def test_level_by_hand() -> None:
    assert rms_dbfs(tone(100.0, 1.0)) == pytest.approx(-3.0103, abs=1e-3)
    assert rms_dbfs(torch.full((10,), 0.1)) == pytest.approx(-20.0, abs=1e-5)
    assert rms_dbfs(torch.zeros(10)) == -math.inf
    assert rms_dbfs(torch.zeros(0)) == -math.inf


def test_silence() -> None:
    assert is_silent(torch.zeros(100)) and is_silent(torch.zeros(0))
    assert is_silent(tone(100.0, 0.1, 0.0005))
    assert not is_silent(tone(100.0, 0.1, 0.01))
    assert is_silent(tone(100.0, 0.1, 0.01), threshold_db=-30.0)


@pytest.mark.parametrize("amplitude", [0.5, 0.002])
def test_trim_keeps_the_pad(amplitude: float) -> None:
    quiet = torch.zeros(RATE // 2)
    waveform = torch.cat([quiet, tone(200.0, 1.0, amplitude), quiet])
    trimmed = trim_silence(waveform, RATE)
    # The tone, 80 ms on either side, and at most one window of 20 ms more on either side.
    assert RATE * 1.16 <= trimmed.shape[0] <= RATE * 1.20
    assert trimmed.count_nonzero() == waveform.count_nonzero()


def test_trim_leaves_what_does_not_stand_out() -> None:
    assert trim_silence(torch.zeros(RATE), RATE).shape == (RATE,)
    assert trim_silence(torch.zeros(10), RATE).shape == (10,)
    assert trim_silence(torch.zeros(0), RATE).shape == (0,)
    full = tone(200.0, 0.5037)
    assert torch.equal(trim_silence(full, RATE, pad_seconds=0.0), full)


def test_high_pass_gain_by_hand() -> None:
    middle = slice(RATE // 2, -RATE // 2)
    for frequency, gain in ((50.0, math.sqrt(0.5)), (25.0, 1 / math.sqrt(257.0)), (500.0, 1.0)):
        passed = high_pass(tone(frequency, 2.0), RATE, 50.0)[middle]
        torch.testing.assert_close(passed, gain * tone(frequency, 2.0)[middle], rtol=0, atol=2e-3)


def test_high_pass_takes_the_mean_out() -> None:
    passed = high_pass(tone(300.0, 2.0, 0.1) + 0.05, RATE)
    assert passed[RATE // 2 : -RATE // 2].mean().abs() < 1e-4
    assert high_pass(torch.zeros(0), RATE).shape == (0,)


def test_high_pass_takes_a_batch() -> None:
    batch = torch.stack([tone(100.0, 0.3), tone(30.0, 0.3)])
    torch.testing.assert_close(high_pass(batch, RATE)[1], high_pass(batch[1], RATE))


@pytest.mark.parametrize("cutoff", [0.0, -5.0, 8000.0])
def test_bad_cutoff(cutoff: float) -> None:
    with pytest.raises(ValueError, match="cutoff"):
        high_pass(torch.zeros(10), RATE, cutoff)
