"""Mel and filter-bank front-ends against the reference numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tokenlm.audio import (
    FbankConfig,
    KaldiFbank,
    MelConfig,
    MelSpectrogram,
    WhisperMel,
    WhisperMelConfig,
)
from tokenlm.audio.filterbank import mel_filterbank


@pytest.fixture(scope="module")
def numbers(golden: Callable[[str], Any]) -> Any:
    return golden("features")


def flow_mel_config(numbers: Any, **changes: Any) -> MelConfig:
    mel = numbers.sizes["flow_mel"] | changes
    return MelConfig(
        sample_rate=mel["sample_rate"],
        n_fft=mel["n_fft"],
        win_length=mel["win"],
        hop_length=mel["hop"],
        num_mels=mel["n_mels"],
        fmin=mel["fmin"],
        fmax=mel["fmax"],
    )


def whisper_config(numbers: Any) -> WhisperMelConfig:
    mel = numbers.sizes["whisper_log_mel"]
    return WhisperMelConfig(
        sample_rate=mel["sample_rate"],
        n_fft=mel["n_fft"],
        hop_length=mel["hop"],
        num_mels=mel["n_mels"],
    )


def fbank_config(numbers: Any, *, subtract_mean: bool) -> FbankConfig:
    fbank = numbers.sizes["kaldi_fbank"]
    rate = fbank["sample_rate"]
    return FbankConfig(
        sample_rate=rate,
        win_length=rate * fbank["frame_length_ms"] // 1000,
        hop_length=rate * fbank["frame_shift_ms"] // 1000,
        num_mels=fbank["num_mel_bins"],
        fmin=fbank["low_freq"],
        fmax=fbank["high_freq"],
        preemphasis=fbank["preemphasis"],
        subtract_mean=subtract_mean,
    )


def test_golden_flow_mel(numbers: Any) -> None:
    mel = MelSpectrogram(flow_mel_config(numbers))(numbers["in.wave_24k"])
    numbers.check(mel.mT, "out.flow_mel")


def test_golden_flow_mel_to_half_the_sample_rate(numbers: Any) -> None:
    fmax = numbers.sizes["flow_mel_cv3"]["fmax"]
    mel = MelSpectrogram(flow_mel_config(numbers, fmax=fmax))(numbers["in.wave_24k"])
    numbers.check(mel.mT, "out.flow_mel_cv3")


def test_golden_whisper_log_mel(numbers: Any) -> None:
    mel = WhisperMel(whisper_config(numbers))(numbers["in.wave_16k"])
    numbers.check(mel.mT, "out.whisper_log_mel")


def test_golden_whisper_log_mel_in_a_padded_batch(numbers: Any) -> None:
    waveform = numbers["in.wave_16k"]
    longer = torch.randn(1, waveform.shape[1] + 999, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([torch.nn.functional.pad(waveform, (0, 999), value=0.3), longer])
    lengths = torch.tensor([waveform.shape[1], longer.shape[1]])
    mel = WhisperMel(whisper_config(numbers))(padded, lengths)
    num_frames = numbers["out.whisper_log_mel"].shape[-1]
    numbers.check(mel[:1, :num_frames].mT, "out.whisper_log_mel")


@pytest.mark.parametrize(
    ("subtract_mean", "name"), [(False, "out.kaldi_fbank"), (True, "out.kaldi_fbank_cmn")]
)
def test_golden_kaldi_fbank(numbers: Any, subtract_mean: bool, name: str) -> None:
    fbank = KaldiFbank(fbank_config(numbers, subtract_mean=subtract_mean))
    assert fbank.config.n_fft == numbers.sizes["kaldi_fbank"]["round_to_power_of_two"]
    numbers.check(fbank(numbers["in.wave_16k"])[0], name)


def test_golden_filterbank(numbers: Any) -> None:
    mel = numbers.sizes["whisper_log_mel"]
    filters = mel_filterbank(mel["sample_rate"], mel["n_fft"], mel["n_mels"])
    numbers.check(filters, "out.filterbank_16k_128")
