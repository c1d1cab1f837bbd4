"""Velocity estimator: a diffusion transformer (DiT, Peebles and Xie, 2022), causal by chunks.

Shapes: B batch, T mel frames, M mel bins, U patches (T / patch_frames), D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tokenlm.modules.attention import AttentionState, SelfAttention
from tokenlm.modules.context import FULL_CONTEXT, Context
from tokenlm.modules.conv import CausalConv1d, ConvState
from tokenlm.modules.streaming import State
from tokenlm.modules.timestep import TimestepEmbedding
from tokenlm.modules.transformer import (
    AttentionPlan,
    FeedForward,
    TransformerState,
    advance,
    plan_attention,
)


@dataclass
class EstimatorState(State):
    """What one solver step of a stream remembers between chunks."""

    position: ConvState
    transformer: TransformerState


class _Block(nn.Module):
    """Attention and feed-forward, shifted, scaled and gated by the time of the flow."""

    def __init__(self, dim: int, num_heads: int, expansion: float, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.attention = SelfAttention(dim, num_heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.feed_forward = FeedForward(dim, expansion, dropout)
        self.modulation = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def forward(
        self, x: Tensor, time: Tensor, plan: AttentionPlan, state: AttentionState | None
    ) -> Tensor:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (
            (time + self.modulation).unsqueeze(2).unbind(dim=1)
        )
        hidden = self.attention_norm(x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.attention(hidden, plan.table, plan.mask, state)
        hidden = self.feed_forward_norm(x) * (1 + scale_f) + shift_f
        return x + gate_f * self.feed_forward(hidden)


class VelocityEstimator(nn.Module):
    """Velocity of the flow at a point x_t, given the condition.

    The modulation of the blocks is one projection of the time plus a table of each block
    (adaLN-single, Chen et al., 2023, PixArt-alpha), a sixth of the parameters of one projection
    for each block.
    """

    def __init__(
        self,
        *,
        num_mels: int,
        condition_dim: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        expansion: float,
        dropout: float,
        patch_frames: int,
    ) -> None:
        super().__init__()
        self.patch_frames = patch_frames
        self.num_mels = num_mels
        self.head_dim = dim // num_heads
        self.embed = nn.Linear((num_mels + condition_dim) * patch_frames, dim)
        self.position = CausalConv1d(dim, dim, 7, groups=dim)
        self.time = TimestepEmbedding(dim)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        blocks = [_Block(dim, num_heads, expansion, dropout) for _ in range(num_layers)]
        self.blocks = cast("Sequence[_Block]", nn.ModuleList(blocks))
        self.final_norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.final_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
        self.project = nn.Linear(dim, num_mels * patch_frames)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def init_state(self, batch_size: int) -> EstimatorState:
        """State before the first frame."""
        layers = [block.attention.init_state(batch_size) for block in self.blocks]
        return EstimatorState(
            position=self.position.init_state(batch_size),
            transformer=TransformerState(layers=layers, next_position=0),
        )

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Tensor,
        context: Context = FULL_CONTEXT,
        state: EstimatorState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_frames: Tensor | None = None,
    ) -> Tensor:
        """Velocity (B, T, M).

        Args:
            x_t: (B, T, M) points of the flow; T is a multiple of `patch_frames`.
            t: (B,) times.
            condition: (B, T, condition_dim).
            context: in mel frames, all sizes multiples of `patch_frames`.
            state: of this solver step, advanced in place.
            mask: (B, T) True where valid, without a state.
            pinned_frames: (B,) prompt lengths of the items, where they differ.
        """
        batch, frames, _ = x_t.shape
        patch = self.patch_frames
        if frames % patch:
            raise ValueError(f"{frames} frames are not a multiple of the patch of {patch}")
        context = context if context.is_full else context.divided(patch)
        if mask is not None:
            mask = mask[:, ::patch]
            x_t = x_t * mask.repeat_interleave(patch, dim=1)[..., None]
        joined = torch.cat([x_t, condition], dim=-1).reshape(batch, frames // patch, -1)
        x = self.embed(joined)
        if mask is not None:
            x = x * mask[..., None]
        x = x + self.position(x, state.position if state else None)
        time = self.time(t)
        modulation = self.modulation(time).view(batch, 6, -1)
        transformer = state.transformer if state else None
        plan = plan_attention(
            x,
            self.head_dim,
            context,
            cached=transformer.layers[0].positions if transformer else None,
            next_position=transformer.next_position if transformer else 0,
            mask=mask,
            pinned_frames=None if pinned_frames is None else pinned_frames // patch,
        )
        for index, block in enumerate(self.blocks):
            x = block(x, modulation, plan, transformer.layers[index] if transformer else None)
        if transformer is not None:
            advance(transformer, plan.positions, context, x.shape[1])
        shift, scale = self.final_modulation(time).unsqueeze(1).chunk(2, dim=-1)
        x = self.project(self.final_norm(x) * (1 + scale) + shift)
        return x.view(batch, frames, self.num_mels)
