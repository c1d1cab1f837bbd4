"""Causal ConvNeXt block for sequences (Liu et al., 2022; its use in Vocos, Siuzdak, 2023).

Shapes: B batch, T frames, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenlm.modules.conv import CausalConv1d, ConvState


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a feed-forward layer over channels, residual."""

    def __init__(self, dim: int, kernel_size: int, expansion: float, layer_scale: float) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.depthwise = CausalConv1d(dim, dim, kernel_size, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.activation = nn.GELU()
        self.contract = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), layer_scale))

    def init_state(self, batch_size: int) -> ConvState:
        """State of the depthwise convolution."""
        return self.depthwise.init_state(batch_size)

    def forward(self, x: Tensor, state: ConvState | None = None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        hidden = self.norm(self.depthwise(x, state))
        return x + self.scale * self.contract(self.activation(self.expand(hidden)))
