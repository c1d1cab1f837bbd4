"""Rotary position embedding (Su et al., 2021, RoFormer), half-split form."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(positions: Tensor, dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotation angles.

    Args:
        positions: (T,) integer positions, or (B, T).
        dim: size of an attention head, even.
        theta: base of the geometric series of wavelengths.

    Returns:
        Two tensors (T, dim / 2), or (B, T, dim / 2).
    """
    exponents = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim
    angles = positions.to(torch.float32)[..., None] * theta**-exponents
    return angles.cos(), angles.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates pairs (i, i + dim / 2) of `x` (B, H, T, dim) by the angles of `rotary_table`."""
    cos, sin = (part.to(x.dtype) for part in table)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
