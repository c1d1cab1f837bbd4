"""Backbones of every family, tied and untied, whole and with LoRA; speech is all that is added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from tokenlm.checkpoint.registry import load_model
from tokenlm.models.lm import SpeechLM, SpeechLMConfig
from tokenlm.models.lm.layout import one_shot
from tokenlm.models.lm.model import LayoutBatch
from training.loop.checkpoints import latest_checkpoint
from training.run import main

SIZES: dict[str, Any] = {
    "vocab_size": 70,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
}


def save_backbone(folder: Path, family: str, *, tied: bool) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = AutoConfig.for_model(family, **SIZES, tie_word_embeddings=tied)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_text_weights_are_kept_and_only_speech_is_added(
    family: str, tied: bool, tmp_path: Path
) -> None:
    folder = save_backbone(tmp_path / family, family, tied=tied)
    causal = AutoModelForCausalLM.from_pretrained(folder)
    assert (causal.lm_head.weight is causal.model.embed_tokens.weight) == tied
    lm = SpeechLM.from_backbone(str(folder), SpeechLMConfig(codebook_size=9))
    text = dict(causal.model.state_dict())
    own = lm.state_dict()
    assert {name for name in own if not name.startswith("backbone.")} == {
        "special_embedding.weight", "speech_embedding.weight", "head.weight", "head.bias"
    }  # fmt: skip
    assert {f"backbone.{name}" for name in text} == {n for n in own if n.startswith("backbone.")}
    for name, value in text.items():
        assert torch.equal(own[f"backbone.{name}"], value), name
    assert own["speech_embedding.weight"].shape == (11, 16)
    # What the config says builds the same architecture without any file.
    SpeechLM(lm.config).load_state_dict(own)
    ids = torch.tensor([[3, 1, 2]])
    expected = causal.model(input_ids=ids).last_hidden_state
    embeds = lm.embed(torch.zeros_like(ids), ids)
    torch.testing.assert_close(lm.backbone(inputs_embeds=embeds).last_hidden_state, expected)


def turning_rates(backbone: Any) -> torch.Tensor:
    return backbone.rotary_emb.inv_freq


def test_stretched_positions_are_read_from_a_bundle_too(
    tmp_path: Path, stage_config: Callable[..., Path]
) -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    }  # fmt: skip
    config = AutoConfig.for_model("llama", **SIZES, rope_parameters=rope)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "backbone")
    optim = {"max_steps": 1, "warmup_steps": 0, "lr": 1e-9, "weight_decay": 0.0}
    path = stage_config("speech_lm", backbone=str(tmp_path / "backbone"), optim=optim)
    assert main(["--config", str(path)]) == 0
    exported = load_model(tmp_path / "run" / "export" / "speech_lm", SpeechLM)
    ids = torch.arange(40)[None]
    found = exported.backbone(input_ids=ids).last_hidden_state
    causal = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone")
    expected = causal.model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    rates = turning_rates(causal.model)
    assert torch.equal(turning_rates(exported.backbone), rates)
    plain = replace(exported.config.backbone, rope_type="default", rope_settings={})
    other = SpeechLM(replace(exported.config, backbone=plain)).backbone
    assert not torch.allclose(turning_rates(other), rates, rtol=0.1)


def test_what_a_bundle_cannot_describe_is_an_error(tmp_path: Path) -> None:
    config = AutoConfig.for_model("llama", **SIZES, attention_bias=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="llama backbone with attention_bias = True is not"):
        SpeechLM.from_backbone(str(tmp_path), SpeechLMConfig(codebook_size=9))


def test_another_family_is_an_error(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gpt2", n_embd=8, n_layer=1, n_head=1, vocab_size=20)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'gpt2' is not supported; valid: qwen2, qwen3, llama"):
        SpeechLM.from_backbone(str(tmp_path), SpeechLMConfig(codebook_size=9))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_lora_moves_the_additions_only_and_exports_plain_weights(
    family: str, tmp_path: Path, stage_config: Callable[..., Path]
) -> None:
    pytest.importorskip("peft")
    folder = save_backbone(tmp_path / "backbone", family, tied=True)
    path = stage_config("speech_lm", backbone=str(folder), lora={"rank": 2, "dropout": 0.1})
    assert main(["--config", str(path)]) == 0
    checkpoint = latest_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    trained = load_file(checkpoint / "speech_lm.safetensors")
    text = AutoModelForCausalLM.from_pretrained(folder).model.state_dict()
    for name, value in text.items():
        key = f"backbone.{name}"
        if key not in trained:
            key = f"backbone.{name.rpartition('.')[0]}.base_layer.{name.rpartition('.')[2]}"
        assert torch.equal(trained[key], value), name
    moved = [name for name, value in trained.items() if "lora_B" in name and value.any()]
    assert len(moved) == 2 * 7, "both layers, seven projections each"
    exported = load_model(tmp_path / "run" / "export" / "speech_lm", SpeechLM)
    assert not any("lora" in name or "base_layer" in name for name in exported.state_dict())
    query = "backbone.layers.0.self_attn.q_proj.weight"
    difference = exported.state_dict()[query].float() - text[query.removeprefix("backbone.")]
    assert 0 < difference.abs().max() < 0.1
    assert torch.linalg.matrix_rank(difference, rtol=1e-2) <= 2 + 1, (
        "rank 2, and rounding to 16 bits"
    )


def test_lora_starts_from_a_component_too(
    tmp_path: Path, stage_config: Callable[..., Path]
) -> None:
    pytest.importorskip("peft")
    assert main(["--config", str(stage_config("speech_lm", "whole"))]) == 0
    start = tmp_path / "whole" / "export" / "speech_lm"
    path = stage_config(
        "speech_lm", "lora", lora={"rank": 1}, initial={"speech_lm": str(start)},
        optim={"max_steps": 1, "warmup_steps": 0, "lr": 1e-9, "weight_decay": 0.0},
    )  # fmt: skip
    assert main(["--config", str(path)]) == 0
    one = load_model(start, SpeechLM)
    other = load_model(tmp_path / "lora" / "export" / "speech_lm", SpeechLM)
    batch = LayoutBatch.from_layouts([one_shot([1, 2], [3, 4, 5], 9)])
    torch.testing.assert_close(one(batch), other(batch), rtol=1e-3, atol=1e-3)


def test_mistakes_of_lora_are_sentences(
    tmp_path: Path, stage_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    path = stage_config("speech_lm", lora={"targets": ["query"]})
    assert main(["--config", str(path)]) == 1
    assert "the backbone has no query; it has: down_proj" in capsys.readouterr().err
