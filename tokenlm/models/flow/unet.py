"""Velocity estimator of CosyVoice 2: residual convolutions and transformer blocks.

Shapes: B batch, T mel frames, M mel bins, D channels, I channels inside the attention. It is laid
out as a U-Net, but all of it runs at the frame rate of the mel. Order comes from the convolutions
alone, the attention has no positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.models.flow.config import FlowConfig
from tokenlm.modules.attention import (
    Cache,
    Caches,
    Plan,
    SelfAttention,
    TimestepEmbedding,
    TransformerState,
    plan_attention,
)
from tokenlm.modules.conv import CausalConv1d, ConvState
from tokenlm.modules.streaming import FULL_CONTEXT, Context, State


@dataclass
class UNetState(State):
    """What one solver step of a stream remembers between chunks."""

    convs: list[ConvState]
    """In the order in which the convolutions run."""
    transformer: TransformerState


class _TransformerBlock(nn.Module):
    """x + attention(norm x), then x + feed_forward(norm x)."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        # Order comes from the convolutions alone.
        self.attention = SelfAttention(
            dim, num_heads, head_dim, fused=False, bias=False, rotary=None
        )
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor, plan: Plan, cache: Cache) -> Tensor:
        x = x + self.attention(self.attention_norm(x), plan, cache)
        return x + self.feed_forward(self.feed_forward_norm(x))


class _ConvBlock(nn.Module):
    """Causal convolution, norm over channels, Mish."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv = CausalConv1d(in_dim, out_dim, 3)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor, state: ConvState | None) -> Tensor:
        return functional.mish(self.norm(self.conv(x, state)))


class _Resnet(nn.Module):
    """Two convolutions with the time between them, and a residual."""

    def __init__(self, in_dim: int, out_dim: int, time_dim: int) -> None:
        super().__init__()
        self.first = _ConvBlock(in_dim, out_dim)
        self.time = nn.Linear(time_dim, out_dim)
        self.second = _ConvBlock(out_dim, out_dim)
        self.residual = nn.Linear(in_dim, out_dim)

    def forward(self, x: Tensor, time: Tensor, states: list[ConvState] | None) -> Tensor:
        hidden = self.first(x, states[0] if states else None) + self.time(time)[:, None]
        return self.second(hidden, states[1] if states else None) + self.residual(x)


class _Level(nn.Module):
    """A resnet, transformer blocks, and at both ends of the network a convolution."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        time_dim: int,
        num_blocks: int,
        num_heads: int,
        head_dim: int,
        *,
        has_conv: bool,
    ) -> None:
        super().__init__()
        self.resnet = _Resnet(in_dim, dim, time_dim)
        blocks = [_TransformerBlock(dim, num_heads, head_dim) for _ in range(num_blocks)]
        self.blocks = cast("Sequence[_TransformerBlock]", nn.ModuleList(blocks))
        self.conv = CausalConv1d(dim, dim, 3) if has_conv else None

    def convolutions(self) -> list[CausalConv1d]:
        """In the order in which they run."""
        last = [] if self.conv is None else [self.conv]
        return [self.resnet.first.conv, self.resnet.second.conv, *last]


class UNet(nn.Module):
    """Velocity of the flow at a point x_t, given the condition."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim, num_mels = config.dim, config.mel.num_mels
        in_dim = num_mels + config.condition_dim
        heads = (config.num_heads, config.head_dim or dim // config.num_heads)
        self.time = TimestepEmbedding(4 * dim, num_frequencies=in_dim // 2)

        def level(size: int, has_conv: bool) -> _Level:
            return _Level(size, dim, 4 * dim, config.blocks_per_level, *heads, has_conv=has_conv)

        self.down = level(in_dim, True)
        mid = [level(dim, False) for _ in range(config.num_mid_levels)]
        self.mid = cast("Sequence[_Level]", nn.ModuleList(mid))
        self.up = level(2 * dim, True)
        self.final = _ConvBlock(dim, dim)
        self.project = nn.Linear(dim, num_mels)

    @property
    def _levels(self) -> list[_Level]:
        return [self.down, *self.mid, self.up]

    def init_state(self, batch_size: int) -> UNetState:
        """State before the first frame."""
        convs = [conv for level in self._levels for conv in level.convolutions()]
        convs.append(self.final.conv)
        layers = [
            block.attention.init_state(batch_size)
            for level in self._levels
            for block in level.blocks
        ]
        return UNetState(
            convs=[conv.init_state(batch_size) for conv in convs],
            transformer=TransformerState(layers),
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
        return plan_attention(
            x, context, caches, head_dim=None, mask=mask, pinned_frames=pinned_frames
        )

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Tensor,
        context: Context = FULL_CONTEXT,
        state: UNetState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_frames: Tensor | None = None,
        plan: Plan | None = None,
    ) -> Tensor:
        """Velocity (B, T, M), zero where padded.

        Args:
            x_t: (B, T, M) points of the flow.
            t: (B,) times.
            condition: (B, T, condition_dim).
            context: in mel frames.
            state: of this solver step, advanced in place.
            mask: (B, T) True where valid, without a state. Padding follows the valid frames,
                where no convolution of a valid frame looks.
            pinned_frames: (B,) frames that a bounded window keeps, where items have their own.
            plan: of `plan`, where it is known already, in place of mask and pinned_frames.
        """
        time = functional.mish(self.time(t))
        transformer: Caches | None = state.transformer if state else None
        if plan is None:
            plan = self.plan(x_t, context, transformer, mask=mask, pinned_frames=pinned_frames)
        if transformer is not None:
            transformer.reserve(x_t.shape[1])
        conv_states = iter(state.convs) if state else None
        caches = iter(transformer.layers) if transformer else None

        def convs(count: int) -> list[ConvState] | None:
            return None if conv_states is None else [next(conv_states) for _ in range(count)]

        def run(level: _Level, x: Tensor) -> tuple[Tensor, Tensor]:
            x = level.resnet(x, time, convs(2))
            for block in level.blocks:
                x = block(x, plan, None if caches is None else next(caches))
            if level.conv is None:
                return x, x
            states = convs(1)
            return level.conv(x, states[0] if states else None), x

        x, skip = run(self.down, torch.cat([x_t, condition], dim=-1))
        for level in self.mid:
            x, _ = run(level, x)
        x, _ = run(self.up, torch.cat([x, skip], dim=-1))
        states = convs(1)
        x = self.project(self.final(x, states[0] if states else None))
        if transformer is not None:
            transformer.advance(plan, x.shape[1])
        return x if mask is None else x * mask[..., None]
