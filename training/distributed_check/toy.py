"""A made-up corpus, random components and a config of every stage, small enough for seconds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

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

RATE = 24_000
LEVELS = (3, 3)
NUM_ITEMS = 22
SPEECH_LM: dict[str, Any] = {
    "backbone": {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 2,
        "num_heads": 2,
        "num_kv_heads": 1,
    },
    "codebook_size": 9,
    "min_speech_per_text": 0.2,
    "max_speech_per_text": 12.0,
    "block_text_tokens": 2,
    "block_speech_tokens": 2,
}
TEXTS = ["one two three.", "is it so?", "well, yes!", "the quick brown fox."]


def make_corpus(folder: Path) -> None:
    """Write manifests with and without speech tokens, and the components that stages start from."""
    torch.manual_seed(0)
    rows = []
    for index in range(NUM_ITEMS):
        seconds = 0.7 + 0.1 * (index * 7 % 11)
        time = torch.arange(int(seconds * RATE)) / RATE
        pitch = 100.0 + 60 * (index % 3)
        wave = torch.stack([torch.sin(2 * math.pi * pitch * n * time) / n for n in range(1, 6)])
        noise = 0.02 * torch.randn(time.shape[0])
        save_audio(folder / "audio" / f"{index}.wav", 0.1 * wave.sum(dim=0) + noise, RATE)
        row = {
            "id": f"item{index}",
            "audio": f"audio/{index}.wav",
            "text": TEXTS[index % len(TEXTS)],
            "speaker": f"speaker{index % 3}",
            "duration": seconds,
        }
        rows.append(json.dumps(row))
    (folder / "plain.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    tokenizer_config = SpeechTokenizerConfig(dim=16, num_heads=2, num_layers=1, levels=LEVELS)
    tokenizer = SpeechTokenizer(tokenizer_config).eval()
    encoder_config = SpeakerEncoderConfig(dim=16, num_layers=1, embedding_dim=8)
    save_component(
        folder / "speaker_encoder",
        kind="speaker_encoder",
        config=encoder_config,
        state_dict=SpeakerEncoder(encoder_config).state_dict(),
    )
    data = UtteranceDataset(folder / "plain.jsonl", 16_000)
    write_manifest(folder / "tokens.jsonl", add_speech_tokens(data, tokenizer))
    TextTokenizer.train(TEXTS, 64, model_type="char").save(folder / "text_tokenizer")
    recognizer_config = TokenRecognizerConfig(dim=16, num_heads=2, num_layers=1, levels=LEVELS)
    save_component(
        folder / "token_recognizer",
        kind="token_recognizer",
        config=recognizer_config,
        state_dict=TokenRecognizer(recognizer_config).state_dict(),
    )
    lm_config = from_dict(SpeechLMConfig, SPEECH_LM)
    save_component(
        folder / "speech_lm",
        kind="speech_lm",
        config=lm_config,
        state_dict=SpeechLM(lm_config).state_dict(),
    )


def stage_config(corpus: Path, stage: str, run: Path, **changes: Any) -> Path:
    """Write the config of a stage beside its run folder, and return its path.

    Args:
        corpus: Folder of `make_corpus`.
        stage: One of the stages.
        run: Run folder.
        changes: Further keys; a mapping is merged into what is there.
    """
    small = {"dim": 16, "num_heads": 2, "num_layers": 2, "dropout": 0.0}
    config: dict[str, Any] = {
        "stage": stage,
        "run": str(run),
        "precision": "fp32",
        "data": {"train": str(corpus / "plain.jsonl")},
        "optim": {"max_steps": 6, "warmup_steps": 2, "lr": 1e-3, "ema_decay": 0.9},
        "batch": {"max_seconds_per_batch": 4.0, "max_items": 3},
        "log": {"log_every": 1, "evaluate_every": 0, "save_every": 5},
    }
    stages: dict[str, dict[str, Any]] = {
        "speech_tokenizer": {
            "model": {**small, "levels": list(LEVELS)},
            "recognizer": {**small, "levels": list(LEVELS), "max_characters": 32},
            "blend_start_step": 1,
            "blend_end_step": 3,
            "phone_head_dim": 8,
        },
        "speaker_encoder": {
            "model": {"dim": 16, "num_layers": 1, "embedding_dim": 8},
            "margin_warmup_steps": 2,
            "min_crop_seconds": 0.3,
            "max_crop_seconds": 0.6,
        },
        "speech_lm": {
            "data": {"train": str(corpus / "tokens.jsonl")},
            "text_tokenizer": str(corpus / "text_tokenizer"),
            "model": SPEECH_LM,
            "max_joined_seconds": 2.0,
        },
        "flow": {
            "data": {"train": str(corpus / "tokens.jsonl")},
            "speaker_encoder": str(corpus / "speaker_encoder"),
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
        "vocoder": {
            "model": {"dim": 16, "num_layers": 1},
            "discriminator": {"periods": [2], "period_channels": [2, 2], "spectrum_channels": 2},
            "crop_frames": 16,
            "adversarial_start_step": 1,
            "resolutions": [[256, 64], [512, 128]],
        },
    }
    tuned = {
        **stages["speech_lm"],
        "token_recognizer": str(corpus / "token_recognizer"),
        "initial": {"speech_lm": str(corpus / "speech_lm")},
        "batch": {"max_seconds_per_batch": 60.0, "max_items": 3},
    }
    stages |= {
        "dpo": {**tuned, "group": 3, "min_margin": 0.0},
        "grpo": {**tuned, "group": 3, "sync_every": 2, "loss_weights": {"grpo/kl": 0.1}},
        "token_reward": tuned,
        "cosyvoice_flow": {
            "data": {"train": str(corpus / "tokens.jsonl")},
            "speaker_encoder": str(corpus / "speaker_encoder"),
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
            "model": {"dim": 16, "pitch_dim": 8},
            "discriminator": {"periods": [2], "period_channels": [2, 2], "spectrum_channels": 2},
            "crop_frames": 16,
            "adversarial_start_step": 1,
        },
    }
    for part in (stages[stage], changes):
        for key, value in part.items():
            old = config.get(key)
            config[key] = {**old, **value} if isinstance(old, dict) else value
    path = run.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
