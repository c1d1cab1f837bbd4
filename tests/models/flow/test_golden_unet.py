"""The estimator of CosyVoice 2 against the reference numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.audio.mel import MelConfig
from tokenlm.checkpoint.cosyvoice.flow import unet_table
from tokenlm.models.flow import cosyvoice_flow_config
from tokenlm.models.flow.unet import UNet
from tokenlm.modules.streaming import FULL_CONTEXT, Context


@pytest.fixture(scope="module")
def numbers(golden: Callable[[str], Any]) -> Any:
    return golden("flow_estimator")


@pytest.fixture(scope="module")
def estimator(numbers: Any) -> UNet:
    sizes = numbers.sizes
    config = cosyvoice_flow_config(
        mel=MelConfig(num_mels=sizes["mel"]),
        speaker_condition_dim=sizes["mel"],
        dim=sizes["channels"],
        num_heads=sizes["heads"],
        head_dim=sizes["head_dim"],
        blocks_per_level=sizes["n_blocks"],
        num_mid_levels=sizes["num_mid_blocks"],
    )
    module = UNet(config)
    module.load_state_dict(unet_table().to_ours(numbers.weights))
    return module.eval().requires_grad_(False)


def condition(numbers: Any) -> Tensor:
    x = numbers["in.mu"].mT
    speaker = numbers["in.spks"][:, None].expand(-1, x.shape[1], -1)
    return torch.cat([x, speaker, numbers["in.cond"].mT], dim=-1)


def context_of(name: str, numbers: Any) -> Context:
    size = numbers.sizes["static_chunk_size"]
    return FULL_CONTEXT if name == "full" else Context(chunk_frames=size)


@pytest.mark.parametrize("name", ["full", "chunk"])
def test_golden_velocity(numbers: Any, estimator: UNet, name: str) -> None:
    seen: dict[str, Tensor] = {}
    down, up = estimator.down, estimator.up
    parts: dict[str, nn.Module | None] = {
        "down_resnet": down.resnet, "down_conv": down.conv, "up_conv": up.conv
    }  # fmt: skip
    hooks = [
        part.register_forward_hook(lambda _m, _i, out, key=key: seen.__setitem__(key, out))
        for key, part in parts.items()
        if part is not None
    ]
    mask = numbers["in.mask"][:, 0] > 0
    out = estimator(
        numbers["in.x"].mT,
        numbers["in.t"],
        condition(numbers),
        context_of(name, numbers),
        mask=mask,
    )
    for hook in hooks:
        hook.remove()
    numbers.check(out.mT, f"out.{name}")
    for key, value in seen.items():
        numbers.check(value.mT, f"out.{name}_{key}", mask[:, None].expand_as(value.mT))
    assert len(seen) == len(parts)


def test_golden_item_alone(numbers: Any, estimator: UNet) -> None:
    out = estimator(numbers["in.x"][:1].mT, numbers["in.t"][:1], condition(numbers)[:1])
    numbers.check(out.mT, "out.full_item0_alone")


def test_golden_time_embedding(numbers: Any, estimator: UNet) -> None:
    seen: list[Tensor] = []
    hook = estimator.time.layers.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    out = estimator.time(numbers["in.t"])
    hook.remove()
    numbers.check(seen[0], "out.time_sinusoid")
    numbers.check(out, "out.time_embedding")


def test_golden_streamed_chunks(numbers: Any, estimator: UNet) -> None:
    context = context_of("chunk", numbers)
    x, given = numbers["in.x"][:1].mT, condition(numbers)[:1]
    valid = int((numbers["in.mask"][0, 0] > 0).sum())
    state = estimator.init_state(1)
    size = numbers.sizes["static_chunk_size"]
    bounds = [0, size, 3 * size, valid] if valid > 3 * size else [0, size, valid]
    parts = [
        estimator(x[:, a:b], numbers["in.t"][:1], given[:, a:b], context, state)
        for a, b in zip(bounds, bounds[1:], strict=False)
    ]
    streamed = torch.cat(parts, dim=1).mT
    expected = numbers["out.chunk"][:1, :, :valid]
    atol = numbers.atol("out.chunk")
    torch.testing.assert_close(streamed, expected, rtol=0, atol=atol)
