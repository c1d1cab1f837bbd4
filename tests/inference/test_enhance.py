"""The verb `enhance`, and `--enhance` of verbs that listen to a voice."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch
from verb_runner import run_verb

from inference.commands.recordings import enhance
from inference.commands.voices import prepare_voice
from tokenlm.audio.io import save_audio
from tokenlm.synthesis import Voice


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Syllables at 16 kHz in noise."""
    path = tmp_path_factory.mktemp("noisy") / "me.flac"
    time = torch.arange(24_000) / 16_000
    tone = 0.1 * torch.sin(2 * torch.pi * 150 * time) * torch.exp(-(time % 0.5) * 35)
    hiss = torch.randn(24_000, generator=torch.Generator().manual_seed(0))
    save_audio(path, tone + 0.004 * hiss, 16_000)
    return path


def test_enhance(noisy: Path, enhancer_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.wav"
    words = [noisy, "-o", output, "--bundle", enhancer_bundle, "--calibration", "150"]
    result = run_verb(enhance, *words, "--method", "recovery")
    assert result.exit_code == 0, result.output
    assert "1.50 s, speech" in result.stdout and "enhanced by recovery" in result.stdout
    assert "dB SPL" in result.stderr  # it was calibrated for a loud room
    info = soundfile.info(output)
    assert (info.samplerate, info.frames) == (16_000, 24_000)


def test_errors_are_sentences(noisy: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.wav"
    for words, told in (
        ([noisy, "-o", tmp_path / "out.txt"], "files that end in"),
        ([tmp_path / "gone.wav", "-o", output], "no such audio file"),
        ([noisy, "-o", output, "--bundle", tiny_bundle], "has no component 'voice_isolator'"),
    ):
        result = run_verb(enhance, *words)
        assert result.exit_code != 0 and told in result.stderr, result.output
        assert not output.exists()


def test_prepare_voice(noisy: Path, enhancer_bundle: Path, tmp_path: Path) -> None:
    found = []
    for options in ([], ["--enhance"]):
        path = tmp_path / f"{len(options)}.voice"
        result = run_verb(prepare_voice, noisy, "-o", path, "--bundle", enhancer_bundle, *options)
        assert result.exit_code == 0, result.output
        found.append(Voice.load(path).digest)
    assert found[0] != found[1]
