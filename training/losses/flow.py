"""Losses of conditional flow matching.

Shapes: B batch, T mel frames, M mel bins.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def velocity_loss(predicted: Tensor, velocity: Tensor, mask: Tensor) -> Tensor:
    """Squared error summed over valid frames and bins (Lipman et al., 2023, eq. 23).

    Args:
        predicted: (B, T, M).
        velocity: (B, T, M).
        mask: (B, T) True where valid.
    """
    return ((predicted.float() - velocity).square() * mask[..., None]).sum()


def envelope_loss(predicted: Tensor, velocity: Tensor, mask: Tensor, bands: int) -> Tensor:
    """Squared error of the spectral envelope and of its change, summed over valid frames and bins.

    Most of the error of a velocity is in harmonics and noise, which are chance; speech is
    understood by its envelope, and consonants by how fast that changes. So the error is averaged
    over neighbouring bins, and counted as it is and as the difference from the frame before. It is
    least where `velocity_loss` is least, at the mean velocity: what differs is what a model that
    cannot reach it gets wrong.

    Args:
        predicted: (B, T, M).
        velocity: (B, T, M).
        mask: (B, T) True where valid.
        bands: neighbouring bins that are averaged, an odd number; at the ends as many as there are.
    """
    error = (predicted.float() - velocity) * mask[..., None]
    smooth = functional.avg_pool1d(
        error, bands, stride=1, padding=bands // 2, count_include_pad=False
    )
    change = smooth[:, 1:] - smooth[:, :-1]
    inside = mask[:, 1:] & mask[:, :-1]
    return smooth.square().sum() + (change.square() * inside[..., None]).sum()
