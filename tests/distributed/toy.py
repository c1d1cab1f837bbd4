"""A made-up corpus, random components and a config of every stage, small enough for seconds.

The tests of the stages use them, too. Sizes of the models are those of `configs/train/toy`.
"""

from __future__ import annotations

import json
import math
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from tokenlm.audio.io import save_audio
from tokenlm.checkpoint import save_component
from tokenlm.config import from_dict, load_config, to_dict
from tokenlm.models.lm import SpeechLM, SpeechLMConfig
from tokenlm.models.phrase_checker import PhraseChecker, PhraseCheckerConfig
from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from tokenlm.models.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.text.tokenizers import PhonemeTokenizer, SentencePieceTokenizer
from training.data.manifest import read_manifest
from training.data.precompute import Precompute, build_shards, write_tokens
from training.run import read_stage
from training.stages import stage_classes

MINI_EN = Path(__file__).resolve().parents[2] / "checkpoints/mini-en"
TOY = Path(__file__).resolve().parents[2] / "configs/train/toy"
RATE = 24_000
LEVELS = (3, 3)
TEXTS = ["one two.", "is it so?", "well, yes!", "the fox."]


def _wave(pitch: float, seconds: float) -> torch.Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    harmonics = [torch.sin(2 * math.pi * pitch * n * time) / n for n in range(1, 6)]
    return 0.1 * torch.stack(harmonics).sum(dim=0) * (1.2 + torch.sin(20 * time))


def _write_rows(folder: Path, split: str, count: int) -> Path:
    rows = []
    for index in range(count):
        seconds = round(0.8 + 0.1 * (index % 4) + 0.3 * (index // 8), 1)
        name = f"audio/{split}{index}.wav"
        save_audio(folder / name, _wave(100.0 + 60 * (index % 3), seconds), RATE)
        row: dict[str, Any] = {
            "id": f"{split}{index}",
            "audio": name,
            "text": TEXTS[index % len(TEXTS)],
            "speaker": f"speaker{index % 3}",
            "duration": seconds,
            "directed": index % 3 == 0,
        }
        if index % 2:
            row["phones"] = [["pau", 0.1], ["ah", 0.5], ["s", seconds]]
        rows.append(json.dumps(row))
    path = folder / f"{split}.jsonl"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@cache
def _sizes(stage: str) -> dict[str, dict[str, Any]]:
    path = TOY / f"{stage}.yaml"
    config_class, _ = stage_classes(read_stage(path, ()))
    config = to_dict(load_config(config_class, path))
    return {
        name: config[name] for name in ("model", "recognizer", "discriminator") if name in config
    }


def toy_model(stage: str, part: str = "model", **changes: Any) -> dict[str, Any]:
    """Return the config of a model of a stage, of the size that `configs/train/toy` gives it.

    Args:
        stage: Name of a file there.
        part: Key of the model in the config of the stage.
        changes: Keys that replace those of the config; a mapping is merged into what is there.
    """
    config = deepcopy(_sizes(stage)[part])
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    return config


def make_corpus(folder: Path, num_train: int, num_valid: int) -> None:
    """Write manifests, shards, and the components that stages start from.

    Args:
        folder: Gets train.jsonl and valid.jsonl, the same with speech tokens as
            train_tokens.jsonl and valid_tokens.jsonl, shards of the training split, and a folder
            for each component, by its kind.
        num_train: Recordings to train on, of 0.8 to 1.7 s up to 22 of them, longer beyond.
        num_valid: Recordings to evaluate on.
    """
    lm_config = from_dict(SpeechLMConfig, stage_settings(folder, "speech_lm")["model"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = SpeechTokenizer(
            from_dict(SpeechTokenizerConfig, toy_model("speech_tokenizer", levels=[*LEVELS]))
        ).eval()
        recognizer = toy_model("speech_tokenizer", "recognizer", levels=[*LEVELS])
        models: dict[str, Any] = {
            "speech_tokenizer": tokenizer,
            "token_recognizer": TokenRecognizer(from_dict(TokenRecognizerConfig, recognizer)),
            "speaker_encoder": SpeakerEncoder(
                from_dict(SpeakerEncoderConfig, toy_model("speaker_encoder"))
            ),
        }
        pronunciation = PhonemeTokenizer.from_folder(MINI_EN / "text_tokenizer")
        sizes = toy_model("phrase_checker", phones=[*pronunciation.sounds])
        models["phrase_checker"] = PhraseChecker(from_dict(PhraseCheckerConfig, sizes))
        torch.manual_seed(1)
        models["speech_lm"] = SpeechLM(lm_config)
    for name, model in models.items():
        weights = model.state_dict()
        save_component(folder / name, kind=name, config=model.config, state_dict=weights)
    for split, count in (("train", num_train), ("valid", num_valid)):
        manifest = read_manifest(_write_rows(folder, split, count))
        tokens = Precompute(tokenizer=tokenizer, max_reject_share=0.0)
        write_tokens(manifest, folder / f"{split}_tokens.jsonl", tokens)
    work = Precompute(tokenizer=tokenizer, audio_rate=RATE, items_per_shard=5)
    build_shards(read_manifest(folder / "train.jsonl"), folder / "shards", work)
    SentencePieceTokenizer.train(TEXTS, 64, model_type="char").save(folder / "text_tokenizer")


def stage_settings(corpus: Path, stage: str) -> dict[str, Any]:
    """Return what the config of a stage needs beside run folder, optimizer, batches and log.

    Args:
        corpus: Folder of `make_corpus`.
        stage: One of the stages.
    """
    plain = {"train": f"{corpus}/train.jsonl", "valid": f"{corpus}/valid.jsonl"}
    tokens = {"train": f"{corpus}/train_tokens.jsonl", "valid": f"{corpus}/valid_tokens.jsonl"}
    stages: dict[str, dict[str, Any]] = {
        "speech_tokenizer": {
            "data": plain,
            "model": toy_model("speech_tokenizer", levels=[*LEVELS], dropout=0.1),
            "recognizer": toy_model(
                "speech_tokenizer", "recognizer", levels=[*LEVELS], dropout=0.1, max_characters=32
            ),
            "blend_start_step": 1,
            "blend_end_step": 3,
            "phone_head_dim": 8,
        },
        "token_recognizer": {
            "data": tokens,
            "speech_tokenizer": f"{corpus}/speech_tokenizer",
            "text_tokenizer": f"{corpus}/text_tokenizer",
            "model": toy_model("token_recognizer", max_characters=32),
        },
        "speaker_encoder": {
            "data": plain,
            "model": toy_model("speaker_encoder"),
            "margin_warmup_steps": 2,
            "min_crop_seconds": 0.3,
            "max_crop_seconds": 0.6,
        },
        "directedness": {"data": plain, "model": toy_model("directedness")},
        "text_directedness": {
            "phrases": ["fox"],
            "num_texts": 20,
            "model": toy_model("text_directedness"),
            "batch": {"max_seconds_per_batch": 200.0, "max_items": 3},
        },
        "phrase_checker": {
            "data": plain,
            "phrases": ["the fox", "fox"],
            "model": toy_model("phrase_checker"),
        },
        "phrase_detector": {
            "data": plain,
            "checker": f"{corpus}/phrase_checker",
            "phrases": ["the fox", "fox"],
            "model": toy_model("phrase_detector"),
            "score_step": 1,
            "palette_step": 1,
        },
        "speech_lm": {
            "data": tokens,
            "text_tokenizer": f"{corpus}/text_tokenizer",
            "token_recognizer": f"{corpus}/token_recognizer",
            "model": toy_model(
                "speech_lm",
                backbone={"vocab_size": 64},
                codebook_size=9,
                min_speech_per_text=1.0,
                max_speech_per_text=8.0,
                block_text_tokens=2,
                block_speech_tokens=3,
            ),
            "max_joined_seconds": 2.0,
            "num_generated": 2,
        },
        "flow": {
            "data": tokens,
            "speaker_encoder": f"{corpus}/speaker_encoder",
            "model": toy_model("flow", codebook_size=9, dropout=0.1),
            "chunk_tokens": [4, 6],
        },
        "vocoder": {
            "data": plain,
            "model": toy_model("vocoder"),
            "discriminator": toy_model("vocoder", "discriminator"),
            "crop_frames": 16,
            "adversarial_start_step": 1,
            "resolutions": [[256, 64], [512, 128]],
        },
        "vocoder.chunked": {
            "data": plain,
            "model": toy_model("vocoder.chunked"),
            "discriminator": toy_model("vocoder.chunked", "discriminator"),
            "crop_frames": 16,
            "adversarial_start_step": 1,
            "resolutions": [[256, 64], [512, 128]],
        },
        "flow.cosyvoice": {
            "data": tokens,
            "speaker_encoder": f"{corpus}/speaker_encoder",
            "augment": {"clean": 1.0},
            "full_context_share": 0.5,
            "bounded_share": 0.0,
            "no_prompt_share": 0.5,
            "max_prompt_share": 0.3,
            "model": toy_model("flow.cosyvoice", codebook_size=9),
            "chunk_tokens": [4],
        },
        "hift": {
            "data": plain,
            "model": toy_model("hift"),
            "discriminator": toy_model("hift", "discriminator"),
            "crop_frames": 16,
            "adversarial_start_step": 1,
        },
        "voice_isolator": {
            "data": plain,
            "model": toy_model("voice_isolator"),
            "augment": {"noise": 1.0, "noises": ["white", "passing", "street", "talker"]},
            "crop_seconds": 0.5,
        },
        "mel_enhancer": {
            "data": plain,
            "model": toy_model("mel_enhancer"),
            "augment": {"noise": 1.0},
            "crop_frames": 16,
        },
    }
    tuned = {
        **stages["speech_lm"],
        "initial": {"speech_lm": f"{corpus}/speech_lm"},
        "batch": {"max_seconds_per_batch": 60.0, "max_items": 3},
        "regression": {"num_texts": 2, "max_read_error_rise": 9.0, "max_rate_change": 9.0},
    }
    stages |= {
        "dpo": {**tuned, "group": 3, "min_margin": 0.0},
        "grpo": {**tuned, "group": 3, "sync_every": 2, "loss_weights": {"grpo/kl": 0.1}},
        "token_reward": tuned,
    }
    return stages[stage]


def write_config(corpus: Path, stage: str, run: Path, **changes: Any) -> Path:
    """Write the config of a stage beside its run folder, and return its path.

    Args:
        corpus: Folder of `make_corpus`.
        stage: One of the stages.
        run: Run folder.
        changes: Further keys; a mapping is merged into what is there.
    """
    config: dict[str, Any] = {
        "stage": stage.partition(".")[0],
        "run": str(run),
        "precision": "fp32",
        "optim": {"max_steps": 6, "warmup_steps": 2, "lr": 1e-3, "ema_decay": 0.9},
        "batch": {"max_seconds_per_batch": 4.0, "max_items": 3},
        "log": {"log_every": 1, "evaluate_every": 0, "save_every": 0},
    }
    for part in (stage_settings(corpus, stage), changes):
        for key, value in part.items():
            old = config.get(key)
            config[key] = {**old, **value} if isinstance(old, dict) else value
    path = run.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
