"""Token encoders of the flow: speech tokens to a condition at the mel frame rate.

Shapes: B batch, N tokens, T mel frames (N * frames_per_token), L look-ahead tokens, D channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.models.flow.config import FlowConfig
from tokenlm.modules.attention import Transformer, TransformerState
from tokenlm.modules.conv import CausalConv1d, ConvState, LookaheadConv1d, LookaheadState
from tokenlm.modules.relative import RelativeTransformer
from tokenlm.modules.streaming import FULL_CONTEXT, Context, State


class Encoder(Protocol):
    """What the encoders have in common."""

    embedding: nn.Embedding

    def init_state(self, batch_size: int) -> EncoderState:
        """State before the first token."""
        ...

    def __call__(
        self,
        tokens: Tensor,
        context: Context = FULL_CONTEXT,
        state: EncoderState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_tokens: Tensor | None = None,
        future: Tensor | None = None,
        flush: bool = False,
    ) -> Tensor:
        """Condition (B, T, num_mels) of tokens (B, N).

        Args:
            tokens: whole sequences, or with `state` the next piece.
            context: in tokens.
            state: advanced in place; the last tokens wait in it for their future.
            mask: (B, N) True where valid, without a state.
            pinned_tokens: (B,) prompt lengths of the items, where they differ.
            future: (B, L) tokens that only the look-ahead sees, without a state.
            flush: with a state, gives what waits as well (end of the prompt or of the speech).
        """
        ...


@dataclass
class TokenEncoderState(State):
    """What a stream remembers between pieces of tokens."""

    lookahead: LookaheadState
    smooth: ConvState
    transformer: TransformerState
    upsample: ConvState


class TokenEncoder(nn.Module):
    """Embedding, look-ahead convolution, chunk-causal transformer, upsampling."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim, factor = config.encoder_dim, config.frames_per_token
        self.frames_per_token = factor
        self.embedding = nn.Embedding(config.codebook_size, dim)
        self.lookahead = LookaheadConv1d(dim, dim, config.lookahead_tokens)
        self.activation = nn.GELU()
        self.smooth = CausalConv1d(dim, dim, 3)
        self.transformer = Transformer(
            dim=dim,
            num_layers=config.encoder_layers,
            num_heads=config.encoder_heads,
            expansion=4.0,
            dropout=config.dropout,
        )
        self.upsample = CausalConv1d(dim, dim, 2 * factor + 1)
        self.project = nn.Linear(dim, config.mel.num_mels)

    def init_state(self, batch_size: int) -> TokenEncoderState:
        """See `Encoder`."""
        return TokenEncoderState(
            lookahead=self.lookahead.init_state(batch_size),
            smooth=self.smooth.init_state(batch_size),
            transformer=self.transformer.init_state(batch_size),
            upsample=self.upsample.init_state(batch_size),
        )

    def forward(
        self,
        tokens: Tensor,
        context: Context = FULL_CONTEXT,
        state: TokenEncoderState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_tokens: Tensor | None = None,
        future: Tensor | None = None,
        flush: bool = False,
    ) -> Tensor:
        """See `Encoder`. The look-ahead does not cross the end of the prompt."""
        x = self.embedding(tokens)
        if mask is not None:
            x = x * mask[..., None]
        if state is None:
            pinned = context.pinned_frames if pinned_tokens is None else pinned_tokens
            if context.is_full:
                pinned = 0
            seen = x if future is None else torch.cat([x, self.embedding(future)], dim=1)
            ahead = self.lookahead(seen, pinned_frames=pinned)[:, : x.shape[1]]
            current = x
        else:
            waited = state.lookahead.waiting
            ahead = self.lookahead(x, state.lookahead)
            current = torch.cat([waited, x], dim=1)
            if flush:
                ahead = torch.cat([ahead, self.lookahead.flush(state.lookahead)], dim=1)
            current = current[:, : ahead.shape[1]]
            if ahead.shape[1] == 0:
                return x.new_zeros(x.shape[0], 0, self.project.out_features)
        x = self.smooth(self.activation(ahead), state.smooth if state else None) + current
        x = self.transformer(
            x,
            context,
            state.transformer if state else None,
            mask=mask,
            pinned_frames=pinned_tokens,
        )
        x = x.repeat_interleave(self.frames_per_token, dim=1)
        return self.project(x + self.upsample(x, state.upsample if state else None))


@dataclass
class LookaheadLayerState(State):
    """What a look-ahead layer remembers between pieces."""

    waiting: LookaheadState
    past: ConvState


class LookaheadLayer(nn.Module):
    """A convolution that looks ahead, one that looks back, and a residual around both."""

    def __init__(self, dim: int, hidden_dim: int, lookahead: int) -> None:
        super().__init__()
        self.ahead = LookaheadConv1d(dim, hidden_dim, lookahead)
        self.back = CausalConv1d(hidden_dim, dim, 3)

    def init_state(self, batch_size: int) -> LookaheadLayerState:
        """State before the first token."""
        return LookaheadLayerState(
            waiting=self.ahead.init_state(batch_size), past=self.back.init_state(batch_size)
        )

    def forward(
        self,
        x: Tensor,
        state: LookaheadLayerState | None = None,
        *,
        future: Tensor | None = None,
        flush: bool = False,
    ) -> Tensor:
        """(B, N, D) to (B, N', D); with a state N' is short of what still waits for its future.

        Args:
            x: whole sequences, or with `state` the next piece.
            state: advanced in place.
            future: (B, L, D) what follows whole sequences; zeros where left out.
            flush: with a state, gives what waits as well.
        """
        if state is None:
            size = x.shape[1]
            ahead = self.ahead(x if future is None else torch.cat([x, future], dim=1))[:, :size]
            current = x
        else:
            joined = torch.cat([state.waiting.waiting, x], dim=1)
            ahead = self.ahead(x, state.waiting)
            if flush:
                ahead = torch.cat([ahead, self.ahead.flush(state.waiting)], dim=1)
            current = joined[:, : ahead.shape[1]]
            if ahead.shape[1] == 0:
                return current
        hidden = functional.leaky_relu(ahead, 0.01)
        return current + self.back(hidden, state.past if state else None)


class LookaheadEncoder(nn.Module):
    """The encoder of CosyVoice 3: the look-ahead layer, each token repeated.

    A token sees its look-ahead alone: context and prompt lengths change nothing.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim = config.mel.num_mels
        self.frames_per_token = config.frames_per_token
        self.embedding = nn.Embedding(config.codebook_size, dim)
        self.lookahead = LookaheadLayer(dim, config.encoder_hidden_dim, config.lookahead_tokens)

    def init_state(self, batch_size: int) -> LookaheadLayerState:
        """See `Encoder`."""
        return self.lookahead.init_state(batch_size)

    def forward(
        self,
        tokens: Tensor,
        context: Context = FULL_CONTEXT,
        state: LookaheadLayerState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_tokens: Tensor | None = None,
        future: Tensor | None = None,
        flush: bool = False,
    ) -> Tensor:
        """See `Encoder`."""
        x = self.embedding(tokens)
        if mask is not None:
            x = x * mask[..., None]
        ahead = None if future is None else self.embedding(future)
        x = self.lookahead(x, state, future=ahead, flush=flush)
        return x.repeat_interleave(self.frames_per_token, dim=1)


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
    blocks: TransformerState
    upsample: ConvState
    up_blocks: TransformerState


class ConformerEncoder(nn.Module):
    """The encoder of CosyVoice 2: relative attention before and after the upsampling."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim, factor = config.encoder_dim, config.frames_per_token
        sizes = (config.encoder_heads, config.encoder_hidden_dim)
        self.frames_per_token = factor
        self.embedding = nn.Embedding(config.codebook_size, dim)
        self.embed = _Embed(dim)
        self.lookahead = LookaheadLayer(dim, dim, config.lookahead_tokens)
        self.blocks = RelativeTransformer(dim, config.encoder_layers, *sizes)
        self.upsample = CausalConv1d(dim, dim, 2 * factor + 1)
        self.up_embed = _Embed(dim)
        self.up_blocks = RelativeTransformer(dim, config.encoder_up_layers, *sizes)
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, config.mel.num_mels)

    def init_state(self, batch_size: int) -> ConformerState:
        """See `Encoder`."""
        return ConformerState(
            lookahead=self.lookahead.init_state(batch_size),
            blocks=self.blocks.init_state(batch_size),
            upsample=self.upsample.init_state(batch_size),
            up_blocks=self.up_blocks.init_state(batch_size),
        )

    def forward(
        self,
        tokens: Tensor,
        context: Context = FULL_CONTEXT,
        state: ConformerState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_tokens: Tensor | None = None,
        future: Tensor | None = None,
        flush: bool = False,
    ) -> Tensor:
        """See `Encoder`. `pinned_tokens` are kept by a bounded window.

        Behind a shorter item of a padded batch the look-ahead layer sees the embedding of zero,
        not zeros, as in the reference.
        """
        x = self.embedding(tokens)
        if mask is not None:
            x = x * mask[..., None]
        x = self.encode(
            x,
            context,
            state,
            mask=mask,
            pinned_tokens=pinned_tokens,
            future=None if future is None else self.embedding(future),
            flush=flush,
        )
        return self.project(x)

    def encode(
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
        """Frames (B, T, D) of embedded tokens (B, N, D); `future` is (B, L, D)."""
        ahead = None if future is None else self.embed(future)
        past = state.lookahead if state else None
        x = self.lookahead(self.embed(x), past, future=ahead, flush=flush)
        factor = self.frames_per_token
        if x.shape[1] == 0:
            return x
        pinned, caches = pinned_tokens, state.blocks if state else None
        x = self.blocks(x, context, caches, mask=mask, pinned_frames=pinned)
        x = x.repeat_interleave(factor, dim=1)
        x = self.up_embed(self.upsample(x, state.upsample if state else None))
        if mask is not None:
            mask = mask.repeat_interleave(factor, dim=1)
        pinned = None if pinned is None else pinned * factor
        caches, context = state.up_blocks if state else None, context.scaled(factor)
        x = self.up_blocks(x, context, caches, mask=mask, pinned_frames=pinned)
        return self.norm(x)


EncoderState: TypeAlias = TokenEncoderState | LookaheadLayerState | ConformerState

ENCODERS = {
    "transformer": TokenEncoder,
    "conformer": ConformerEncoder,
    "lookahead": LookaheadEncoder,
}
"""Encoder class of each name in a config."""
