"""Token encoder of the flow of CosyVoice 2: relative attention before and after the upsampling.

Shapes: B batch, N tokens, T mel frames (N * frames_per_token), L look-ahead tokens, D channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from tokenlm.models.flow.lookahead import LookaheadLayer, LookaheadLayerState
from tokenlm.modules.context import FULL_CONTEXT, Context
from tokenlm.modules.conv import CausalConv1d, ConvState
from tokenlm.modules.relative import RelativeTransformer
from tokenlm.modules.streaming import State
from tokenlm.modules.transformer import SideBySide, TransformerState


class _Embed(nn.Sequential):
    """Linear layer and norm, times the root of the width."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.Linear(dim, dim), nn.LayerNorm(dim))
        self.scale = math.sqrt(dim)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.scale


@dataclass
class ConformerState(State):
    """What a stream remembers between pieces of tokens."""

    lookahead: LookaheadLayerState
    blocks: TransformerState | SideBySide
    upsample: ConvState
    up_blocks: TransformerState | SideBySide


class ConformerEncoder(nn.Module):
    """Embedded tokens (B, N, D) to frames (B, T, D)."""

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        num_layers: int,
        num_up_layers: int,
        lookahead_tokens: int,
        frames_per_token: int,
    ) -> None:
        super().__init__()
        self.frames_per_token = frames_per_token
        self.embed = _Embed(dim)
        self.lookahead = LookaheadLayer(dim, dim, lookahead_tokens)
        self.blocks = RelativeTransformer(dim, num_layers, num_heads, hidden_dim)
        self.upsample = CausalConv1d(dim, dim, 2 * frames_per_token + 1)
        self.up_embed = _Embed(dim)
        self.up_blocks = RelativeTransformer(dim, num_up_layers, num_heads, hidden_dim)
        self.norm = nn.LayerNorm(dim)

    def init_state(self, batch_size: int) -> ConformerState:
        """State before the first token."""
        return ConformerState(
            lookahead=self.lookahead.init_state(batch_size),
            blocks=self.blocks.init_state(batch_size),
            upsample=self.upsample.init_state(batch_size),
            up_blocks=self.up_blocks.init_state(batch_size),
        )

    def forward(
        self,
        x: Tensor,
        context: Context = FULL_CONTEXT,
        state: ConformerState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_tokens: Tensor | None = None,
        future: Tensor | None = None,
        flush: bool = False,
    ) -> Tensor:
        """Frames of embedded tokens.

        Args:
            x: (B, N, D) whole sequences, zero where padded, or with `state` the next piece.
            context: in tokens.
            state: advanced in place; the last tokens wait in it for their future.
            mask: (B, N) True where valid, without a state. Behind a shorter item the look-ahead
                layer sees the embedding of zero, not zeros, as in the reference.
            pinned_tokens: (B,) tokens that a bounded window keeps, where items have their own.
            future: (B, L, D) embedded tokens that only the look-ahead layer sees, without a state.
            flush: with a state, gives what waits as well.

        Returns:
            (B, T, D)
        """
        future = None if future is None else self.embed(future)
        x = self.lookahead(
            self.embed(x), state.lookahead if state else None, future=future, flush=flush
        )
        factor = self.frames_per_token
        if x.shape[1] == 0:
            return x
        pinned = pinned_tokens
        past = state.blocks if state else None
        x = self.blocks(x, context, past, mask=mask, pinned_frames=pinned)
        x = x.repeat_interleave(factor, dim=1)
        x = self.up_embed(self.upsample(x, state.upsample if state else None))
        if mask is not None:
            mask = mask.repeat_interleave(factor, dim=1)
        pinned = None if pinned is None else pinned * factor
        past, context = state.up_blocks if state else None, context.scaled(factor)
        x = self.up_blocks(x, context, past, mask=mask, pinned_frames=pinned)
        return self.norm(x)
