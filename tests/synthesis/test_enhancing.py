"""Enhancement of recordings: what is left alone, what is told, streams and files of any rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

from tokenlm.audio.io import AudioError, load_audio, save_audio
from tokenlm.audio.noise import CLEAN_SNR_DB
from tokenlm.checkpoint.bundle import BundleError
from tokenlm.synthesis import Synthesizer, enhancing
from tokenlm.synthesis.enhancing import (
    Condition,
    EnhanceError,
    Enhancer,
    measure_condition,
)


def speech(seconds: float = 2.0, noise: float = 0.0, rate: int = 24_000) -> Tensor:
    """Syllables with pauses, in noise."""
    time = torch.arange(int(seconds * rate)) / rate
    tone = torch.sin(2 * torch.pi * 150 * time) + 0.5 * torch.sin(2 * torch.pi * 450 * time)
    loud = torch.exp(-(time % 0.5) * 35)  # a fall by 60 dB in 0.2 s
    hiss = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    return 0.1 * tone * loud + (noise + 1e-5) * hiss


@pytest.fixture(scope="module")
def enhancer(enhancer_bundle: Path) -> Enhancer:
    return Enhancer.from_pretrained(enhancer_bundle)


def test_clean_speech_is_left_as_it_is(enhancer: Enhancer, tmp_path: Path) -> None:
    clean = speech()
    found = enhancer.enhance(clean, sample_rate=24_000)
    assert found.method is None and torch.equal(found.waveform, clean)
    assert found.condition.is_clean and found.condition.snr_db > CLEAN_SNR_DB
    assert enhancer.enhance(clean, sample_rate=24_000, always=True).method == "isolation"
    save_audio(tmp_path / "in.wav", clean, 24_000)
    _, method = enhancer.enhance_file(tmp_path / "in.wav", tmp_path / "out.wav")
    assert method is None
    read = [soundfile.read(tmp_path / name, dtype="int16")[0] for name in ("in.wav", "out.wav")]
    assert (read[0] == read[1]).all()


def test_noisy_speech_is_enhanced(enhancer: Enhancer) -> None:
    noisy = speech(noise=0.005)
    found = enhancer.enhance(noisy, sample_rate=24_000)
    assert found.method == "isolation" and found.waveform.shape == noisy.shape
    assert 3 < found.condition.snr_db < 20 and not found.condition.is_clean
    with torch.inference_mode():
        torch.testing.assert_close(found.waveform, enhancer.isolator(noisy[None])[0])


@pytest.mark.parametrize("method", enhancing.METHODS)
@pytest.mark.parametrize("rate", [24_000, 16_000])
def test_a_stream_equals_the_whole(enhancer: Enhancer, method: str, rate: int) -> None:
    noisy = speech(1.3, noise=0.005, rate=rate)
    whole = torch.cat([*enhancer.stream([noisy], rate, method=method)])
    assert whole.shape == noisy.shape
    pieces = torch.cat([*enhancer.stream(noisy.split(1_111), rate, method=method)])
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-4)
    if method == "recovery":
        isolated = torch.cat([*enhancer.stream([noisy], rate, method="isolation")])
        assert not torch.allclose(isolated, whole, atol=1e-3)


def test_files_keep_rate_and_length(
    enhancer: Enhancer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enhancing, "_PIECE_SECONDS", 0.6)
    noisy = speech(2.05, noise=0.005, rate=22_050)
    save_audio(tmp_path / "in.flac", noisy, 22_050)
    done: list[float] = []
    condition, method = enhancer.enhance_file(
        tmp_path / "in.flac", tmp_path / "out.wav", on_progress=done.append
    )
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.frames, info.channels) == (22_050, len(noisy), 1)
    assert method == "isolation" and "tokenlm (isolation)" in info.extra_info
    assert done[-1] == pytest.approx(2.05, abs=1e-3) and len(done) == 4
    heard = load_audio(tmp_path / "in.flac", 22_050)
    whole = torch.cat([*enhancer.stream([heard], 22_050)])
    torch.testing.assert_close(
        load_audio(tmp_path / "out.wav", 22_050), whole.clamp(-1, 1), rtol=0, atol=1e-4
    )
    assert condition.snr_db < 15


def test_what_is_too_bad_is_told() -> None:
    loud = Condition(snr_db=1.0, noise_db=-20.0, echo_seconds=None)
    assert "1 dB louder" in loud.problems()[0] and "record it again" in loud.problems()[0]
    fine = Condition(snr_db=12.0, noise_db=-50.0, echo_seconds=None)
    assert fine.problems() == [] == fine.problems(100.0)
    assert "70 dB SPL" in fine.problems(120.0)[0]
    silent = measure_condition([(1e-3 * torch.randn(24_000), 24_000)])
    assert silent.problems() == ["no speech stands out of the noise."]
    worst = measure_condition([(speech(), 24_000), (speech(noise=0.005), 24_000)])
    assert worst.snr_db < 20  # a long recording is as clean as its worst piece
    echo = Condition(snr_db=50.0, noise_db=-80.0, echo_seconds=0.6)
    assert not echo.is_clean and "echo 0.6 s" in str(echo)


def test_bad_input(enhancer: Enhancer, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no component 'voice_isolator'.*docs/enhance.md"):
        Enhancer.from_pretrained(tiny_bundle)
    with pytest.raises(EnhanceError, match="say nothing of their noise"):
        enhancer.enhance(torch.zeros(100), sample_rate=24_000)
    with pytest.raises(EnhanceError, match="sample_rate"):
        enhancer.enhance(torch.zeros(24_000))
    with pytest.raises(EnhanceError, match="one of isolation, recovery"):
        enhancer.check_method("magic")
    with pytest.raises(EnhanceError, match="stage mel_enhancer"):
        Enhancer(enhancer.isolator).check_method("recovery")
    with pytest.raises(EnhanceError, match="vocoder"):
        Enhancer(enhancer.isolator, enhancer.mel_enhancer)
    (tmp_path / "text.wav").write_text("this is no sound at all")
    with pytest.raises(AudioError, match="text"):
        enhancer.enhance_file(tmp_path / "text.wav", tmp_path / "out.wav")
    save_audio(tmp_path / "in.wav", speech(1.0, noise=0.1), 24_000)
    with pytest.raises(EnhanceError, match="recording itself"):
        enhancer.enhance_file(tmp_path / "in.wav", tmp_path / "in.wav")
    with pytest.raises(AudioError, match="opus has the rates"):
        save_audio(tmp_path / "odd.wav", speech(1.0, noise=0.1, rate=22_050), 22_050)
        enhancer.enhance_file(tmp_path / "odd.wav", tmp_path / "out.opus")
    assert not (tmp_path / "out.wav").exists() and not (tmp_path / "out.opus").exists()


def test_a_voice_of_a_noisy_recording(enhancer_bundle: Path, tiny_bundle: Path) -> None:
    synthesizer = Synthesizer.from_pretrained(enhancer_bundle)
    noisy = speech(noise=0.005)
    plain = synthesizer.prepare_voice(noisy, sample_rate=24_000)
    enhanced = synthesizer.prepare_voice(noisy, sample_rate=24_000, enhance=True)
    found = Enhancer.of(synthesizer.components).enhance(noisy, sample_rate=24_000).waveform
    again = synthesizer.prepare_voice(found, sample_rate=24_000)
    assert enhanced.digest == again.digest != plain.digest
    with pytest.raises(BundleError, match="voice_isolator"):
        Synthesizer.from_pretrained(tiny_bundle).prepare_voice(
            noisy, sample_rate=24_000, enhance=True
        )
