"""Velocity estimator: a diffusion transformer (DiT, Peebles and Xie, 2022), causal by chunks.

Shapes: B batch, T mel frames, M mel bins, U patches (T / patch_frames), D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.models.flow.config import FlowConfig
from tokenlm.modules.attention import (
    Cache,
    Caches,
    FeedForward,
    Plan,
    SelfAttention,
    TimestepEmbedding,
    TransformerState,
    plan_attention,
)
from tokenlm.modules.conv import CausalConv1d, ConvState
from tokenlm.modules.streaming import FULL_CONTEXT, Context, State

_F5_KERNEL_SIZE = 31
_F5_GROUPS = 16


@dataclass
class DiTState(State):
    """What one solver step of a stream remembers between chunks."""

    positions: list[ConvState]
    transformer: TransformerState


class _Block(nn.Module):
    """Attention and feed-forward, shifted, scaled and gated by the time of the flow."""

    def __init__(self, config: FlowConfig, *, is_f5: bool) -> None:
        super().__init__()
        dim, heads = config.dim, config.num_heads
        self.norm = nn.LayerNorm(dim, eps=1e-6 if is_f5 else 1e-5, elementwise_affine=False)
        if is_f5:
            inner = int(dim * config.expansion)
            self.modulation: nn.Parameter | nn.Module = nn.Linear(dim, 6 * dim)
            self.attention = SelfAttention(
                dim, heads, config.head_dim, fused=False, rotary="first_head"
            )
            self.feed_forward: nn.Sequential = nn.Sequential(
                nn.Linear(dim, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, dim)
            )
        else:
            self.attention = SelfAttention(dim, heads, config.head_dim, dropout=config.dropout)
            self.feed_forward = FeedForward(dim, config.expansion, config.dropout)
            self.modulation = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def forward(self, x: Tensor, time: Tensor, plan: Plan, cache: Cache) -> Tensor:
        """(B, U, D); `time` (B, 6, D) of all blocks, or (B, D) that the block projects itself."""
        if isinstance(self.modulation, nn.Parameter):
            modulation = rearrange(time + self.modulation, "b six d -> six b 1 d")
        else:
            modulation = rearrange(self.modulation(time), "b (six d) -> six b 1 d", six=6)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation
        hidden = self.norm(x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.attention(hidden, plan, cache)
        hidden = self.norm(x) * (1 + scale_f) + shift_f
        return x + gate_f * self.feed_forward(hidden)


class DiT(nn.Module):
    """Velocity of the flow at a point x_t, given the condition.

    As `dit`, the modulation of the blocks is one projection of the time plus a table of each block
    (adaLN-single, Chen et al., 2023, PixArt-alpha), a sixth of the parameters of one projection
    for each block; several frames make a patch. As `f5_dit` it is the network of F5-TTS (Chen et
    al., 2024) and CosyVoice 3: a projection in each block, positions by two grouped convolutions,
    and a rotation of the first head alone.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim, num_mels, patch = config.dim, config.mel.num_mels, config.patch_frames
        self.is_f5 = config.estimator == "f5_dit"
        if self.is_f5 and dim % _F5_GROUPS:
            raise ValueError(f"dim {dim} is not a multiple of {_F5_GROUPS}")
        self.patch_frames, self.num_mels = patch, num_mels
        self.head_dim = config.head_dim or dim // config.num_heads
        if self.is_f5:
            self.time = TimestepEmbedding(dim, num_frequencies=128)
        self.embed = nn.Linear((num_mels + config.condition_dim) * patch, dim)
        if self.is_f5:
            convs = [CausalConv1d(dim, dim, _F5_KERNEL_SIZE, groups=_F5_GROUPS) for _ in range(2)]
            self.position: nn.Module = nn.ModuleList(convs)
        else:
            self.position = CausalConv1d(dim, dim, 7, groups=dim)
            self.time = TimestepEmbedding(dim)
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        blocks = [_Block(config, is_f5=self.is_f5) for _ in range(config.num_layers)]
        self.blocks = cast("Sequence[_Block]", nn.ModuleList(blocks))
        self.final_norm = nn.LayerNorm(
            dim, eps=1e-6 if self.is_f5 else 1e-5, elementwise_affine=False
        )
        last = nn.Linear(dim, 2 * dim)
        self.final_modulation = last if self.is_f5 else nn.Sequential(nn.SiLU(), last)
        self.project = nn.Linear(dim, num_mels * patch)
        if not self.is_f5:
            nn.init.zeros_(self.project.weight)
            nn.init.zeros_(self.project.bias)

    @property
    def _convs(self) -> Sequence[CausalConv1d]:
        convs = self.position if self.is_f5 else [self.position]
        return cast("Sequence[CausalConv1d]", convs)

    def init_state(self, batch_size: int) -> DiTState:
        """State before the first frame."""
        return DiTState(
            positions=[conv.init_state(batch_size) for conv in self._convs],
            transformer=TransformerState(
                [block.attention.init_state(batch_size) for block in self.blocks]
            ),
        )

    def plan(
        self,
        x: Tensor,
        context: Context,
        caches: Caches | None = None,
        *,
        mask: Tensor | None = None,
        pinned_frames: Tensor | None = None,
    ) -> Plan:
        """Positions and mask of frames (B, T, any), shared by all solver steps."""
        patch = self.patch_frames
        return plan_attention(
            x[:, ::patch],
            context if context.is_full else context.divided(patch),
            caches,
            head_dim=self.head_dim,
            mask=None if mask is None else mask[:, ::patch],
            pinned_frames=None if pinned_frames is None else pinned_frames // patch,
        )

    def embed_input(
        self,
        x_t: Tensor,
        condition: Tensor,
        state: DiTState | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Input (B, U, D) with positions added; `mask` (B, U)."""
        patch = self.patch_frames
        if mask is not None and not self.is_f5:
            x_t = x_t * mask.repeat_interleave(patch, dim=1)[..., None]
        joined = torch.cat([x_t, condition], dim=-1)
        x = self.embed(rearrange(joined, "b (u p) d -> b u (p d)", p=patch))
        if mask is not None and not self.is_f5:
            x = x * mask[..., None]
        hidden = x
        for index, conv in enumerate(self._convs):
            hidden = conv(hidden, state.positions[index] if state else None)
            hidden = functional.mish(hidden) if self.is_f5 else hidden
        return x + hidden

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
        plan: Plan | None = None,
    ) -> Tensor:
        """Velocity (B, T, M); padded frames hold something.

        Args:
            x_t: (B, T, M) points of the flow; T is a multiple of `patch_frames`.
            t: (B,) times.
            condition: (B, T, condition_dim).
            context: in mel frames, all sizes multiples of `patch_frames`.
            state: of this solver step, advanced in place.
            mask: (B, T) True where valid, without a state.
            pinned_frames: (B,) prompt lengths of the items, where they differ.
            plan: of `plan`, where it is known already, in place of mask and pinned_frames.
        """
        if x_t.shape[1] % self.patch_frames:
            raise ValueError(
                f"{x_t.shape[1]} frames are not a multiple of the patch of {self.patch_frames}"
            )
        caches = state.transformer if state else None
        if plan is None:
            plan = self.plan(x_t, context, caches, mask=mask, pinned_frames=pinned_frames)
        valid = None if mask is None else mask[:, :: self.patch_frames]
        x = self.embed_input(x_t, condition, state, valid)
        time = self.time(t)
        if self.is_f5:
            modulation = time = functional.silu(time)
        else:
            modulation = rearrange(self.modulation(time), "b (six d) -> b six d", six=6)
        if caches is not None:
            caches.reserve(x.shape[1])
        for index, block in enumerate(self.blocks):
            x = block(x, modulation, plan, None if caches is None else caches.layers[index])
        if caches is not None:
            caches.advance(plan, x.shape[1])
        first, second = rearrange(self.final_modulation(time), "b (two d) -> two b 1 d", two=2)
        scale, shift = (first, second) if self.is_f5 else (second, first)
        x = self.project(self.final_norm(x) * (1 + scale) + shift)
        return rearrange(x, "b u (p m) -> b (u p) m", p=self.patch_frames)
