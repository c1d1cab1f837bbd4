"""A manifest of small recordings, some of them bad, and tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from toy_shards import NUM_ROWS, RATE

from tokenlm.audio.io import save_audio


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows; of "i3" the sound is broken, of "i7" the duration is wrong; a row is no JSON."""
    folder = tmp_path_factory.mktemp("recordings")
    generator = torch.Generator().manual_seed(0)
    lines = []
    for number in range(NUM_ROWS):
        seconds = 0.3 + 0.1 * (number % 5)
        wave = 0.1 * torch.randn(int(seconds * RATE), generator=generator)
        save_audio(folder / f"{number}.wav", wave, RATE)
        row = {
            "id": f"i{number}",
            "audio": f"{number}.wav",
            "text": f"text {number}",
            "speaker": f"s{number % 2}",
            "duration": 2.0 if number == 7 else seconds,
            "page": number,
        }
        lines.append(json.dumps(row))
    (folder / "3.wav").write_bytes(b"RIFF")
    lines.insert(1, "{not json")
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder
