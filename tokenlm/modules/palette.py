"""Weights as indices into a small palette of values, packed into bytes.

Shapes: K values of a palette.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_INDICES, _PALETTE, _SHAPE = ".indices", ".palette", ".shape"


def pack_indices(indices: Tensor, bits: int) -> Tensor:
    """Indices (N,) below 2^bits as bytes (uint8), the first in the lowest bits."""
    per_byte = 8 // bits
    padded = torch.nn.functional.pad(indices.to(torch.int64), (0, -len(indices) % per_byte))
    shifts = bits * torch.arange(per_byte)
    return (padded.view(-1, per_byte) << shifts).sum(dim=1).to(torch.uint8)


def unpack_indices(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` indices of `pack_indices`, int64."""
    shifts = bits * torch.arange(8 // bits)
    return ((packed.to(torch.int64)[:, None] >> shifts) & (2**bits - 1)).flatten()[:count]


def nearest(weights: Tensor, palette: Tensor) -> Tensor:
    """Index of the value of the palette (K,) that is nearest to each weight."""
    return (weights.flatten()[:, None] - palette[None]).abs().argmin(dim=1)


def pack_state(
    state: Mapping[str, Tensor], palettes: Mapping[str, Tensor], bits: int
) -> dict[str, Tensor]:
    """A state dict in which weights that have a palette are indices into it.

    Args:
        state: weights by name.
        palettes: values (2^bits,) by name of the weights.
        bits: of an index: 2, 4 or 8.

    Returns:
        `name.indices` (uint8), `name.palette` (float16) and `name.shape` of weights with a palette,
        and the others as they were.
    """
    packed = {name: tensor for name, tensor in state.items() if name not in palettes}
    for name, palette in palettes.items():
        packed[name + _INDICES] = pack_indices(nearest(state[name], palette), bits)
        packed[name + _PALETTE] = palette.half()
        packed[name + _SHAPE] = torch.tensor(state[name].shape, dtype=torch.int32)
    return packed


def unpack_state(packed: Mapping[str, Tensor], bits: int) -> dict[str, Tensor]:
    """The state dict of `pack_state`, with the values of the palettes as float32."""
    state = dict(packed)
    for key in [key for key in packed if key.endswith(_INDICES)]:
        name = key.removesuffix(_INDICES)
        shape = state.pop(name + _SHAPE).tolist()
        palette = state.pop(name + _PALETTE).float()
        indices = unpack_indices(state.pop(key), bits, int(torch.tensor(shape).prod()))
        state[name] = palette[indices].view(*shape)
    return state
