"""A tiny corpus and a config of every stage that trains on it in moments."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tokenlm.audio.io import save_audio
from tokenlm.checkpoint import save_component
from tokenlm.config import from_dict
from tokenlm.models.lm import SpeechLM, SpeechLMConfig
from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from tokenlm.models.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.text.tokenizer import TextTokenizer
from training.data.dataset import UtteranceDataset
from training.data.manifest import write_manifest
from training.precompute import add_speech_tokens

LEVELS = (3, 3)
RATE = 24_000
TEXTS = ["one two.", "is it so?", "well, yes!", "the fox."]


def _wave(pitch: float, seconds: float) -> torch.Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    harmonics = [torch.sin(2 * math.pi * pitch * n * time) / n for n in range(1, 6)]
    return 0.1 * torch.stack(harmonics).sum(dim=0) * (1.2 + torch.sin(20 * time))


def _rows(folder: Path, split: str, count: int) -> Path:
    rows = []
    for index in range(count):
        seconds = 0.8 + 0.1 * (index % 4)
        pitch = 100.0 + 60 * (index % 3)
        save_audio(folder / "audio" / f"{split}{index}.wav", _wave(pitch, seconds), RATE)
        row: dict[str, Any] = {
            "id": f"{split}{index}",
            "audio": f"audio/{split}{index}.wav",
            "text": TEXTS[index % 4],
            "speaker": f"speaker{index % 3}",
            "duration": seconds,
        }
        if index % 2:
            row["phones"] = [["pau", 0.1], ["ah", 0.5], ["s", seconds]]
        rows.append(json.dumps(row))
    path = folder / f"{split}.jsonl"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests with and without tokens, and the components that other stages need."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "audio").mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models: dict[str, tuple[Any, Any]] = {
            "speech_tokenizer": (
                SpeechTokenizer,
                SpeechTokenizerConfig(dim=16, num_heads=2, num_layers=1, levels=LEVELS),
            ),
            "token_recognizer": (
                TokenRecognizer,
                TokenRecognizerConfig(dim=16, num_heads=2, num_layers=1, levels=LEVELS),
            ),
            "speaker_encoder": (
                SpeakerEncoder,
                SpeakerEncoderConfig(dim=16, num_layers=1, embedding_dim=8),
            ),
        }
        built = {name: (model(config).eval(), config) for name, (model, config) in models.items()}
    for name, (model, config) in built.items():
        save_component(folder / name, kind=name, config=config, state_dict=model.state_dict())
    lm_config = from_dict(SpeechLMConfig, _stage(folder, "speech_lm")["model"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = SpeechLM(lm_config).state_dict()
    save_component(folder / "speech_lm", kind="speech_lm", config=lm_config, state_dict=state)
    tokenizer = built["speech_tokenizer"][0]
    for split, count in (("train", 8), ("valid", 4)):
        path = _rows(folder, split, count)
        rows = add_speech_tokens(UtteranceDataset(path, 16_000), tokenizer)
        write_manifest(folder / f"{split}_tokens.jsonl", rows)
    TextTokenizer.train(TEXTS, 64, model_type="char").save(folder / "text_tokenizer")
    return folder


def _stage(corpus: Path, stage: str) -> dict[str, Any]:
    plain = {"train": f"{corpus}/train.jsonl", "valid": f"{corpus}/valid.jsonl"}
    tokens = {"train": f"{corpus}/train_tokens.jsonl", "valid": f"{corpus}/valid_tokens.jsonl"}
    small = {"dim": 16, "num_heads": 2, "num_layers": 1, "dropout": 0.1}
    stages: dict[str, dict[str, Any]] = {
        "speech_tokenizer": {
            "data": plain,
            "model": {**small, "levels": [3, 3]},
            "recognizer": {**small, "levels": [3, 3], "max_characters": 32},
            "blend_start_step": 1,
            "blend_end_step": 3,
            "phone_head_dim": 8,
        },
        "speaker_encoder": {
            "data": plain,
            "model": {"dim": 16, "num_layers": 1, "embedding_dim": 8},
            "margin_warmup_steps": 2,
            "min_crop_seconds": 0.3,
            "max_crop_seconds": 0.6,
        },
        "speech_lm": {
            "data": tokens,
            "text_tokenizer": f"{corpus}/text_tokenizer",
            "token_recognizer": f"{corpus}/token_recognizer",
            "model": {
                "backbone": {
                    "vocab_size": 64,
                    "hidden_size": 16,
                    "intermediate_size": 16,
                    "num_layers": 1,
                    "num_heads": 2,
                    "num_kv_heads": 1,
                },
                "codebook_size": 9,
                "min_speech_per_text": 1.0,
                "max_speech_per_text": 8.0,
                "block_text_tokens": 2,
                "block_speech_tokens": 3,
            },
            "max_joined_seconds": 2.0,
            "num_generated": 2,
        },
        "flow": {
            "data": tokens,
            "speaker_encoder": f"{corpus}/speaker_encoder",
            "model": {
                **small,
                "codebook_size": 9,
                "encoder_dim": 16,
                "encoder_layers": 1,
                "encoder_heads": 2,
                "speaker_dim": 8,
                "speaker_condition_dim": 4,
            },
            "chunk_tokens": [4, 6],
        },
        "cosyvoice_flow": {
            "data": tokens,
            "speaker_encoder": f"{corpus}/speaker_encoder",
            "model": {
                "codebook_size": 9,
                "speaker_dim": 8,
                "encoder_dim": 16,
                "encoder_hidden_dim": 24,
                "encoder_layers": 1,
                "encoder_up_layers": 1,
                "encoder_heads": 2,
                "dim": 16,
                "num_heads": 2,
                "head_dim": 8,
                "blocks_per_level": 1,
                "num_mid_levels": 1,
            },
            "chunk_tokens": [4],
        },
        "hift": {
            "data": plain,
            "model": {"dim": 16, "pitch_dim": 8},
            "discriminator": {"periods": [2], "period_channels": [2, 2], "spectrum_channels": 2},
            "crop_frames": 16,
            "adversarial_start_step": 1,
        },
        "vocoder": {
            "data": plain,
            "model": {"dim": 16, "num_layers": 1},
            "discriminator": {"periods": [2], "period_channels": [2, 2], "spectrum_channels": 2},
            "crop_frames": 16,
            "adversarial_start_step": 1,
            "resolutions": [[256, 64], [512, 128]],
        },
    }
    tuned = {
        **stages["speech_lm"],
        "initial": {"speech_lm": f"{corpus}/speech_lm"},
        "batch": {"max_seconds_per_batch": 60.0, "max_items": 3},
        "regression": {"num_texts": 2, "max_char_error_rise": 9.0, "max_rate_change": 9.0},
    }
    stages |= {
        "dpo": {**tuned, "group": 3, "min_margin": 0.0},
        "grpo": {**tuned, "group": 3, "sync_every": 2, "loss_weights": {"grpo/kl": 0.1}},
        "token_reward": tuned,
    }
    return stages[stage]


@pytest.fixture
def stage_config(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the config of a stage; further keys replace its own."""

    def write(stage: str, run: str = "run", **changes: Any) -> Path:
        config = {
            "stage": stage,
            "run": str(tmp_path / run),
            "optim": {"max_steps": 2, "warmup_steps": 1, "lr": 1e-3, "ema_decay": 0.5},
            "batch": {"max_seconds_per_batch": 4.0, "max_items": 3},
            "log": {"log_every": 1, "evaluate_every": 2, "save_every": 1},
            **_stage(corpus, stage),
            **changes,
        }
        path = tmp_path / f"{stage}-{run}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write
