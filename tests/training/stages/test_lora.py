"""Low-rank additions: where they go, what is learned by them, and what becomes of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tokenlm.config import ConfigError
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.vocoder import HiFT, HiFTConfig, Vocoder
from training.stages.lora import (
    LoraSettings,
    add_lora,
    add_lora_to_weights,
    changes_of,
    merged_state,
    with_additions,
)

ALL = LoraSettings(rank=2, alpha=6.0, targets=("*",), only=True)


def move(module: nn.Module) -> None:
    """As training does: what learns moves, and nothing else."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))


def check_changes(module: nn.Module, before: dict[str, Tensor]) -> None:
    """What was learned, added to what was there, is what is exported."""
    part = changes_of(module)
    merged = merged_state(module)
    assert set(merged) == set(before) and part.additions and not part.values
    for name, value in part.apply(before).items():
        torch.testing.assert_close(value, merged[name], atol=1e-5, rtol=1e-5)
        assert torch.equal(merged[name], before[name]) != (name in part.additions)


@pytest.mark.parametrize("kind", ["vocoder", "hift"])
def test_weights_of_a_vocoder_get_additions(kind: str, tiny_models: dict[str, nn.Module]) -> None:
    torch.manual_seed(0)
    if kind == "hift":
        vocoder: nn.Module = HiFT(HiFTConfig(dim=16, pitch_dim=8)).eval()
    else:
        vocoder = copy.deepcopy(tiny_models["vocoder"])
    assert isinstance(vocoder, HiFT | Vocoder)
    mel = torch.randn(1, 12, vocoder.config.mel.num_mels)
    before = {name: value.clone() for name, value in vocoder.state_dict().items()}
    with torch.no_grad():
        said = vocoder(mel)
        add_lora_to_weights(vocoder, ALL)
        assert torch.equal(vocoder(mel), said)
        move(vocoder)
        assert not torch.allclose(vocoder(mel), said, atol=1e-4)
    check_changes(vocoder, before)
    # A run starts from plain weights, and keeps its additions.
    started = with_additions(vocoder, before)
    assert started.keys() == vocoder.state_dict().keys()
    with pytest.raises(ConfigError, match="dropout"):
        add_lora_to_weights(vocoder, LoraSettings(dropout=0.1))


@pytest.mark.slow
def test_all_layers_of_a_flow_get_additions(tiny_models: dict[str, nn.Module]) -> None:
    flow = copy.deepcopy(tiny_models["flow"])
    assert isinstance(flow, FlowDecoder)
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    add_lora(flow, ALL)
    move(flow)
    check_changes(flow, before)
    names = changes_of(flow).additions
    assert "estimator.blocks.0.attention.query_key_value.weight" in names
    assert "speaker.weight" in names
    with pytest.raises(ConfigError, match="has no nothing; it has"):
        add_lora(copy.deepcopy(tiny_models["flow"]), LoraSettings(targets=("nothing",)))
