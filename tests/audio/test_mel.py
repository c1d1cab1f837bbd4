"""Mel spectrograms: frame counts, batches, short input, gradients, bad settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.audio import MelConfig, MelSpectrogram, WhisperMel, WhisperMelConfig
from tokenlm.audio.frames import reflect_pad
from tokenlm.audio.mel import MelStream

ANALYSIS: dict[str, Any] = {"sample_rate": 16000, "win_length": 400, "hop_length": 160}
FRONT_ENDS = [
    MelSpectrogram(MelConfig()),
    MelSpectrogram(MelConfig(**ANALYSIS, n_fft=400, fmax=None)),
    MelSpectrogram(MelConfig(**ANALYSIS, n_fft=512, fmax=8000.0)),
    MelSpectrogram(MelConfig(**ANALYSIS, n_fft=513, fmax=None)),
    WhisperMel(WhisperMelConfig()),
]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("num_samples", [0, 1, 159, 160, 199, 200, 201, 480, 719, 720, 721, 4805])
def test_frames_are_samples_over_hop(front_end: Any, num_samples: int) -> None:
    mel = front_end(noise(2, num_samples))
    num_frames = num_samples // front_end.config.hop_length
    assert mel.shape == (2, num_frames, front_end.config.num_mels)
    assert torch.isfinite(mel).all()


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_items_of_a_batch_are_as_alone(front_end: Any) -> None:
    lengths = torch.tensor([4800, 3333, 500, 100, 0])
    batch = noise(5, 4800)
    mel = front_end(batch, lengths)
    for item, length in enumerate(lengths.tolist()):
        alone = front_end(batch[item : item + 1, :length])[0]
        torch.testing.assert_close(mel[item, : len(alone)], alone, rtol=0, atol=1e-4)
        assert (mel[item, len(alone) :] == 0).all()
        assert len(alone) == front_end.num_frames(lengths)[item]


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_nothing_is_saved(front_end: Any) -> None:
    assert front_end.state_dict() == {}
    assert list(front_end.parameters()) == []


@pytest.mark.parametrize("cast", [lambda module: module.half(), lambda module: module.double()])
def test_front_ends_stay_in_float32(cast: Any) -> None:
    mel_spectrogram, waveform = MelSpectrogram(MelConfig()), noise(1, 4800)
    expected = mel_spectrogram(waveform)
    owner = cast(torch.nn.Sequential(mel_spectrogram, torch.nn.Linear(2, 2)))
    assert owner[1].weight.dtype != torch.float32
    assert torch.equal(owner[0](waveform), expected)


def test_frame_rate() -> None:
    assert MelSpectrogram(MelConfig()).frame_rate == 50.0
    assert WhisperMel(WhisperMelConfig()).frame_rate == 100.0
    assert MelConfig(**ANALYSIS).frame_rate == 100.0


def test_digital_silence_by_hand() -> None:
    mel_spectrogram = MelSpectrogram(MelConfig())
    mel = mel_spectrogram(torch.zeros(1, 4800))
    gains = mel_spectrogram.filters.sum(0) * math.sqrt(1e-9)
    torch.testing.assert_close(mel[0, 5], gains.clamp(min=1e-5).log())
    whisper = WhisperMel(WhisperMelConfig())(torch.zeros(1, 1600))
    torch.testing.assert_close(whisper, torch.full_like(whisper, (-10.0 + 4.0) / 4.0))


def test_a_sine_lights_its_own_band() -> None:
    mel_spectrogram = MelSpectrogram(MelConfig())
    tone = torch.sin(2 * math.pi * 1000.0 * torch.arange(24000) / 24000)[None]
    bands = mel_spectrogram(tone)[0, 25]
    bin_of_tone = 1000 * 1920 // 24000
    assert bands.argmax() == mel_spectrogram.filters[bin_of_tone].argmax()
    # A Hann-windowed sine of amplitude 1 has the magnitude sum(window) / 2 = 480 in its bin and
    # half of it in the two beside.
    expected = mel_spectrogram.filters[bin_of_tone - 1 : bin_of_tone + 2].T @ torch.tensor(
        [240.0, 480.0, 240.0]
    )
    torch.testing.assert_close(bands.max(), expected.max().log(), rtol=0, atol=1e-3)


def test_frames_stand_in_the_middle_of_their_samples() -> None:
    config = MelConfig(**ANALYSIS, n_fft=400)
    waveform = torch.zeros(1, 16000)
    waveform[0, 50 * 160 + 80] = 1.0
    loud = MelSpectrogram(config)(waveform)[0].sum(-1)
    assert loud.argmax() == 50
    torch.testing.assert_close(loud[49], loud[51], rtol=0, atol=0.5)


def test_whisper_range_is_per_item() -> None:
    whisper = WhisperMel(WhisperMelConfig())
    loud, soft = noise(1, 3200) * 10, noise(1, 3200, seed=1)
    soft[:, 1600:] = 0
    batch = whisper(torch.cat([loud, soft]))
    torch.testing.assert_close(batch[1:], whisper(soft))
    assert float(batch[1].max() - batch[1].min()) == pytest.approx(8.0 / 4.0)


def test_gradient_is_finite_in_silence() -> None:
    waveform = torch.zeros(1, 4800, requires_grad=True)
    MelSpectrogram(MelConfig())(waveform).sum().backward()
    assert waveform.grad is not None and torch.isfinite(waveform.grad).all()


def test_stays_in_float32_under_autocast() -> None:
    mel_spectrogram, waveform = MelSpectrogram(MelConfig(**ANALYSIS, n_fft=400)), noise(1, 1600)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mel = mel_spectrogram(waveform.bfloat16())
    assert mel.dtype == torch.float32
    torch.testing.assert_close(mel, mel_spectrogram(waveform.bfloat16()))


def test_reflect_pad_by_hand() -> None:
    batch = torch.tensor([[1.0, 2, 3, 4, 5], [1, 2, 3, 9, 9], [7, 9, 9, 9, 9]])
    padded = reflect_pad(batch, 2, 2, torch.tensor([5, 3, 1]))
    assert padded[0].tolist() == [3, 2, 1, 2, 3, 4, 5, 4, 3]
    assert padded[1, :7].tolist() == [3, 2, 1, 2, 3, 2, 1]
    assert padded[2, :7].tolist() == [0, 0, 7, 0, 0, 0, 7]
    assert reflect_pad(batch[2:, :1], 2, 2, None).tolist() == [[0, 0, 7, 0, 0, 0, 7]]


def test_waveform_must_have_a_batch() -> None:
    with pytest.raises(ValueError, match=r"\(batch, samples\)"):
        MelSpectrogram(MelConfig())(torch.zeros(4800))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sample_rate": 0}, "sample_rate must be positive"),
        ({"num_mels": -1}, "num_mels must be positive"),
        ({"win_length": 1921}, "win_length must be between 1 and n_fft"),
        ({"hop_length": 1921}, "longer than the frame"),
        ({"fmax": 12001.0}, "half the sample rate"),
        ({"fmin": 8000.0}, "must rise"),
    ],
)
def test_bad_config(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        MelConfig(**settings)


def test_bad_whisper_config() -> None:
    with pytest.raises(ValueError, match="hop_length must be positive"):
        WhisperMelConfig(hop_length=0)


@pytest.mark.parametrize("sizes", [[100] * 80, [3, 5_000, 1], [479, 481] * 4])
def test_mel_of_pieces_equals_that_of_the_whole(sizes: list[int]) -> None:
    spectrogram = MelSpectrogram(MelConfig())
    waveform = torch.randn(2, 9_333, generator=torch.Generator().manual_seed(0))
    stream = MelStream(spectrogram)
    *pieces, last = waveform.split([*sizes, 9_333 - sum(sizes)], dim=1)
    frames = [*(stream.push(piece) for piece in pieces), stream.push(last, final=True)]
    torch.testing.assert_close(torch.cat(frames, dim=1), spectrogram(waveform))
