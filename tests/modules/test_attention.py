"""Attention with caches: rotary angles by hand, masks, chunks == whole."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.modules.attention import (
    AttentionPlan,
    SelfAttention,
    TimestepEmbedding,
    Transformer,
    TransformerState,
    keep_caches_in,
    pack,
    plan_attention,
    rotary_table,
    rotate,
    unpack,
)
from tokenlm.modules.streaming import FULL_CONTEXT, Context, batched


def small(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(dim=8, num_layers=2, num_heads=2, expansion=2.0).eval()


def stream(model: Transformer, x: Tensor, context: Context, schedule: list[int]) -> Tensor:
    """Feeds the prompt, then the numbers of chunks in `schedule` in turn."""
    state = model.init_state(x.shape[0])
    assert context.chunk_frames is not None
    pieces = [x[:, : context.pinned_frames]] if context.pinned_frames else []
    position, turn = context.pinned_frames, 0
    while position < x.shape[1]:
        end = position + context.chunk_frames * schedule[turn % len(schedule)]
        pieces.append(x[:, position:end])
        position, turn = end, turn + 1
    out = torch.cat([model(piece, context, state) for piece in pieces], dim=1)
    assert state.next_position == x.shape[1]
    return out


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("left", [None, 0, 2, 7])
@pytest.mark.parametrize("pinned", [0, 5])
@pytest.mark.parametrize("schedule", [[1], [2], [1, 3]])
def test_chunks_equal_whole(chunk: int, left: int | None, pinned: int, schedule: list[int]) -> None:
    model = small()
    context = Context(chunk_frames=chunk, left_frames=left, pinned_frames=pinned)
    x = torch.randn(2, 22, 8)
    with torch.no_grad():
        whole = model(x, context)
        torch.testing.assert_close(stream(model, x, context, schedule), whole, atol=1e-5, rtol=0)
        if left is not None and left < 7:
            assert not torch.allclose(whole, model(x, Context(chunk_frames=chunk)), atol=1e-3)


def test_later_chunks_do_not_change_earlier_ones() -> None:
    model, context = small(), Context(chunk_frames=4, pinned_frames=3)
    x = torch.randn(1, 15, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(x, context)[:, :11], model(x[:, :11], context))


def test_cache_of_a_bounded_window_stays_the_same() -> None:
    model, context = small(), Context(chunk_frames=4, left_frames=6, pinned_frames=5)
    state = model.init_state(2)
    model(torch.randn(2, 5, 8), context, state)
    sizes = []
    for _ in range(12):
        model(torch.randn(2, 4, 8), context, state)
        sizes.append(state.num_bytes)
    # The prompt and six frames: keys and values of 8 floats a layer, and positions of 8 bytes.
    assert sizes[1:] == [2 * 11 * (2 * 2 * 8 * 4 + 8)] * 11
    assert state.layers[0].positions.tolist() == [0, 1, 2, 3, 4, *range(47, 53)]


@torch.no_grad()
def test_room_for_all_layers_is_one_piece_of_memory() -> None:
    model, context = small(), Context(chunk_frames=4)
    x = torch.randn(1, 24, 8)
    plain, roomy = model.init_state(1), model.init_state(1)
    for start in range(0, 24, 4):
        roomy.reserve(4)
        piece = x[:, start : start + 4]
        assert torch.equal(model(piece, context, roomy), model(piece, context, plain))
        memories = {
            part.untyped_storage().data_ptr()
            for layer in roomy.layers
            for part in (layer.keys, layer.values)
        }
        assert len(memories) == 1
        held = start + 4
        assert all(held <= layer.capacity <= 1.5 * held for layer in roomy.layers)
    # What is taken from a stream and goes on elsewhere does not write into it, nor does it grow
    # with the room of the stream.
    for other in (roomy.clone(), roomy.shared()):
        assert other.layers[0].capacity == 24 and other.num_bytes <= roomy.num_bytes
        other.reserve(4)
        model(torch.ones(1, 4, 8), context, other)
    assert torch.equal(model(x[:, :4], context, roomy), model(x[:, :4], context, plain))


def test_stacked_streams_equal_single_ones() -> None:
    model, context = small(), Context(chunk_frames=3, left_frames=3)
    x = torch.randn(2, 12, 8)
    with torch.no_grad():
        states = []
        for item in range(2):
            state = model.init_state(1)
            model(x[item : item + 1, :6], context, state)
            states.append(state)
        with batched(states) as joined:
            first = model(x[:, 6:9], context, joined)
        last = [model(x[i : i + 1, 9:], context, states[i]) for i in range(2)]
        whole = model(x, context)
    torch.testing.assert_close(first, whole[:, 6:9], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(last), whole[:, 9:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("context", [FULL_CONTEXT, Context(chunk_frames=3, left_frames=2)])
def test_padded_batch_equals_single(context: Context) -> None:
    model = small()
    x = torch.randn(2, 9, 8)
    mask = torch.tensor([[True] * 9, [True] * 5 + [False] * 4])
    pinned = torch.tensor([4, 2])
    with torch.no_grad():
        both = model(x, context, mask=mask, pinned_frames=pinned)
        for item, length in enumerate((9, 5)):
            alone = model(x[item : item + 1, :length], context.pinned(int(pinned[item])))
            torch.testing.assert_close(both[item : item + 1, :length], alone, atol=1e-5, rtol=0)
    assert bool(both.isfinite().all())


def test_plan_leaves_out_masks_that_hide_nothing() -> None:
    x = torch.zeros(1, 4, 8)
    for context, is_masked in (
        (FULL_CONTEXT, False),
        (Context(chunk_frames=4), False),
        (Context(chunk_frames=2), True),
    ):
        plan = plan_attention(x, context, head_dim=4)
        assert isinstance(plan, AttentionPlan) and (plan.mask is not None) == is_masked


def test_rotation_by_hand() -> None:
    cos, sin = rotary_table(torch.tensor([0, 2]), 4, theta=100.0)
    angles = [[0.0, 0.0], [2.0, 0.2]]
    torch.testing.assert_close(cos, torch.tensor(angles).cos())
    torch.testing.assert_close(sin, torch.tensor(angles).sin())
    turned = rotate(torch.tensor([[[[1.0, 0.0, 0.0, 1.0]]]]), (cos[1:], sin[1:]))
    expected = [math.cos(2.0), -math.sin(0.2), math.sin(2.0), math.cos(0.2)]
    torch.testing.assert_close(turned.flatten(), torch.tensor(expected))


def test_rotation_depends_on_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8).unbind()

    def score(first: int, second: int) -> Tensor:
        one = rotate(query, rotary_table(torch.tensor([first]), 8))
        other = rotate(key, rotary_table(torch.tensor([second]), 8))
        return (one * other).sum()

    torch.testing.assert_close(score(3, 10), score(40, 47))


def test_heads_must_divide() -> None:
    with pytest.raises(ValueError, match="does not split into 3 heads"):
        SelfAttention(8, 3)
    with pytest.raises(ValueError, match="even size"):
        SelfAttention(6, 2)


def test_timestep_embedding_tells_times_apart() -> None:
    torch.manual_seed(0)
    embedding = TimestepEmbedding(6, num_frequencies=4)
    out = embedding(torch.tensor([0.0, 0.5, 0.5]))
    assert out.shape == (3, 6)
    torch.testing.assert_close(out[1], out[2])
    assert not torch.allclose(out[0], out[1], atol=1e-2)
    # At time 0 all sines are 0 and all cosines 1.
    zero = embedding.layers(torch.tensor([[0.0] * 4 + [1.0] * 4]))
    torch.testing.assert_close(out[:1], zero)


@pytest.mark.parametrize("precision", ["float16", "int8"])
@torch.no_grad()
def test_smaller_caches_deviate_a_little_and_streams_equal_whole(precision: Any) -> None:
    model, context = small(), Context(chunk_frames=4, left_frames=6, pinned_frames=3)
    x = torch.randn(2, 19, 8, generator=torch.Generator().manual_seed(3))
    exact = model(x, context)
    plain = model.init_state(2)
    keep_caches_in(model, precision)
    whole = model(x, context)
    assert 0 < (whole - exact).abs().max() < 0.05
    torch.testing.assert_close(stream(model, x, context, [1, 2]), whole, atol=1e-5, rtol=0)
    state = model.init_state(2)
    for one in (plain, state):
        model(x[:, :3], context, one)
    assert sizes_of(state) < 0.6 * sizes_of(plain)


def sizes_of(state: TransformerState) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in state.layers)


def test_a_frame_is_packed_by_itself() -> None:
    x = torch.tensor([[[[1.27, -0.64, 0.0, 0.006]]], [[[-2.54, 2.54, 0.02, 1.0]]]])
    packed = pack(x, torch.int8)
    assert packed.shape == (2, 1, 1, 8) and packed.dtype == torch.int8
    assert packed[0, 0, 0, :4].tolist() == [127, -64, 0, 1]
    assert packed[1, 0, 0, :4].tolist() == [-127, 127, 1, 50]
    expected = torch.tensor([[[[1.27, -0.64, 0.0, 0.01]]], [[[-2.54, 2.54, 0.02, 1.0]]]])
    torch.testing.assert_close(unpack(packed, torch.float32), expected)
    assert torch.equal(pack(x[1:], torch.int8), packed[1:])
    assert pack(x, torch.float32) is x and unpack(x, torch.float32) is x
