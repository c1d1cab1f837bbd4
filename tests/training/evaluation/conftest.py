from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenlm.audio.io import save_audio
from tokenlm.audio.mel import MelConfig
from tokenlm.checkpoint.component import save_component
from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from tokenlm.models.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.models.vocoder import Vocoder, VocoderConfig
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
def export(tmp_path: Path) -> Path:
    """What runs export: components beside one another, no LM."""
    torch.manual_seed(0)
    folder = tmp_path / "export"
    mel = MelConfig(num_mels=8)
    models = {
        "vocoder": Vocoder(VocoderConfig(mel=mel, dim=8, num_layers=1)),
        "speech_tokenizer": SpeechTokenizer(
            SpeechTokenizerConfig(dim=8, num_heads=2, num_layers=1, levels=(3, 3))
        ),
        "token_recognizer": TokenRecognizer(
            TokenRecognizerConfig(dim=8, num_heads=2, num_layers=1, levels=(3, 3))
        ),
        "speaker_encoder": SpeakerEncoder(
            SpeakerEncoderConfig(dim=8, num_layers=1, embedding_dim=4)
        ),
    }
    for kind, model in models.items():
        save_component(
            folder / kind, kind=kind, config=model.config, state_dict=model.state_dict()
        )
    return folder
