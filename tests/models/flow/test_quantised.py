"""Flows whose weights are kept in fewer bits: streams equal the whole, for every architecture."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.models.flow import FlowConfig, FlowDecoder, cosyvoice_flow_config
from tokenlm.modules.quantised import (
    BFloat16Linear,
    Int8Linear,
    PackedInt8Linear,
    quantise_model,
)
from tokenlm.modules.streaming import _tensors

NUM_TOKENS, NUM_PROMPT = 23, 9
QUANTISED = (BFloat16Linear, Int8Linear, PackedInt8Linear)


def decoder() -> FlowDecoder:
    flow = FlowDecoder(
        FlowConfig(
            codebook_size=27, speaker_dim=8, speaker_condition_dim=4, encoder_dim=16,
            encoder_layers=1, encoder_heads=2, dim=16, num_layers=2, num_heads=2, chunk_tokens=4,
        )
    )  # fmt: skip
    nn.init.normal_(flow.estimator.project.weight, std=0.2)
    return flow


def cosyvoice(kind: str) -> FlowDecoder:
    sizes: dict[str, dict[str, Any]] = {
        "unet": {"encoder_dim": 16, "encoder_layers": 1, "encoder_up_layers": 1,
                 "encoder_heads": 2, "blocks_per_level": 1, "num_mid_levels": 1},
        "dit": {"encoder": "lookahead", "estimator": "f5_dit", "num_layers": 2},
    }  # fmt: skip
    return FlowDecoder(
        cosyvoice_flow_config(
            codebook_size=27, speaker_dim=8, encoder_hidden_dim=24, dim=16, num_heads=2,
            head_dim=8, chunk_tokens=4, noise="seeded", **sizes[kind],
        )
    )  # fmt: skip


@pytest.fixture(scope="module", params=["decoder", "unet", "dit"])
def flow(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    made = decoder() if request.param == "decoder" else cosyvoice(request.param)
    return made.eval().requires_grad_(False)


def given() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "prompt_tokens": torch.randint(27, (1, NUM_PROMPT), generator=generator),
        "prompt_mel": torch.randn(1, 2 * NUM_PROMPT, 80, generator=generator),
        "speaker_embedding": torch.randn(1, 8, generator=generator),
        "prompt_seed": 3,
        "num_steps": 2,
        "guidance_scale": 0.7,
    }


def deviation(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_streams_equal_the_whole(
    flow: Any, weights: Any, is_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_packed:  # as on a GPU
        monkeypatch.setattr("tokenlm.modules.quantised._BUILD",
                            {"bfloat16": BFloat16Linear, "int8": Int8Linear})  # fmt: skip
    reduced: Any = quantise_model(copy.deepcopy(flow), weights)
    assert any(isinstance(module, QUANTISED) for module in reduced.modules())
    tokens = torch.arange(NUM_TOKENS)[None] % 27
    whole, exact = (model.generate(tokens, seed=4, **given()) for model in (reduced, flow))
    # The prompt of a voice is read once, and many streams go on from it side by side.
    start = reduced.start(**given())
    states = [start.clone(), start.clone()]
    heard: list[list[Tensor]] = [[], []]
    for piece in (*tokens.split([9, 4, 10], dim=1), tokens[:, :0]):
        mels = reduced.step_batch(
            [piece, piece], states, seeds=[4, 4], flush=[piece.shape[1] == 0] * 2
        )
        for mel, pieces in zip(mels, heard, strict=True):
            pieces.append(mel)
    for pieces, state in zip(heard, states, strict=True):
        held = [part for part in _tensors(state) if part.dtype != torch.long]
        assert held and {part.dtype for part in held} == {torch.float32}
        assert deviation(torch.cat(pieces, dim=1), whole) < 0.05
    assert 1e-4 < deviation(whole, exact) < 0.3
