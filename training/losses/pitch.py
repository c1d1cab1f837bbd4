"""Loss of predicted pitch."""

from __future__ import annotations

from torch import Tensor


def pitch_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference in hertz of pitches (B, T), summed over B; 0 is not voiced."""
    return (predicted - target).abs().mean(dim=1).sum()
