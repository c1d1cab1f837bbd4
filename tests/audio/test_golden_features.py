"""Mel and filter-bank front-ends against the reference numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tokenlm.audio import (
    FbankConfig,
    KaldiFbank,
    MelConfig,
    MelSpectrogram,
    WhisperMel,
    WhisperMelConfig,
)
from tokenlm.audio.filterbank import mel_filterbank

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / os.environ.get("TOKENLM_GOLDEN", "../shared/reference/golden")

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"there is no folder {GOLDEN}")


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return json.loads((GOLDEN / "features.json").read_text())


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return load_file(GOLDEN / "features.safetensors")


def assert_matches(actual: Tensor, name: str, facts: dict[str, Any], tensors: dict) -> None:
    expected, atol = tensors[name], facts["tensors"][name]["atol"]
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def flow_mel_config(facts: dict[str, Any], **changes: Any) -> MelConfig:
    mel = facts["hyper_parameters"]["flow_mel"] | changes
    return MelConfig(
        sample_rate=mel["sample_rate"],
        n_fft=mel["n_fft"],
        win_length=mel["win"],
        hop_length=mel["hop"],
        num_mels=mel["n_mels"],
        fmin=mel["fmin"],
        fmax=mel["fmax"],
    )


def whisper_config(facts: dict[str, Any]) -> WhisperMelConfig:
    mel = facts["hyper_parameters"]["whisper_log_mel"]
    return WhisperMelConfig(
        sample_rate=mel["sample_rate"],
        n_fft=mel["n_fft"],
        hop_length=mel["hop"],
        num_mels=mel["n_mels"],
    )


def fbank_config(facts: dict[str, Any], *, subtract_mean: bool) -> FbankConfig:
    fbank = facts["hyper_parameters"]["kaldi_fbank"]
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


def test_golden_flow_mel(facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    mel = MelSpectrogram(flow_mel_config(facts))(tensors["in.wave_24k"])
    assert_matches(mel.mT, "out.flow_mel", facts, tensors)


def test_golden_flow_mel_to_half_the_sample_rate(
    facts: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    fmax = facts["hyper_parameters"]["flow_mel_cv3"]["fmax"]
    mel = MelSpectrogram(flow_mel_config(facts, fmax=fmax))(tensors["in.wave_24k"])
    assert_matches(mel.mT, "out.flow_mel_cv3", facts, tensors)


def test_golden_whisper_log_mel(facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    mel = WhisperMel(whisper_config(facts))(tensors["in.wave_16k"])
    assert_matches(mel.mT, "out.whisper_log_mel", facts, tensors)


def test_golden_whisper_log_mel_in_a_padded_batch(
    facts: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    waveform = tensors["in.wave_16k"]
    longer = torch.randn(1, waveform.shape[1] + 999, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([torch.nn.functional.pad(waveform, (0, 999), value=0.3), longer])
    lengths = torch.tensor([waveform.shape[1], longer.shape[1]])
    mel = WhisperMel(whisper_config(facts))(padded, lengths)
    num_frames = tensors["out.whisper_log_mel"].shape[-1]
    assert_matches(mel[:1, :num_frames].mT, "out.whisper_log_mel", facts, tensors)


@pytest.mark.parametrize(
    ("subtract_mean", "name"), [(False, "out.kaldi_fbank"), (True, "out.kaldi_fbank_cmn")]
)
def test_golden_kaldi_fbank(
    facts: dict[str, Any], tensors: dict[str, Tensor], subtract_mean: bool, name: str
) -> None:
    fbank = KaldiFbank(fbank_config(facts, subtract_mean=subtract_mean))
    assert fbank.config.n_fft == facts["hyper_parameters"]["kaldi_fbank"]["round_to_power_of_two"]
    assert_matches(fbank(tensors["in.wave_16k"])[0], name, facts, tensors)


def test_golden_filterbank(facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    mel = facts["hyper_parameters"]["whisper_log_mel"]
    filters = mel_filterbank(mel["sample_rate"], mel["n_fft"], mel["n_mels"])
    assert_matches(filters, "out.filterbank_16k_128", facts, tensors)
