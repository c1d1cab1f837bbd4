from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from tokenlm.audio.io import save_audio
from training.data.manifest import Utterance, write_manifest
from training.evaluation.prompts import Prompt
from training.evaluation.suite import Judges, Request, Speech


def write_corpus(folder: Path, speakers: dict[str, float], num: int) -> Path:
    """A manifest of tones, one pitch for each speaker."""
    rows = []
    for speaker, hertz in speakers.items():
        for number in range(num):
            seconds = 0.4 + 0.08 * number
            times = torch.arange(int(16_000 * seconds)) / 16_000
            path = folder / f"{speaker}-{number}.wav"
            save_audio(path, 0.2 * torch.sin(2 * torch.pi * hertz * times), 16_000)
            rows.append(
                Utterance(
                    id=path.stem,
                    audio=path,
                    text=f"Say {' and '.join([speaker] * (number + 1))}.",
                    speaker=speaker,
                    duration=seconds,
                    extra={"person": speaker[0]},
                )
            )
    path = folder / "manifest.jsonl"
    write_manifest(path, rows)
    return path


@pytest.fixture
def heldout(tmp_path: Path) -> Path:
    folder = tmp_path / "heldout"
    folder.mkdir()
    return write_corpus(folder, {"ann": 200.0, "bob": 400.0, "cyd": 800.0}, 3)


@pytest.fixture
def unheard(tmp_path: Path) -> Path:
    folder = tmp_path / "unheard"
    folder.mkdir()
    return write_corpus(folder, {"dan": 1600.0, "dot": 1500.0}, 3)


@pytest.fixture
def export(tmp_path: Path, tiny_bundle: Path) -> Path:
    """What runs export: components beside one another, neither flow nor LM."""
    for kind in ("vocoder", "speech_tokenizer", "token_recognizer", "speaker_encoder"):
        shutil.copytree(tiny_bundle / kind, tmp_path / "export" / kind)
    return tmp_path / "export"


class Parrot:
    """Says everything with the sound of the prompt itself, and leaves out words as it is told."""

    sample_rate = 16_000

    def __init__(self, forget: Callable[[Prompt], int] = lambda prompt: 0) -> None:
        self.forget = forget
        self.said: list[Request] = []

    def speak(self, request: Request) -> Speech:
        self.said.append(request)
        return Speech(
            request=request, waveform=self.say(request.prompt), sample_rate=self.sample_rate
        )

    def say(self, prompt: Prompt) -> torch.Tensor:
        return prompt.samples(self.sample_rate)

    def submit(self, samples: np.ndarray) -> Future[str]:
        """What was said last, without its first words."""
        text, prompt = self.said[-1].text, self.said[-1].prompt
        future: Future[str] = Future()
        future.set_result(" ".join(text.split()[self.forget(prompt) :]))
        return future

    def judges(self) -> Judges:
        return Judges(self.submit, tones_of)


def tones_of(samples: np.ndarray) -> np.ndarray:
    """A judge of speakers for tones: how the power is spread over the pitches."""
    power = np.abs(np.fft.rfft(samples, n=16_000)) ** 2
    bands = power[:2000].reshape(40, 50).sum(axis=1)
    return bands / np.linalg.norm(bands)


def vowels(pitch: float, warp: float = 1.0, seconds: float = 1.2) -> torch.Tensor:
    """Four vowels (S,) at 16 kHz by a source and formants, each moved on its own."""
    rate, size = 16_000, int(16_000 * seconds)
    moving = pitch * (1.0 + 0.08 * np.sin(2 * np.pi * 1.3 * np.arange(size) / rate))
    pulses = np.diff(np.floor(np.cumsum(moving) / rate), prepend=0.0)
    pulses += 0.001 * np.random.default_rng(0).standard_normal(size)
    parts = []
    for place, formants in enumerate(
        [(700, 1200, 2600, 3500), (300, 2200, 2900, 3600), (400, 900, 2400, 3300),
         (550, 1750, 2500, 3450)]
    ):  # fmt: skip
        sound = pulses[place * size // 4 : (place + 1) * size // 4]
        for formant in formants:
            radius = np.exp(-np.pi * (60 + 0.04 * formant) * warp / rate)
            angle = 2 * np.pi * formant * warp / rate
            poles = [1, -2 * radius * np.cos(angle), radius**2]
            sound = np.asarray(lfilter([1 - radius], poles, sound))
        parts.append(0.3 * sound / np.abs(sound).max())
    return torch.from_numpy(np.concatenate(parts)).float()


@pytest.fixture
def parrot() -> type[Parrot]:
    return Parrot


@pytest.fixture
def say_vowels() -> Callable[..., torch.Tensor]:
    return vowels


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    """A manifest of two voices whose recordings are vowels, four for each."""
    rows = []
    for speaker, pitch, warp in (("eve", 180.0, 1.05), ("fay", 110.0, 0.95)):
        for number in range(4):
            path = tmp_path / f"{speaker}-{number}.wav"
            save_audio(path, vowels(pitch, warp, 1.0 + 0.1 * number), 16_000)
            text = f"{speaker} says sentence number {'one two three four'.split()[number]}."
            rows.append(
                Utterance(
                    id=path.stem,
                    audio=path,
                    text=text,
                    speaker=speaker,
                    duration=1.0 + 0.1 * number,
                )
            )
    write_manifest(tmp_path / "voices.jsonl", rows)
    return tmp_path / "voices.jsonl"
