"""Conformer blocks (Gulati et al., 2020): attention for what is far, convolution for what is near.

Shapes: B batch, T frames, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.attention import FeedForward, Plan, SelfAttention, plan_attention
from tokenlm.modules.streaming import FULL_CONTEXT, Context


class ConvolutionModule(nn.Module):
    """Gated pointwise, depthwise and pointwise convolution, (B, T, D) to (B, T, D).

    A layer norm stands in the place of the batch norm of the paper: the results then do not depend
    on what else is in a batch.
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.contract = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Args: x (B, T, D); mask (B, T) True where valid, or None."""
        hidden = functional.glu(self.expand(x), dim=-1)
        if mask is not None:
            hidden = hidden * mask[..., None]
        hidden = self.depthwise(hidden.transpose(1, 2)).transpose(1, 2)
        return self.contract(functional.silu(self.norm(hidden)))


class ConformerBlock(nn.Module):
    """Half a feed-forward layer, attention, convolution, the other half, a norm."""

    def __init__(
        self, dim: int, num_heads: int, expansion: float, kernel_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.first_norm = nn.LayerNorm(dim)
        self.first = FeedForward(dim, expansion, dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads, dropout=dropout)
        self.convolution_norm = nn.LayerNorm(dim)
        self.convolution = ConvolutionModule(dim, kernel_size)
        self.second_norm = nn.LayerNorm(dim)
        self.second = FeedForward(dim, expansion, dropout)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, plan: Plan, mask: Tensor | None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x = x + 0.5 * self.dropout(self.first(self.first_norm(x)))
        x = x + self.dropout(self.attention(self.attention_norm(x), plan))
        x = x + self.dropout(self.convolution(self.convolution_norm(x), mask))
        x = x + 0.5 * self.dropout(self.second(self.second_norm(x)))
        return self.norm(x)


class Conformer(nn.Module):
    """A stack of blocks over whole sequences."""

    def __init__(
        self,
        *,
        dim: int,
        num_layers: int,
        num_heads: int,
        expansion: float = 2.0,
        kernel_size: int = 15,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        layers = [
            ConformerBlock(dim, num_heads, expansion, kernel_size, dropout)
            for _ in range(num_layers)
        ]
        self.layers = cast("Sequence[ConformerBlock]", nn.ModuleList(layers))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, context: Context = FULL_CONTEXT
    ) -> Tensor:
        """(B, T, D) to (B, T, D).

        Args:
            x: whole sequences.
            mask: (B, T) True where valid.
            context: what the attention of a frame may see; the convolutions see their kernels.
        """
        plan = plan_attention(x, context, head_dim=self.head_dim, mask=mask)
        for layer in self.layers:
            x = layer(x, plan, mask)
        return x


def valid_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """(B, T) True in the first `lengths` (B,) frames of each row."""
    return torch.arange(num_frames, device=lengths.device)[None] < lengths[:, None]
