"""Velocity estimator of CosyVoice 3: a diffusion transformer (Peebles and Xie, 2022).

Shapes: B batch, T mel frames, M mel bins, D channels, H heads, E channels of a head. Each block has
a time modulation of its own. The rotation is put on the first E channels of queries and keys before
they are split, so that the first head alone knows positions; the weights were trained so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.attention import AttentionState, Cache, Mask, attend
from tokenlm.modules.context import FULL_CONTEXT, Context
from tokenlm.modules.conv import CausalConv1d, ConvState
from tokenlm.modules.streaming import State
from tokenlm.modules.timestep import TimestepEmbedding
from tokenlm.modules.transformer import (
    AttentionPlan,
    SideBySide,
    TransformerState,
    advance,
    plan_attention,
    plan_side_by_side,
)

_KERNEL_SIZE = 31
_GROUPS = 16


@dataclass
class DiTState(State):
    """What one solver step of a stream remembers between chunks."""

    positions: list[ConvState]
    transformer: TransformerState | SideBySide


def rotate_first_head(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates the pairs (2i, 2i + 1) of the first E channels of `x` (B, T, D)."""
    cos, sin = (part.to(x.dtype) for part in table)
    size = 2 * cos.shape[-1]
    even, odd = x[..., :size].unflatten(-1, (-1, 2)).unbind(dim=-1)
    rotated = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    return torch.cat([rotated, x[..., size:]], dim=-1)


class _Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        inner = num_heads * head_dim
        self.query = nn.Linear(dim, inner)
        self.key = nn.Linear(dim, inner)
        self.value = nn.Linear(dim, inner)
        self.out = nn.Linear(inner, dim)

    def init_state(self, batch_size: int) -> AttentionState:
        like = self.out.bias
        empty = like.new_zeros(batch_size, self.num_heads, 0, self.head_dim)
        positions = torch.zeros(0, dtype=torch.long, device=like.device)
        return AttentionState(keys=empty, values=empty, positions=positions)

    def forward(
        self,
        x: Tensor,
        table: tuple[Tensor, Tensor],
        visible: Mask,
        valid: Tensor | None,
        state: Cache,
    ) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (
                rotate_first_head(self.query(x), table),
                rotate_first_head(self.key(x), table),
                self.value(x),
            )
        )
        attended = attend(query, key, value, visible, state)
        out = self.out(attended.transpose(1, 2).flatten(2))
        return out if valid is None else out * valid[..., None]


class _Block(nn.Module):
    """Attention and feed-forward, shifted, scaled and gated by the time of the flow."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, expansion: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 6 * dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.attention = _Attention(dim, num_heads, head_dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, expansion * dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(expansion * dim, dim),
        )

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        table: tuple[Tensor, Tensor],
        visible: Mask,
        valid: Tensor | None,
        state: Cache,
    ) -> Tensor:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (
            self.modulation(time)[:, None].chunk(6, dim=-1)
        )  # fmt: skip
        hidden = self.norm(x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.attention(hidden, table, visible, valid, state)
        hidden = self.norm(x) * (1 + scale_f) + shift_f
        return x + gate_f * self.feed_forward(hidden)


class DiTEstimator(nn.Module):
    """Velocity of the flow at a point x_t, given the condition."""

    def __init__(
        self,
        *,
        num_mels: int,
        condition_dim: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        expansion: int,
    ) -> None:
        super().__init__()
        if dim % _GROUPS:
            raise ValueError(f"dim {dim} is not a multiple of {_GROUPS}")
        self.head_dim = head_dim
        self.time = TimestepEmbedding(dim, num_frequencies=128)
        self.embed = nn.Linear(num_mels + condition_dim, dim)
        convs = [CausalConv1d(dim, dim, _KERNEL_SIZE, groups=_GROUPS) for _ in range(2)]
        self.position = cast("Sequence[CausalConv1d]", nn.ModuleList(convs))
        blocks = [_Block(dim, num_heads, head_dim, expansion) for _ in range(num_layers)]
        self.blocks = cast("Sequence[_Block]", nn.ModuleList(blocks))
        self.final_norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.final_modulation = nn.Linear(dim, 2 * dim)
        self.project = nn.Linear(dim, num_mels)

    def init_state(self, batch_size: int) -> DiTState:
        """State before the first frame."""
        layers = [block.attention.init_state(batch_size) for block in self.blocks]
        return DiTState(
            positions=[conv.init_state(batch_size) for conv in self.position],
            transformer=TransformerState(layers=layers, next_position=0),
        )

    def embed_input(self, x_t: Tensor, condition: Tensor, state: DiTState | None = None) -> Tensor:
        """Channels (B, T, D) of the input, with where each frame stands."""
        x = self.embed(torch.cat([x_t, condition], dim=-1))
        hidden = x
        for index, conv in enumerate(self.position):
            hidden = functional.mish(conv(hidden, state.positions[index] if state else None))
        return x + hidden

    def plan(
        self,
        x: Tensor,
        context: Context,
        past: TransformerState | SideBySide | None = None,
        *,
        mask: Tensor | None = None,
        pinned_frames: Tensor | None = None,
    ) -> AttentionPlan:
        """Rotation and mask of frames (B, T, any), the same for all solver steps of a chunk."""
        if isinstance(past, SideBySide):
            rows = x.split(x.shape[0] // len(past.streams))
            pairs = zip(rows, past.streams, strict=True)
            return plan_side_by_side(rows, [self.plan(row, context, one) for row, one in pairs])
        return plan_attention(
            x,
            self.head_dim,
            context,
            cached=past.layers[0].positions if past else None,
            next_position=past.next_position if past else 0,
            mask=mask,
            pinned_frames=pinned_frames,
        )

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Tensor,
        context: Context = FULL_CONTEXT,
        state: DiTState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_frames: Tensor | None = None,
        plan: AttentionPlan | None = None,
    ) -> Tensor:
        """Velocity (B, T, M); padded frames hold something.

        Args:
            x_t: (B, T, M) points of the flow.
            t: (B,) times.
            condition: (B, T, condition_dim).
            context: in mel frames.
            state: of this solver step, advanced in place.
            mask: (B, T) True where valid, without a state.
            pinned_frames: (B,) frames that a bounded window keeps, where items have their own.
            plan: of `plan`, where it is known already, in place of mask and pinned_frames.
        """
        time = functional.silu(self.time(t))
        x = self.embed_input(x_t, condition, state)
        transformer = state.transformer if state else None
        if plan is None:
            plan = self.plan(x, context, transformer, mask=mask, pinned_frames=pinned_frames)
        for index, block in enumerate(self.blocks):
            cache = transformer.layers[index] if transformer else None
            x = block(x, time, plan.table, plan.mask, mask, cache)
        if transformer is not None:
            advance(transformer, plan.positions, context, x.shape[1])
        scale, shift = self.final_modulation(time)[:, None].chunk(2, dim=-1)
        return self.project(self.final_norm(x) * (1 + scale) + shift)
