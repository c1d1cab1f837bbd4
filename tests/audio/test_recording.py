"""Recordings that are written back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tokenlm.audio.io import AudioError
from tokenlm.audio.recording import Recording
from tokenlm.audio.splicing import best_shift, channel_gains, common_channel, cross_fade, splice

KINDS = [
    ("a.wav", "WAV", "PCM_16"),
    ("a.wav", "WAV", "PCM_24"),
    ("a.wav", "WAV", "PCM_32"),
    ("a.wav", "WAV", "PCM_U8"),
    ("a.wav", "WAV", "FLOAT"),
    ("a.wav", "WAV", "DOUBLE"),
    ("a.wav", "WAVEX", "PCM_24"),
    ("a.flac", "FLAC", "PCM_16"),
    ("a.flac", "FLAC", "PCM_24"),
    ("a.aiff", "AIFF", "PCM_16"),
]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape)


def read(path: Path) -> tuple[np.ndarray, int, str, str]:
    with soundfile.SoundFile(str(path)) as file:
        dtype = "int32" if file.subtype.startswith("PCM") else "float64"
        return file.read(dtype=dtype, always_2d=True), file.samplerate, file.format, file.subtype


@pytest.mark.parametrize(("name", "container", "encoding"), KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_read_is_written(
    tmp_path: Path, name: str, container: str, encoding: str, channels: int
) -> None:
    path, copy = tmp_path / name, tmp_path / f"copy{Path(name).suffix}"
    with soundfile.SoundFile(str(path), "w", 44_100, channels, encoding, format=container) as file:
        file.title = "a title"
        file.write(noise(3000, channels))
    recording = Recording.load(path)
    assert recording.waveform.shape == (channels, 3000)
    recording.save(copy, comment="new")
    for kept, was in zip(read(copy), read(path), strict=True):
        assert np.array_equal(kept, was)
    with soundfile.SoundFile(str(copy)) as file:
        assert file.title == "a title" and file.comment == "new"
    new = torch.full((channels, 500), 0.25)
    recording.with_samples(1000, new, 1200).save(copy)
    samples, was = read(copy)[0], read(path)[0]
    assert np.array_equal(samples[:1000], was[:1000])
    assert np.array_equal(samples[1500:], was[1200:])
    full = 1.0 if samples.dtype == np.float64 else 2.0**31
    assert (samples[1000:1500] == 0.25 * full).all()


def test_new_samples_are_clipped() -> None:
    recording = Recording(
        samples=np.zeros((4, 1), np.int32), sample_rate=8000, encoding="PCM_16"
    ).with_samples(1, torch.tensor([[2.0, -2.0]]), 3)
    assert (recording.samples[:, 0] >> 16).tolist() == [0, 32767, -32768, 0]


def test_what_loses_something_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(str(path), noise(8000) * 0.1, 16_000)
    with pytest.raises(AudioError, match="cannot be edited: wav, flac"):
        Recording.load(path)
    soundfile.write(str(tmp_path / "b.wav"), noise(8000), 8000, "ULAW")
    with pytest.raises(AudioError, match="ULAW"):
        Recording.load(tmp_path / "b.wav")
    (tmp_path / "c.wav").write_text("no sound at all")
    with pytest.raises(AudioError):
        Recording.load(tmp_path / "c.wav")
    soundfile.write(str(tmp_path / "d.wav"), np.array([0.0, np.nan]), 8000, "FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        Recording.load(tmp_path / "d.wav")
    with pytest.raises(AudioError, match="no such"):
        Recording.load(tmp_path / "e.wav")


def test_another_suffix_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.flac"
    path.write_bytes(b"as it was")
    recording = Recording.of(torch.zeros(100), 8000)
    with pytest.raises(AudioError, match=r"ends in \.wav"):
        recording.save(path)
    assert path.read_bytes() == b"as it was"
    with pytest.raises(AudioError, match="finite samples"):
        Recording.of(torch.tensor([torch.inf]), 8000)


def test_new_sound_is_moved_to_the_phase_of_the_recording() -> None:
    time = torch.arange(2000) / 16_000
    tone = torch.sin(2 * torch.pi * 150 * time)
    assert best_shift(tone[500:900], tone[460:1000]) == 40
    faded = cross_fade(tone[500:900], tone[500:900])
    torch.testing.assert_close(faded, tone[500:900])


def test_fades_keep_the_level() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 20_000, generator=generator)
    faded = cross_fade(one, other)
    for part in faded.chunk(4):
        assert float(part.square().mean()) == pytest.approx(1.0, abs=0.1)
    assert float(faded[0]) == pytest.approx(float(one[0]), abs=0.01)
    assert float(faded[-1]) == pytest.approx(float(other[-1]), abs=0.01)


def test_a_splice_changes_nothing_beyond_its_fades() -> None:
    rate, time = 16_000, torch.arange(16_000) / 16_000
    tone = 0.5 * torch.sin(2 * torch.pi * 150 * time)
    recorded = torch.stack([tone, -0.5 * tone])
    gains = channel_gains(recorded)
    assert gains[0] * gains[1] < 0 and float(gains.square().mean()) == pytest.approx(1.0)
    # The same tone, of another phase: joined in phase, there is no step anywhere.
    loudest = common_channel(recorded, gains).abs().max()
    rendered = loudest * torch.sin(2 * torch.pi * 150 * time[:6000] + 1.0)
    piece = splice(recorded, gains, 6000, 9000, rendered, 1500, 4500, rate)
    assert 6000 - piece.first <= 0.05 * rate and piece.last - 9000 <= 0.05 * rate
    assert piece.start == 6000 and abs(piece.end - 9000) <= 2 * 0.008 * rate
    joined = torch.cat(
        [recorded[:, : piece.first], piece.waveform, recorded[:, piece.last :]], dim=1
    )
    assert joined.shape[1] == 16_000 + piece.end - 9000
    largest = recorded.diff(dim=1).abs().amax(dim=1)
    assert (joined.diff(dim=1).abs().amax(dim=1) < 1.15 * largest).all()
    torch.testing.assert_close(joined[1], -0.5 * joined[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("before", "after"), [(0, 500), (15_500, 16_000), (0, 16_000)])
def test_a_splice_at_an_end(before: int, after: int) -> None:
    recorded = torch.ones(1, 16_000)
    piece = splice(recorded, torch.ones(1), before, after, torch.ones(800), 0, 800, 16_000)
    assert piece.first >= 0 and piece.last <= 16_000
    assert piece.waveform.isfinite().all() and piece.start == before
