"""A manifest of small recordings, some of them bad, and tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tokenlm.audio.io import save_audio
from tokenlm.audio.mel import MelConfig
from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from tokenlm.models.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from training.data.shards.build import Precompute

RATE = 16_000
NUM_ROWS = 12


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


def make_work(**changes: object) -> Precompute:
    """Tokens, embeddings, mel and sound; four items a shard."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = SpeechTokenizer(
            SpeechTokenizerConfig(dim=16, num_heads=2, num_layers=1, levels=(3, 3))
        )
        encoder = SpeakerEncoder(SpeakerEncoderConfig(dim=16, num_layers=1, embedding_dim=8))
    settings: dict = {
        "tokenizer": tokenizer.eval().requires_grad_(False),
        "speaker_encoder": encoder.eval().requires_grad_(False),
        "mel": MelConfig(),
        "audio_rate": RATE,
        "items_per_shard": 4,
        "max_reject_share": 0.5,
    }
    return Precompute(**{**settings, **changes})
