"""The token encoder of CosyVoice 2 against the reference numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.checkpoint.cosyvoice.flow import encoder_table
from tokenlm.models.flow import cosyvoice_flow_config
from tokenlm.models.flow.encoder import ConformerEncoder
from tokenlm.modules.relative import distance_table
from tokenlm.modules.streaming import FULL_CONTEXT, Context


@pytest.fixture(scope="module")
def numbers(golden: Callable[[str], Any]) -> Any:
    return golden("flow_encoder")


@pytest.fixture(scope="module")
def encoder(numbers: Any) -> ConformerEncoder:
    sizes = numbers.sizes
    config = cosyvoice_flow_config(
        codebook_size=1,
        encoder_dim=sizes["d_model"],
        encoder_heads=sizes["heads"],
        encoder_hidden_dim=sizes["ffn"],
        encoder_layers=sizes["num_blocks"],
        encoder_up_layers=sizes["num_up_blocks"],
        lookahead_tokens=sizes["pre_lookahead_len"],
    )
    module = ConformerEncoder(config)
    # The numbers are of embedded tokens, and not projected.
    loaded = module.load_state_dict(encoder_table().to_ours(numbers.weights), strict=False)
    assert not loaded.unexpected_keys
    assert set(loaded.missing_keys) == {"embedding.weight", "project.weight", "project.bias"}
    return module.eval().requires_grad_(False)


def context_of(name: str, numbers: Any) -> Context:
    size = numbers.sizes["static_chunk_size"]
    return FULL_CONTEXT if name == "full" else Context(chunk_frames=size)


@pytest.mark.parametrize("name", ["full", "chunk"])
def test_golden_padded_batch(numbers: Any, encoder: ConformerEncoder, name: str) -> None:
    seen: dict[str, Tensor] = {}
    parts = {"pre_lookahead": encoder.lookahead, "encoders": encoder.blocks,
             "up_layer": encoder.upsample}  # fmt: skip
    hooks = [
        part.register_forward_hook(lambda _m, _i, out, key=key: seen.__setitem__(key, out))
        for key, part in parts.items()
    ]
    x = numbers["in.x"]
    mask = torch.arange(x.shape[1])[None] < numbers["in.x_len"][:, None]
    out = encoder.encode(x, context_of(name, numbers), mask=mask)
    for hook in hooks:
        hook.remove()
    frames = mask.repeat_interleave(2, dim=1)
    numbers.check(frames, f"out.batch_{name}_mask")
    numbers.check(seen["pre_lookahead"], f"out.batch_{name}_pre_lookahead", mask)
    numbers.check(seen["encoders"], f"out.batch_{name}_encoders", mask)
    numbers.check(
        seen["up_layer"].mT,
        f"out.batch_{name}_up_layer",
        frames[:, None].expand_as(seen["up_layer"].mT),
    )
    numbers.check(out, f"out.batch_{name}", frames)


@pytest.mark.parametrize("name", ["full", "chunk"])
def test_golden_single(numbers: Any, encoder: ConformerEncoder, name: str) -> None:
    context = context_of(name, numbers)
    numbers.check(encoder.encode(numbers["in.x1"], context), f"out.single_{name}")
    out = encoder.encode(numbers["in.x1"], context, future=numbers["in.context"])
    numbers.check(out, f"out.single_{name}_context")


def test_golden_distance_table(numbers: Any) -> None:
    length = numbers["in.x1"].shape[1]
    table = distance_table(torch.arange(length - 1, -length, -1), numbers.sizes["d_model"])
    numbers.check(table[None], "out.pos_emb_single")


@pytest.mark.parametrize("pieces", [[3], [1, 7, 2], [30]])
def test_golden_streamed_chunks(numbers: Any, encoder: ConformerEncoder, pieces: list[int]) -> None:
    """Pieces that end on the chunk grid give the frames of the chunk-masked whole."""
    context = context_of("chunk", numbers)
    size, ahead = numbers.sizes["static_chunk_size"], numbers.sizes["pre_lookahead_len"]
    x = numbers["in.x1"]
    state, outs, fed = encoder.init_state(1), [], 0
    for chunks in pieces:
        end = min(fed + chunks * size + (ahead if fed == 0 else 0), x.shape[1])
        outs.append(encoder.encode(x[:, fed:end], context, state, flush=end == x.shape[1]))
        fed = end
    if fed < x.shape[1]:
        outs.append(encoder.encode(x[:, fed:], context, state, flush=True))
    numbers.check(torch.cat(outs, dim=1), "out.single_chunk")
