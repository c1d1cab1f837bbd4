from __future__ import annotations

import numpy as np
import pytest
import torch

from training.evaluation import judges
from training.evaluation.judges import JudgeError
from training.evaluation.voice_encoder import VoiceEncoder


@pytest.fixture
def encoder() -> VoiceEncoder:
    torch.manual_seed(0)
    return VoiceEncoder().eval().requires_grad_(False)


def tone(seconds: float, hertz: float = 200.0) -> np.ndarray:
    times = np.arange(int(16_000 * seconds)) / 16_000
    return (0.1 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.01, 0.5, 1.6, 4.0])
def test_any_length_gives_a_unit_vector(encoder: VoiceEncoder, seconds: float) -> None:
    embedding = encoder.embed(tone(seconds))
    assert embedding.shape == (256,)
    assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-5)


def test_the_level_does_not_matter(encoder: VoiceEncoder) -> None:
    loud, soft = encoder.embed(tone(2.0)), encoder.embed(0.01 * tone(2.0))
    np.testing.assert_allclose(loud, soft, atol=1e-5)


def test_silence_is_no_error(encoder: VoiceEncoder) -> None:
    assert np.isfinite(encoder.embed(np.zeros(16_000, dtype=np.float32))).all()


def test_windows_are_as_many_as_the_recording_fills(
    encoder: VoiceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda x: (seen.append(x.shape), forward(x))[1])
    for seconds in (1.0, 1.6, 2.0, 2.8):
        encoder.embed(tone(seconds))
    # A second window starts at 0.77 s and needs 1.2 s of sound.
    assert [tuple(shape) for shape in seen] == [
        (1, 160, 40), (1, 160, 40), (2, 160, 40), (3, 160, 40),
    ]  # fmt: skip


def test_without_the_package_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "find_spec", lambda name: None)
    with pytest.raises(JudgeError, match="pip install --no-deps resemblyzer"):
        VoiceEncoder.load()
