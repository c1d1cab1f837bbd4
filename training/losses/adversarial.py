"""Least-squares adversarial losses (Mao et al., 2017; HiFi-GAN, Kong et al., 2020).

Scores are lists with one tensor (B, …) for each discriminator; features are lists of lists. Every
loss is a sum over the items of the batch, averaged over discriminators.
"""

from __future__ import annotations

from torch import Tensor


def discriminator_loss(real: list[Tensor], generated: list[Tensor]) -> Tensor:
    """(1 - D(real))^2 + D(generated)^2."""
    total = real[0].new_zeros(())
    for on_real, on_generated in zip(real, generated, strict=True):
        total = total + (1 - on_real).square().flatten(1).mean(dim=1).sum()
        total = total + on_generated.square().flatten(1).mean(dim=1).sum()
    return total / len(real)


def generator_loss(generated: list[Tensor]) -> Tensor:
    """(1 - D(generated))^2."""
    total = generated[0].new_zeros(())
    for score in generated:
        total = total + (1 - score).square().flatten(1).mean(dim=1).sum()
    return total / len(generated)


def feature_matching_loss(real: list[list[Tensor]], generated: list[list[Tensor]]) -> Tensor:
    """Mean absolute difference of the discriminators' inner features (Kumar et al., 2019)."""
    total = real[0][0].new_zeros(())
    for ours, theirs in zip(generated, real, strict=True):
        layers = [
            (a - b.detach()).abs().flatten(1).mean(dim=1).sum()
            for a, b in zip(ours, theirs, strict=True)
        ]
        total = total + sum(layers[1:], layers[0]) / len(layers)
    return total / len(real)
