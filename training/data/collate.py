"""Padding of items of different lengths.

Shapes: B batch, S samples, T frames, N tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def padded_size(longest: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `longest`."""
    return -(-longest // multiple) * multiple


def pad_sequences(
    items: Sequence[Tensor], *, value: float = 0.0, multiple: int = 1
) -> tuple[Tensor, Tensor]:
    """Stack tensors that differ in their first dimension only.

    Args:
        items: B tensors (T, ...), at least one.
        value: What the padding holds.
        multiple: The padded size is a multiple of this.

    Returns:
        (B, T, ...) of the dtype of the items, and lengths (B,) int64.
    """
    lengths = torch.tensor([len(item) for item in items])
    size = padded_size(int(lengths.max()), multiple)
    padded = items[0].new_full((len(items), size, *items[0].shape[1:]), value)
    for row, item in zip(padded, items, strict=True):
        row[: len(item)] = item
    return padded, lengths


def pad_waveforms(items: Sequence[Tensor], *, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Stack waveforms (S,) with zeros behind: (B, S), lengths (B,)."""
    return pad_sequences(items, multiple=multiple)


def pad_mels(
    items: Sequence[Tensor], *, value: float = 0.0, multiple: int = 1
) -> tuple[Tensor, Tensor]:
    """Stack mels (T, D): (B, T, D), lengths (B,). `value` is e.g. the log mel of silence."""
    return pad_sequences(items, value=value, multiple=multiple)


def pad_tokens(
    items: Sequence[Sequence[int] | Tensor], *, value: int = 0, multiple: int = 1
) -> tuple[Tensor, Tensor]:
    """Stack token ids (N,): (B, N) int64, lengths (B,)."""
    rows = [torch.as_tensor(item, dtype=torch.int64) for item in items]
    return pad_sequences(rows, value=value, multiple=multiple)
