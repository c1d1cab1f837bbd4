"""Resampling: lengths, content, batches."""

from __future__ import annotations

import math

import pytest
import torch

from tokenlm.audio import resample
from tokenlm.audio.resample import StreamResampler


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48000, 16000), (22050, 24000), (8000, 24000)])
def test_a_tone_stays_the_tone(from_rate: int, to_rate: int) -> None:
    def tone(rate: int) -> torch.Tensor:
        return torch.sin(2 * math.pi * 440.0 * torch.arange(rate).double() / rate).float()

    resampled = resample(tone(from_rate), from_rate, to_rate)
    assert resampled.shape == (to_rate,)
    inside = slice(to_rate // 10, -to_rate // 10)
    torch.testing.assert_close(resampled[inside], tone(to_rate)[inside], rtol=0, atol=1e-4)


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    tone = torch.sin(2 * math.pi * 10000.0 * torch.arange(48000).double() / 48000)
    assert resample(tone, 48000, 16000)[1000:-1000].abs().max() < 1e-5


def test_items_of_a_batch_are_as_alone() -> None:
    batch = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    resampled = resample(batch, 16000, 24000)
    assert resampled.shape == (2, 6000) and resampled.is_contiguous()
    torch.testing.assert_close(resampled[1], resample(batch[1], 16000, 24000), rtol=0, atol=1e-5)


def test_same_rate_and_nothing() -> None:
    waveform = torch.tensor([0.1, 0.2])
    assert torch.equal(resample(waveform, 16000, 16000), waveform)
    assert resample(torch.zeros(0), 16000, 24000).shape == (0,)
    assert resample(torch.zeros(2, 0), 16000, 24000).shape == (2, 0)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="sample rates must be positive"):
        resample(torch.zeros(10), 0, 16000)
    with pytest.raises(ValueError, match="the shape is"):
        resample(torch.zeros(1, 1, 10), 8000, 16000)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(44100, 24000), (16000, 24000), (8000, 8000)])
def test_pieces_equal_the_whole(from_rate: int, to_rate: int) -> None:
    waveform = torch.randn(5_000, generator=torch.Generator().manual_seed(0))
    stream = StreamResampler(from_rate, to_rate)
    pieces = [stream.push(piece) for piece in waveform[:4_000].split(777)]
    pieces.append(stream.push(waveform[4_000:], final=True))
    torch.testing.assert_close(torch.cat(pieces), resample(waveform, from_rate, to_rate))
