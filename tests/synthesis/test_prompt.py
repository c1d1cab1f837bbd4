"""From recordings to prompts: cleaning, cutting, and what cannot be used."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from tokenlm.audio.io import AudioError, load_audio
from tokenlm.audio.level import rms_dbfs
from tokenlm.synthesis import Synthesizer, VoiceError
from tokenlm.synthesis.voice import (
    LEVEL_DBFS,
    clean_recording,
    quietest_cut,
    read_recording,
)

RATE = 16_000


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


def tone(seconds: float, sample_rate: int = RATE, gain: float = 0.1) -> Tensor:
    """A sine of 200 Hz."""
    time = torch.arange(int(seconds * sample_rate)) / sample_rate
    return gain * torch.sin(2 * math.pi * 200 * time)


def written(path: Path, samples: Tensor, sample_rate: int) -> Path:
    """A file of samples (S,) or (S, channels), in 32-bit floats."""
    soundfile.write(path, samples.numpy(), sample_rate, subtype="FLOAT")
    return path


def test_quietest_cut_keeps_what_is_short() -> None:
    waveform = tone(2.0)
    assert quietest_cut(waveform, RATE, 2.0) is waveform


def test_quietest_cut_takes_the_last_pause() -> None:
    """Pauses at 0.7, 1.3 and 1.6 s of a limit of 2 s: the first is in the first half."""
    waveform = tone(4.0)
    for start in (0.7, 1.3, 1.6, 2.5):
        waveform[int(start * RATE) : int((start + 0.2) * RATE)] = 0
    seconds = quietest_cut(waveform, RATE, 2.0).shape[0] / RATE
    assert 1.7 <= seconds <= 1.8


def test_quietest_cut_without_a_pause_is_near_the_limit() -> None:
    assert 1.9 <= quietest_cut(tone(4.0), RATE, 2.0).shape[0] / RATE <= 2.0


def test_clean_recording() -> None:
    """Silence, rumble and the mean go, the level comes."""
    silence = torch.zeros(RATE)
    rumble = 1e-3 * torch.sin(2 * math.pi * 10 * torch.arange(4 * RATE) / RATE) + 0.1
    waveform = torch.cat([silence, tone(2.0, gain=0.2), silence]) + rumble
    out = clean_recording(waveform, RATE, "it")
    assert 2.0 <= out.shape[0] / RATE <= 2.3
    assert rms_dbfs(out) == pytest.approx(LEVEL_DBFS, abs=0.1)
    assert abs(float(out.mean())) < 1e-3


def test_clean_recording_does_not_clip_over() -> None:
    peaks = tone(1.0, gain=0.001)
    peaks[::800] = 0.5
    assert float(clean_recording(peaks, RATE, "it").abs().max()) <= 1.0


@pytest.mark.parametrize("waveform", [torch.zeros(RATE), 1e-5 * tone(1.0)])
def test_silence_is_an_error(waveform: Tensor) -> None:
    with pytest.raises(VoiceError, match="^it is silent"):
        clean_recording(waveform, RATE, "it")


def test_too_short_is_an_error() -> None:
    padded = torch.cat([torch.zeros(RATE), tone(0.1), torch.zeros(RATE)])
    with pytest.raises(VoiceError, match="it holds only 0.[23][0-9] s of sound; at least 0.4 s"):
        clean_recording(padded, RATE, "it")


def test_read_recording_of_samples() -> None:
    assert read_recording(tone(1.0), RATE, RATE).shape == (RATE,)
    assert read_recording(tone(1.0, 8000).double(), 8000, 24_000).shape == (24_000,)
    with pytest.raises(VoiceError, match="need their sample_rate"):
        read_recording(tone(1.0), None, RATE)
    for shape in ((0,), (2, 100), (1, 100)):
        with pytest.raises(VoiceError, match="a recording has the shape"):
            read_recording(torch.zeros(shape), RATE, RATE)
    for value in (float("nan"), float("inf")):
        with pytest.raises(VoiceError, match="not finite"):
            read_recording(torch.full((RATE,), value), RATE, RATE)


def test_prepared_voice_fits_together(synthesizer: Synthesizer, recording: Path) -> None:
    voice = synthesizer.prepare_voice(recording, "Is it so?")
    assert voice.name == "me" and voice.prompt_text == "is it so?"
    num_tokens = voice.prompt_tokens.shape[0]
    seconds = load_audio(recording, 24_000).shape[0] / 24_000
    assert 0.5 * 25 * seconds <= num_tokens <= 25 * seconds
    assert voice.prompt_mel.shape == (2 * num_tokens, 80)
    assert voice.speaker_embedding.shape == (8,)
    assert voice.tokenizer == synthesizer.components.fingerprint
    for tensor in (voice.prompt_tokens, voice.prompt_mel, voice.speaker_embedding):
        assert not tensor.is_inference()


def test_saved_voice_is_the_same(synthesizer: Synthesizer, recording: Path, tmp_path: Path) -> None:
    voice = synthesizer.prepare_voice(recording)
    voice.save(tmp_path / "me.voice")
    again = synthesizer.voice(tmp_path / "me.voice")
    assert torch.equal(again.prompt_mel, voice.prompt_mel)
    assert torch.equal(
        synthesizer.generate("so.", voice=again), synthesizer.generate("so.", voice=voice)
    )


def test_level_and_silence_do_not_matter(synthesizer: Synthesizer, recording: Path) -> None:
    waveform = load_audio(recording, 24_000)
    voice = synthesizer.prepare_voice(waveform, sample_rate=24_000)
    quiet = synthesizer.prepare_voice(0.1 * waveform, sample_rate=24_000)
    assert voice.name == "voice" and voice.prompt_text == ""
    assert torch.equal(quiet.prompt_tokens, voice.prompt_tokens)
    torch.testing.assert_close(quiet.prompt_mel, voice.prompt_mel, atol=0.05, rtol=0)


def test_telephone_and_stereo_recordings(
    synthesizer: Synthesizer, recording: Path, tmp_path: Path
) -> None:
    waveform = load_audio(recording, 8000)
    phone = synthesizer.prepare_voice(written(tmp_path / "8k.wav", waveform, 8000))
    stereo = torch.stack([waveform, 0.5 * waveform], dim=1)
    both = synthesizer.prepare_voice(written(tmp_path / "stereo.wav", stereo, 8000))
    assert torch.equal(both.prompt_tokens, phone.prompt_tokens)
    assert phone.prompt_mel.shape[0] == 2 * phone.prompt_tokens.shape[0] > 50


def test_long_recordings_are_cut_and_lose_their_text(
    synthesizer: Synthesizer, caplog: pytest.LogCaptureFixture
) -> None:
    time = torch.arange(14 * RATE) / RATE
    waveform = tone(14.0) * (torch.sin(math.pi * time).abs() > 0.2)
    with caplog.at_level(logging.WARNING):
        voice = synthesizer.prepare_voice(waveform, "Many words.", sample_rate=RATE)
    assert 5.0 <= voice.prompt_tokens.shape[0] / 25 <= 10.0
    assert voice.prompt_text == ""
    assert "longer than 10 s: only its start is used, without its text" in caplog.text


@pytest.mark.slow
def test_ten_minutes(synthesizer: Synthesizer) -> None:
    voice = synthesizer.prepare_voice(tone(600.0, 8000), sample_rate=8000)
    assert voice.prompt_tokens.shape[0] <= 250


def test_recordings_that_cannot_be_used(synthesizer: Synthesizer, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="none.wav"):
        synthesizer.prepare_voice(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(AudioError, match="text.wav"):
        synthesizer.prepare_voice(tmp_path / "text.wav")
    whole = written(tmp_path / "whole.wav", tone(1.0), RATE).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:30])
    with pytest.raises(AudioError, match="cut.wav"):
        synthesizer.prepare_voice(tmp_path / "cut.wav")
    with pytest.raises(AudioError, match="nan.wav"):
        synthesizer.prepare_voice(written(tmp_path / "nan.wav", tone(1.0) + np.nan, RATE))
    with pytest.raises(VoiceError, match="short.wav holds only 0.20 s"):
        synthesizer.prepare_voice(written(tmp_path / "short.wav", tone(0.2), RATE))
    with pytest.raises(VoiceError, match="silent.wav is silent"):
        synthesizer.prepare_voice(written(tmp_path / "silent.wav", torch.zeros(RATE), RATE))
    with pytest.raises(VoiceError, match="holds nothing that can be said"):
        synthesizer.prepare_voice(tone(1.0), "🙂 …", sample_rate=RATE)
