"""Token encoder of the flow: speech tokens to a condition at the mel frame rate.

Shapes: B batch, N tokens, T mel frames (N * frames_per_token), D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokenlm.modules.context import FULL_CONTEXT, Context
from tokenlm.modules.conv import CausalConv1d, ConvState, LookaheadConv1d, LookaheadState
from tokenlm.modules.streaming import State
from tokenlm.modules.transformer import Transformer, TransformerState


@dataclass
class EncoderState(State):
    """What a stream remembers between pieces of tokens."""

    lookahead: LookaheadState
    smooth: ConvState
    transformer: TransformerState
    upsample: ConvState


class TokenEncoder(nn.Module):
    """Embedding, look-ahead convolution, chunk-causal transformer, upsampling."""

    def __init__(
        self,
        *,
        codebook_size: int,
        dim: int,
        out_dim: int,
        num_layers: int,
        num_heads: int,
        expansion: float,
        dropout: float,
        lookahead_tokens: int,
        frames_per_token: int,
    ) -> None:
        super().__init__()
        self.frames_per_token = frames_per_token
        self.embedding = nn.Embedding(codebook_size, dim)
        self.lookahead = LookaheadConv1d(dim, dim, lookahead_tokens)
        self.activation = nn.GELU()
        self.smooth = CausalConv1d(dim, dim, 3)
        self.transformer = Transformer(
            dim=dim,
            num_layers=num_layers,
            num_heads=num_heads,
            expansion=expansion,
            dropout=dropout,
        )
        self.upsample = CausalConv1d(dim, dim, 2 * frames_per_token + 1)
        self.project = nn.Linear(dim, out_dim)

    def init_state(self, batch_size: int) -> EncoderState:
        """State before the first token."""
        return EncoderState(
            lookahead=self.lookahead.init_state(batch_size),
            smooth=self.smooth.init_state(batch_size),
            transformer=self.transformer.init_state(batch_size),
            upsample=self.upsample.init_state(batch_size),
        )

    def forward(
        self,
        tokens: Tensor,
        context: Context = FULL_CONTEXT,
        state: EncoderState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_tokens: Tensor | None = None,
        flush: bool = False,
    ) -> Tensor:
        """Condition (B, T, out_dim) of tokens (B, N).

        Args:
            tokens: whole sequences, or with `state` the next piece.
            context: in tokens.
            state: advanced in place; the last tokens wait in it for their future.
            mask: (B, N) True where valid, without a state.
            pinned_tokens: (B,) prompt lengths of the items, where they differ.
            flush: with a state, gives what waits as well (end of the prompt or of the speech).
        """
        x = self.embedding(tokens)
        if mask is not None:
            x = x * mask[..., None]
        if state is None:
            pinned = context.pinned_frames if pinned_tokens is None else pinned_tokens
            if context.is_full:
                pinned = 0
            ahead, current = self.lookahead(x, pinned_frames=pinned), x
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
