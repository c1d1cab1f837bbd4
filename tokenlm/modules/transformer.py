"""Pre-norm transformer blocks, whole or in chunks.

Shapes: B batch, T frames, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from tokenlm.modules.attention import (
    Cache,
    Caches,
    Plan,
    SelfAttention,
    TransformerState,
    plan_attention,
)
from tokenlm.modules.context import FULL_CONTEXT, Context


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between them, (B, T, D) to (B, T, D)."""

    def __init__(self, dim: int, expansion: float, dropout: float = 0.0) -> None:
        hidden = int(dim * expansion)
        super().__init__(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )


class TransformerBlock(nn.Module):
    """x + attention(norm x), then x + feed_forward(norm x)."""

    def __init__(self, dim: int, num_heads: int, expansion: float, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads, dropout=dropout)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, expansion, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, plan: Plan, cache: Cache = None) -> Tensor:
        """(B, T, D) to (B, T, D); arguments as in `SelfAttention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), plan, cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Transformer(nn.Module):
    """A stack of blocks with a final norm, causal by chunks as its context says."""

    def __init__(
        self,
        *,
        dim: int,
        num_layers: int,
        num_heads: int,
        expansion: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        layers = [TransformerBlock(dim, num_heads, expansion, dropout) for _ in range(num_layers)]
        self.layers = cast("Sequence[TransformerBlock]", nn.ModuleList(layers))
        self.norm = nn.LayerNorm(dim)

    def init_state(self, batch_size: int) -> TransformerState:
        """State before the first frame."""
        return TransformerState([layer.attention.init_state(batch_size) for layer in self.layers])

    def forward(
        self,
        x: Tensor,
        context: Context = FULL_CONTEXT,
        state: Caches | None = None,
        *,
        mask: Tensor | None = None,
        pinned_frames: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D).

        Args:
            x: the whole sequence, or with `state` the next piece, which must end at a chunk
                boundary of `context` unless it is the last.
            context: what a frame may see.
            state: advanced in place.
            mask: (B, T) True where valid, for padded batches without a state.
            pinned_frames: (B,) prompt lengths, see `plan_attention`.
        """
        plan = plan_attention(
            x, context, state, head_dim=self.head_dim, mask=mask, pinned_frames=pinned_frames
        )
        for index, layer in enumerate(self.layers):
            x = layer(x, plan, None if state is None else state.layers[index])
        if state is not None:
            state.advance(plan, x.shape[1])
        return self.norm(x)
