"""The look-ahead layer of the CosyVoice flows, and the token encoder that is nothing more.

Shapes: B batch, N tokens, T mel frames (N * frames_per_token), L look-ahead tokens, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.context import FULL_CONTEXT, Context
from tokenlm.modules.conv import CausalConv1d, ConvState, LookaheadConv1d, LookaheadState
from tokenlm.modules.streaming import State


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
    """Embedded tokens (B, N, D) to frames (B, T, D): the look-ahead layer, each token repeated."""

    def __init__(
        self, *, dim: int, hidden_dim: int, lookahead_tokens: int, frames_per_token: int
    ) -> None:
        super().__init__()
        self.frames_per_token = frames_per_token
        self.lookahead = LookaheadLayer(dim, hidden_dim, lookahead_tokens)

    def init_state(self, batch_size: int) -> LookaheadLayerState:
        """State before the first token."""
        return self.lookahead.init_state(batch_size)

    def forward(
        self,
        x: Tensor,
        context: Context = FULL_CONTEXT,
        state: LookaheadLayerState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_tokens: Tensor | None = None,
        future: Tensor | None = None,
        flush: bool = False,
    ) -> Tensor:
        """Frames of embedded tokens; arguments as for `ConformerEncoder`.

        Neither the context nor what is masked or pinned changes anything: a token sees its
        look-ahead alone.
        """
        x = self.lookahead(x, state, future=future, flush=flush)
        return x.repeat_interleave(self.frames_per_token, dim=1)
