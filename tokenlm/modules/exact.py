"""Double precision where the device has it, and on the CPU where it has not (MPS)."""

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
