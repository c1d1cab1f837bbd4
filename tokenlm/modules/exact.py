"""Numbers that are the same on every device and however a stream is cut.

Double precision is computed where the device has it, and on the CPU where it has not (MPS). Random
draws are a function of their purpose and position: `randn` drawn in pieces is not `randn` drawn
whole, so noise of a stream cannot come from one generator that runs along. Here each block of
frames, and each decision of the sampler, has a generator or a number of its own.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache
def has_float64(device_type: str) -> bool:
    """Whether a kind of device, such as `mps`, computes in float64."""
    try:
        torch.zeros((), dtype=torch.float64, device=device_type)
    except (TypeError, RuntimeError):
        return False
    return True


def exact_device(device: torch.device) -> torch.device:
    """Where numbers of `device` are to be computed with in float64."""
    return device if has_float64(device.type) else torch.device("cpu")


def to_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, on `exact_device` of its own device."""
    return tensor.to(exact_device(tensor.device)).to(torch.float64)


# --- Random draws ---

_MASK = (1 << 64) - 1
_BLOCK_FRAMES = 64


def mix(*parts: int) -> int:
    """A 64-bit hash of integers (the finaliser of SplitMix64, Steele et al., 2014)."""
    state = 0x243F6A8885A308D3
    for part in parts:
        state = (state ^ (part & _MASK)) & _MASK
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def uniform_draws(seed: int, segment: int, index: int, count: int) -> list[float]:
    """`count` numbers in [0, 1) for draw `index` of a text segment."""
    return [(mix(seed, segment, index, number) >> 11) / (1 << 53) for number in range(count)]


def frame_noise(seed: int, start: int, num_frames: int, dim: int) -> Tensor:
    """Standard normal noise (num_frames, dim) of the frames from `start` on.

    A frame's noise depends on `seed` and its index alone, however the frames are requested.
    """
    if num_frames == 0:
        return torch.zeros(0, dim, dtype=torch.float32)
    first, last = start // _BLOCK_FRAMES, (start + num_frames - 1) // _BLOCK_FRAMES
    blocks = []
    for block in range(first, last + 1):
        generator = torch.Generator().manual_seed(mix(seed, block) & (_MASK >> 1))
        blocks.append(torch.randn(_BLOCK_FRAMES, dim, generator=generator, dtype=torch.float32))
    offset = start - first * _BLOCK_FRAMES
    return torch.cat(blocks)[offset : offset + num_frames]
