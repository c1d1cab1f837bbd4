"""The estimator and the look-ahead layer of CosyVoice 3 against the reference numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.audio.mel import MelConfig
from tokenlm.checkpoint.cosyvoice.flow import ROTATION, dit_table, lookahead_rules
from tokenlm.checkpoint.key_table import KeyTable
from tokenlm.models.flow import cosyvoice_flow_config
from tokenlm.models.flow.dit import DiT
from tokenlm.models.flow.encoder import LookaheadLayer
from tokenlm.modules.attention import rotary_table
from tokenlm.modules.streaming import FULL_CONTEXT, Context


@pytest.fixture(scope="module")
def numbers(golden: Callable[[str], Any]) -> Any:
    return golden("cv3_dit")


@pytest.fixture(scope="module")
def estimator(numbers: Any) -> DiT:
    sizes = numbers.sizes
    config = cosyvoice_flow_config(
        mel=MelConfig(num_mels=sizes["mel"]),
        speaker_condition_dim=sizes["mel"],
        estimator="f5_dit",
        dim=sizes["dim"],
        num_layers=sizes["depth"],
        num_heads=sizes["heads"],
        head_dim=sizes["head_dim"],
        expansion=sizes["ff_mult"],
    )
    module = DiT(config)
    weights = {key: value for key, value in numbers.weights.items() if key != ROTATION}
    module.load_state_dict(dit_table().to_ours(weights))
    return module.eval().requires_grad_(False)


def condition(numbers: Any) -> Tensor:
    x = numbers["in.mu"].mT
    speaker = numbers["in.spks"][:, None].expand(-1, x.shape[1], -1)
    return torch.cat([numbers["in.cond"].mT, x, speaker], dim=-1)


@pytest.mark.parametrize("name", ["full", "chunk"])
def test_golden_velocity(numbers: Any, estimator: DiT, name: str) -> None:
    size = numbers.sizes["static_chunk_size"]
    context = FULL_CONTEXT if name == "full" else Context(chunk_frames=size)
    seen: dict[str, Tensor] = {}
    parts = {f"block{i}": block for i, block in enumerate(estimator.blocks)}
    hooks = [
        part.register_forward_hook(lambda _m, _i, out, key=key: seen.__setitem__(key, out))
        for key, part in {**parts, "attn0": estimator.blocks[0].attention}.items()
    ]
    mask = numbers["in.mask"][:, 0] > 0
    out = estimator(numbers["in.x"].mT, numbers["in.t"], condition(numbers), context, mask=mask)
    for hook in hooks:
        hook.remove()
    numbers.check(out.mT, f"out.{name}", mask[:, None].expand_as(out.mT))
    names = [key for key in numbers.tensors if key.startswith(f"out.{name}_")]
    for key in names:
        part = key.removeprefix(f"out.{name}_")
        if part != "input_embed":
            numbers.check(seen[part], key, mask)
    assert len(names) >= len(parts)


def test_golden_input_and_time(numbers: Any, estimator: DiT) -> None:
    embedded = estimator.embed_input(numbers["in.x"].mT, condition(numbers))
    mask = numbers["in.mask"][:, 0] > 0
    numbers.check(embedded, "out.full_input_embed", mask)
    numbers.check(estimator.time(numbers["in.t"]), "out.time_embedding")


def test_golden_rotation(numbers: Any) -> None:
    angles = numbers["out.rotary_angles"]
    cos, sin = rotary_table(torch.arange(angles.shape[0]), angles.shape[1])
    atol = numbers.atol("out.rotary_angles")
    torch.testing.assert_close(cos, angles[:, ::2].cos(), rtol=0, atol=atol)
    torch.testing.assert_close(sin, angles[:, 1::2].sin(), rtol=0, atol=atol)
    frequencies = numbers.weights[ROTATION]
    torch.testing.assert_close(cos[1], frequencies.cos(), rtol=0, atol=atol)


def test_golden_streamed_chunks(numbers: Any, estimator: DiT) -> None:
    size = numbers.sizes["static_chunk_size"]
    context = Context(chunk_frames=size)
    x, given = numbers["in.x"][:1].mT, condition(numbers)[:1]
    valid = int((numbers["in.mask"][0, 0] > 0).sum())
    state = estimator.init_state(1)
    bounds = [*range(0, valid, size), valid]
    parts = [
        estimator(x[:, a:b], numbers["in.t"][:1], given[:, a:b], context, state)
        for a, b in zip(bounds, bounds[1:], strict=False)
    ]
    atol = numbers.atol("out.chunk")
    expected = numbers["out.chunk"][:1, :, :valid]
    torch.testing.assert_close(torch.cat(parts, dim=1).mT, expected, rtol=0, atol=atol)


def test_golden_lookahead_layer(golden: Callable[[str], Any]) -> None:
    numbers = golden("cv3_pre_lookahead")
    sizes = numbers.sizes
    layer = LookaheadLayer(sizes["in_channels"], sizes["channels"], sizes["pre_lookahead_len"])
    prefix = numbers.facts["checkpoint_key_prefix"]
    layer.load_state_dict(KeyTable(lookahead_rules(prefix, "")).to_ours(numbers.weights))
    layer.requires_grad_(False)
    numbers.check(layer(numbers["in.x"]), "out.y")
    numbers.check(layer(numbers["in.x1"], future=numbers["in.context"]), "out.y1_context")
