"""Blocks are found, and forgetting their activations changes no number and no name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_stage import ToyTask, toy_config

from tokenlm.models.flow import FlowConfig, FlowDecoder
from tokenlm.models.lm import SpeechLM, SpeechLMConfig
from tokenlm.models.lm.layout import one_shot
from tokenlm.models.lm.model import BackboneConfig, LayoutBatch
from training.loop.blocks import blocks, checkpoint_activations
from training.loop.checkpoints import latest_checkpoint
from training.loop.trainer import Trainer


def lm() -> SpeechLM:
    torch.manual_seed(0)
    backbone = BackboneConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_layers=3, num_heads=2,
        num_kv_heads=1, attention_dropout=0.3,
    )  # fmt: skip
    return SpeechLM(SpeechLMConfig(backbone=backbone, codebook_size=9))


def test_blocks_are_the_layers_of_every_stack() -> None:
    model = lm()
    assert blocks(model) == list(model.backbone.layers)
    flow = FlowDecoder(
        FlowConfig(
            encoder_dim=16, encoder_layers=2, encoder_heads=2, dim=16, num_layers=3, num_heads=2
        )
    )
    assert len(blocks(flow)) >= 5
    nested = nn.ModuleList([nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])])
    assert len(blocks(nn.Sequential(nested))) == 2


def gradients(model: SpeechLM) -> dict[str, torch.Tensor]:
    batch = LayoutBatch.from_layouts([one_shot([1, 2], [3, 4, 5], 9), one_shot([7], [1, 8], 9)])
    torch.manual_seed(1)
    model.train()(batch).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_gradient_is_the_same_and_activations_are_not_kept() -> None:
    plain, forgetful = lm(), lm()
    calls = []
    forgetful.backbone.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    assert checkpoint_activations(forgetful) == 3
    assert list(forgetful.state_dict()) == list(plain.state_dict())
    one, other = gradients(plain), gradients(forgetful)
    assert one.keys() == other.keys() and len(calls) == 2, "computed twice"
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.slow
def test_a_compiled_run_is_the_same_run(tmp_path: Path) -> None:
    found = {}
    for name, compiled in (("plain", False), ("compiled", True)):
        config = toy_config(tmp_path / name, optim={"max_steps": 3}, compile=compiled)
        trainer = Trainer(ToyTask(config), config)
        trainer.run()
        checkpoint = latest_checkpoint(tmp_path / name)
        assert checkpoint is not None
        found[name] = load_file(checkpoint / "net.safetensors")
    assert found["plain"].keys() == found["compiled"].keys()
    for name, value in found["plain"].items():
        torch.testing.assert_close(found["compiled"][name], value, rtol=1e-4, atol=1e-5)
