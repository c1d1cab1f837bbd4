"""Embedding of the time of a flow (sinusoids, then two linear layers)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimestepEmbedding(nn.Module):
    """Time in [0, 1], shape (B,), to (B, D)."""

    def __init__(self, dim: int, num_frequencies: int = 128, scale: float = 1000.0) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.scale = scale
        self.layers = nn.Sequential(
            nn.Linear(2 * num_frequencies, dim), nn.SiLU(), nn.Linear(dim, dim)
        )

    def forward(self, t: Tensor) -> Tensor:
        """(B,) to (B, D)."""
        exponents = torch.arange(self.num_frequencies, device=t.device, dtype=torch.float32)
        rates = torch.exp(-math.log(10_000.0) * exponents / (self.num_frequencies - 1))
        angles = self.scale * t.to(torch.float32)[:, None] * rates
        features = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.layers(features.to(next(self.layers.parameters()).dtype))
