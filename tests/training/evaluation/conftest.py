from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tokenlm.audio.io import save_audio
from training.data.manifest import Utterance, write_manifest


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
