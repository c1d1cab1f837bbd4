"""Rotary position embedding (Su et al., 2021, RoFormer), half-split form."""

from __future__ import annotations

from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

_SMALLEST_TABLE = 1024


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


def rotary_span(start: int, count: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`rotary_table` of the positions from `start` on, as views of a table that is made once.

    Args:
        start: first position.
        count: number of positions, T.
        dim: size of an attention head, even.
        device: where the table is.

    Returns:
        Two tensors (T, dim / 2).
    """
    if torch.compiler.is_compiling():  # a cache has no place in a graph
        return rotary_table(torch.arange(start, start + count, device=device), dim)
    size = max(1 << (start + count).bit_length(), _SMALLEST_TABLE)
    cos, sin = _whole_table(size, dim, device)
    return cos[start : start + count], sin[start : start + count]


@lru_cache(maxsize=16)
def _whole_table(size: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    # Tensors that were made in inference mode could not be trained with later.
    with torch.inference_mode(False):
        return rotary_table(torch.arange(size, device=device), dim)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates pairs (i, i + dim / 2) of `x` (B, H, T, dim) by the angles of `rotary_table`."""
    cos, sin = (part.to(x.dtype) for part in table)
    if cos.ndim == 3:
        cos, sin = cos[:, None], sin[:, None]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotate_first_channels(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates the pairs (2i, 2i + 1) of the first channels of `x` (B, T, D), those of a head."""
    cos, sin = (part.to(x.dtype) for part in table)
    size = 2 * cos.shape[-1]
    even, odd = rearrange(x[..., :size], "... (pair two) -> two ... pair", two=2)
    rotated = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    return torch.cat([rotated, x[..., size:]], dim=-1)
