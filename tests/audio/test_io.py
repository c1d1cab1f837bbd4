"""Reading and writing audio files, good and bad ones."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tokenlm.audio import AudioError, load_audio, save_audio

RATE = 16000


def tone(rate: int = RATE, seconds: float = 0.25, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * math.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_U8", 1 / 100),
        ("wav", "PCM_16", 1e-4),
        ("wav", "PCM_24", 1e-6),
        ("wav", "FLOAT", 1e-7),
        ("wav", "DOUBLE", 1e-7),
        ("flac", "PCM_16", 1e-4),
        ("flac", "PCM_24", 1e-6),
        ("ogg", "VORBIS", 0.05),
        ("mp3", "MPEG_LAYER_III", None),
    ],
)
def test_formats(tmp_path: Path, suffix: str, subtype: str, tolerance: float | None) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(), RATE, subtype=subtype)
    waveform = load_audio(path, RATE)
    assert waveform.dtype == torch.float32 and waveform.ndim == 1
    if tolerance is None:  # the encoder adds samples at both ends
        assert waveform.abs().max() == pytest.approx(0.5, abs=0.05)
    else:
        assert waveform.shape == (4000,)
        np.testing.assert_allclose(waveform.numpy(), tone(), rtol=0, atol=tolerance)


def test_a_flac_that_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    """As it is where a file is sent while it is made."""
    path = tmp_path / "streamed.flac"
    samples = np.stack([tone(seconds=5.0), np.zeros(80_000, np.float32)], axis=1)
    soundfile.write(path, samples, RATE)
    data = bytearray(path.read_bytes())
    # The last 36 of the first 144 bits of STREAMINFO, which comes after 8 bytes.
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(bytes(data))
    waveform = load_audio(path, RATE)
    assert waveform.shape == (80_000,)
    np.testing.assert_allclose(waveform.numpy(), samples.mean(axis=1), atol=1e-4)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(), np.zeros(4000)], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path, RATE).numpy(), tone() / 2, atol=1e-7)


@pytest.mark.parametrize("file_rate", [8000, 11025, 44100, 48000])
def test_any_rate_becomes_the_asked_one(tmp_path: Path, file_rate: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(file_rate), file_rate, subtype="FLOAT")
    waveform = load_audio(path, RATE)
    assert waveform.shape == (4000,)
    np.testing.assert_allclose(waveform[800:-800].numpy(), tone()[800:-800], atol=2e-3)


def message(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(path, RATE)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such audio file" in message(tmp_path / "none.wav")
    assert "is a folder" in message(tmp_path)


@pytest.mark.parametrize("name", ["empty.wav", "empty.mp3", "empty.raw"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert "is an empty file" in message(tmp_path / name)


@pytest.mark.parametrize("name", ["text.wav", "text.mp3", "text.txt", "text.raw", "text"])
def test_not_audio(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("This is no sound at all. " * 100)
    assert "cannot be read as audio" in message(tmp_path / name)


def test_corrupt_flac(tmp_path: Path) -> None:
    path = tmp_path / "tone.flac"
    soundfile.write(path, tone(seconds=2.0), RATE)
    data = bytearray(path.read_bytes())
    data[20:60] = b"\xff" * 40
    path.write_bytes(bytes(data))
    message(path)


def test_header_only(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), RATE)
    path.write_bytes(path.read_bytes()[:20])
    message(path)


def test_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "none.wav"
    soundfile.write(path, np.zeros(0, np.float32), RATE)
    assert "holds no samples" in message(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    samples = tone()
    samples[7] = bad
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    assert "not finite" in message(path)
    with pytest.raises(AudioError, match="not finite"):
        save_audio(tmp_path / "out.wav", torch.from_numpy(samples), RATE)
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".WAV"])
def test_save(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"tone{suffix}"
    save_audio(path, torch.from_numpy(tone()), RATE, comment="made by a machine")
    with soundfile.SoundFile(path) as file:
        assert file.samplerate == RATE and file.channels == 1 and file.frames == 4000
        assert file.comment == "made by a machine"
        assert file.software.startswith("tokenlm")
        assert file.subtype == ("VORBIS" if suffix == ".ogg" else "PCM_16")
    tolerance = 0.05 if suffix == ".ogg" else 1e-4
    np.testing.assert_allclose(load_audio(path, RATE).numpy(), tone(), atol=tolerance)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_save_clips_without_wrapping(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "loud.wav"
    with caplog.at_level(logging.WARNING, logger="tokenlm"):
        save_audio(path, torch.tensor([0.5, 1.0, -1.0, 1.7, -9.0]), RATE)
    samples, _ = soundfile.read(path, dtype="int16")
    assert samples.tolist() == [16384, 32767, -32768, 32767, -32768]
    assert "2 samples beyond full scale" in caplog.text


def test_sixteen_bits_survive_reading_and_writing(tmp_path: Path) -> None:
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    every = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)
    soundfile.write(first, every, RATE)
    save_audio(second, load_audio(first, RATE), RATE)
    assert np.array_equal(soundfile.read(second, dtype="int16")[0], every)


def test_save_takes_gradients_and_long_files(tmp_path: Path) -> None:
    waveform = (torch.zeros(200_000) + 0.1).requires_grad_()
    save_audio(tmp_path / "long.ogg", waveform, RATE)
    assert load_audio(tmp_path / "long.ogg", RATE).shape == (200_000,)


def test_save_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"\.wav, \.flac, \.ogg"):
        save_audio(tmp_path / "tone.mp3", torch.zeros(10), RATE)
    with pytest.raises(AudioError, match=r"not \(1, 10\)"):
        save_audio(tmp_path / "tone.wav", torch.zeros(1, 10), RATE)
    with pytest.raises(AudioError, match="cannot be written"):
        save_audio(tmp_path / "tone.wav", torch.zeros(10), 0)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    save_audio(path, torch.from_numpy(tone()), RATE)
    with pytest.raises(AudioError):
        save_audio(path, torch.zeros(10), -1)
    assert load_audio(path, RATE).shape == (4000,)
    assert [item.name for item in tmp_path.iterdir()] == ["tone.wav"]
