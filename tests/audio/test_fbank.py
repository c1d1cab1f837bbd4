"""Kaldi filter-bank energies: frame counts, batches, mean subtraction, bad settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tokenlm.audio import FbankConfig, KaldiFbank


@pytest.mark.parametrize(
    ("num_samples", "num_frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98)]
)
def test_whole_frames_only(num_samples: int, num_frames: int) -> None:
    fbank = KaldiFbank(FbankConfig())
    assert fbank(torch.zeros(3, num_samples)).shape == (3, num_frames, 80)
    assert fbank.num_frames(torch.tensor([num_samples])).tolist() == [num_frames]


def test_silence_is_the_floor() -> None:
    energies = KaldiFbank(FbankConfig())(torch.zeros(1, 800))
    torch.testing.assert_close(energies, torch.full_like(energies, math.log(2.0**-23)))


def test_a_constant_is_silence() -> None:
    energies = KaldiFbank(FbankConfig())(torch.full((1, 800), 0.5))
    torch.testing.assert_close(energies, torch.full_like(energies, math.log(2.0**-23)))


@pytest.mark.parametrize("subtract_mean", [False, True])
def test_items_of_a_batch_are_as_alone(subtract_mean: bool) -> None:
    fbank = KaldiFbank(FbankConfig(subtract_mean=subtract_mean))
    lengths = torch.tensor([4000, 2345, 300])
    batch = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0)) * 0.1
    energies = fbank(batch, lengths)
    for item, length in enumerate(lengths.tolist()):
        alone = fbank(batch[item : item + 1, :length])[0]
        torch.testing.assert_close(energies[item, : len(alone)], alone, rtol=0, atol=1e-4)
        assert (energies[item, len(alone) :] == 0).all()


def test_mean_is_taken_off() -> None:
    waveform = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    energies = KaldiFbank(FbankConfig(subtract_mean=True))(waveform)
    torch.testing.assert_close(energies.mean(1), torch.zeros(2, 80), rtol=0, atol=1e-5)


def test_nothing_is_saved() -> None:
    fbank = KaldiFbank(FbankConfig())
    assert fbank.state_dict() == {}
    assert fbank.frame_rate == 100.0
    assert fbank.config.n_fft == 512


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"win_length": 0}, "win_length must be positive"),
        ({"preemphasis": 1.0}, "preemphasis"),
        ({"fmax": 9000.0}, "half the sample rate"),
    ],
)
def test_bad_config(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        FbankConfig(**settings)


def test_waveform_must_have_a_batch() -> None:
    with pytest.raises(ValueError, match=r"\(batch, samples\)"):
        KaldiFbank(FbankConfig())(torch.zeros(4800))
