"""Multi-head self-attention with a cache of keys and values.

Shapes: B batch, T frames, D channels, H heads, K cached frames, E channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.rope import rotate
from tokenlm.modules.streaming import State, shared_field


@dataclass
class AttentionState(State):
    """Keys and values that later chunks may still see."""

    keys: Tensor
    """(B, H, K, E), rotated."""
    values: Tensor
    """(B, H, K, E)"""
    positions: Tensor = shared_field()
    """(K,) position of each cached frame; (B, K) while ragged sequences run together."""


class SelfAttention(nn.Module):
    """Self-attention over (B, T, D) with rotary positions."""

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % num_heads or (dim // num_heads) % 2:
            raise ValueError(f"dim {dim} does not split into {num_heads} heads of even size")
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def init_state(self, batch_size: int) -> AttentionState:
        """An empty cache."""
        # The weights may be kept in fewer bits, or packed; the bias has the type of what comes out.
        like = self.out.bias
        empty = like.new_zeros(batch_size, self.num_heads, 0, like.shape[0] // self.num_heads)
        positions = torch.zeros(0, dtype=torch.long, device=like.device)
        return AttentionState(keys=empty, values=empty, positions=positions)

    def forward(
        self,
        x: Tensor,
        table: tuple[Tensor, Tensor],
        mask: Tensor | None,
        state: AttentionState | None = None,
    ) -> Tensor:
        """Attends from the frames of `x` to the cached frames and to those of `x`.

        Args:
            x: (B, T, D).
            table: rotary table of the positions of `x`.
            mask: broadcastable to (B, H, T, K + T), True where visible; None: everything is.
            state: cache, which grows by the frames of `x` (trimmed by the caller).

        Returns:
            (B, T, D)
        """
        batch, frames, dim = x.shape
        qkv = self.query_key_value(x).view(batch, frames, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, table), rotate(key, table)
        if state is not None:
            key, value = extend(state, key, value)
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(attended.transpose(1, 2).reshape(batch, frames, dim))


Cache: TypeAlias = AttentionState | list[AttentionState] | None
"""Of a batch, or of each of the streams that run side by side in it."""
Mask: TypeAlias = Tensor | list[Tensor | None] | None
"""The same; None where everything is visible."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Mask,
    cache: Cache,
) -> Tensor:
    """Attends from new frames to those of a cache and to themselves.

    Args:
        query: (B, H, T, E) of the new frames.
        key: the same.
        value: the same.
        mask: broadcastable to (B, H, T, K + T), True where visible; None: everything is.
        cache: grows by the new frames. Where streams run together there is one for each, and a mask
            for each: their rows stand one stream after the other, and their caches, which may have
            any lengths, are neither padded nor copied.

    Returns:
        (B, H, T, E)
    """
    if isinstance(cache, list):
        assert isinstance(mask, list)
        rows = query.shape[0] // len(cache)
        parts = zip(query.split(rows), key.split(rows), value.split(rows), mask, cache, strict=True)
        return torch.cat([attend(*part) for part in parts])
    assert not isinstance(mask, list)
    if cache is not None:
        key, value = extend(cache, key, value)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def extend(state: AttentionState, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Puts new keys and values (B, H, T, E) behind those of `state`; gives all (B, H, K + T, E).

    Room is made for half as much again, so that most chunks copy nothing but themselves.
    """
    held = state.keys.shape[2]
    needed = held + keys.shape[2]
    room = _room(state)
    if room is None or room[0].shape[2] < needed:
        size = _roomy(held, needed)
        room = (
            keys.new_empty(*keys.shape[:2], size, keys.shape[3]),
            values.new_empty(*values.shape[:2], size, values.shape[3]),
        )
        room[0][:, :, :held] = state.keys
        room[1][:, :, :held] = state.values
        state._room = room  # type: ignore[attr-defined]
    room[0][:, :, held:needed] = keys
    room[1][:, :, held:needed] = values
    state.keys, state.values = room[0][:, :, :needed], room[1][:, :, :needed]
    return state.keys, state.values


def make_room(states: Sequence[AttentionState], num_frames: int) -> None:
    """Makes room for new frames in the caches of all layers of a stream at once, without gradient.

    The caches have equal sizes. Their room is one piece of memory: a large one goes back to the
    system as a whole when it is outgrown, and costs nothing where nothing is written yet; many
    small ones leave holes that are never filled.
    """
    held = states[0].keys.shape[2]
    needed = held + num_frames
    rooms = [_room(state) for state in states]
    if all(room is not None and room[0].shape[2] >= needed for room in rooms):
        return
    batch, heads, _, channels = states[0].keys.shape
    size = _roomy(held, needed)
    whole = states[0].keys.new_empty(len(states), 2, batch, heads, size, channels)
    for index, state in enumerate(states):
        keys, values = whole[index, 0], whole[index, 1]
        keys[:, :, :held], values[:, :, :held] = state.keys, state.values
        state.keys, state.values = keys[:, :, :held], values[:, :, :held]
        state._room = (keys, values)  # type: ignore[attr-defined]


def _room(state: AttentionState) -> tuple[Tensor, Tensor] | None:
    """Where a cache may grow; None where it was copied, trimmed or put together since."""
    room: tuple[Tensor, Tensor] | None = getattr(state, "_room", None)
    if room is None:
        return None
    whole, held = room[0].untyped_storage(), state.keys.untyped_storage()
    is_own = whole.data_ptr() == held.data_ptr()
    return room if is_own and room[0].storage_offset() == state.keys.storage_offset() else None


def _roomy(held: int, needed: int) -> int:
    return needed if held == 0 else needed + needed // 2


def trim(state: AttentionState, positions: Tensor, keep: Tensor | None) -> None:
    """Drops from `state` what no later chunk can see.

    Args:
        state: changed in place.
        positions: (K,) of all frames that it holds.
        keep: (K,) True where a frame stays; None keeps all.
    """
    if keep is None:
        state.positions = positions
        return
    state.keys = state.keys[:, :, keep]
    state.values = state.values[:, :, keep]
    state.positions = positions[keep]
