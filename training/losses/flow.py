"""Loss of conditional flow matching."""

from __future__ import annotations

from torch import Tensor


def velocity_loss(predicted: Tensor, velocity: Tensor, mask: Tensor) -> Tensor:
    """Squared error summed over valid frames and bins.

    Args:
        predicted: (B, T, M).
        velocity: (B, T, M).
        mask: (B, T) True where valid.
    """
    return ((predicted.float() - velocity).square() * mask[..., None]).sum()
