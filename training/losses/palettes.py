"""Differentiable k-means of weights (DKM; Cho et al., 2022), and the regularisation of their range.

Shapes: W weights of a tensor, K values of its palette.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

MIN_WEIGHTS = 256
"""Smaller tensors, such as biases and norms, are left as they are."""


def palettised_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module that get a palette: matrices and kernels, by name."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.ndim >= 2 and parameter.numel() >= MIN_WEIGHTS
    }


def initial_palette(weights: Tensor, bits: int) -> Tensor:
    """Values (2^bits,) at even quantiles of the weights."""
    places = (torch.arange(2**bits, device=weights.device) + 0.5) / 2**bits
    return torch.quantile(weights.detach().flatten().float(), places)


def soft_palette(
    weights: Tensor, palette: Tensor, *, temperature: float, num_iterations: int = 3
) -> tuple[Tensor, Tensor]:
    """Weights drawn to the values of a palette, and the palette, both with gradient to the weights.

    Each iteration of k-means is a step of attention from weights to values, so that the gradient
    sees the clustering.

    Args:
        weights: any shape.
        palette: (K,) from which the iterations start.
        temperature: of the attention, as a share of the mean squared distance of neighbours in the
            palette; towards 0 every weight takes the nearest value.
        num_iterations: of k-means.

    Returns:
        The soft weights, and the new palette (K,).
    """
    flat = weights.flatten()
    spacing = palette.detach().sort().values.diff().square().mean().clamp(min=1e-12)
    for _ in range(num_iterations):
        attention = (-(flat[:, None] - palette[None]).square() / (temperature * spacing)).softmax(1)
        palette = (attention * flat[:, None]).sum(0) / attention.sum(0).clamp(min=1e-6)
    attention = (-(flat[:, None] - palette[None]).square() / (temperature * spacing)).softmax(1)
    return (attention @ palette).view_as(weights), palette


def range_penalty(weights: Mapping[str, Tensor]) -> Tensor:
    """Sum of the largest magnitudes of the tensors: without outliers a palette is spent better."""
    return torch.stack([tensor.abs().amax() for tensor in weights.values()]).sum()
