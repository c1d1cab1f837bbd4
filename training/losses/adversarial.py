"""Least-squares adversarial losses (Mao et al., 2017; HiFi-GAN, Kong et al., 2020), and more.

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


def relative_loss(higher: list[Tensor], lower: list[Tensor], limit: float) -> Tensor:
    """How unevenly scores of one kind lie above those of the other (HiFTNet, Li et al., 2023).

    Of each score map the differences below their median count, by their squared distance from it,
    and no more than `limit` in all: the truncated pointwise relativistic loss. The median is that
    of an item, where the paper takes that of the batch.

    Args:
        higher: scores that should be the higher ones: of what is real for a discriminator, of what
            is generated for a generator.
        lower: the others.
        limit: largest loss of an item.
    """
    total = higher[0].new_zeros(())
    for above, below in zip(higher, lower, strict=True):
        difference = (above - below).flatten(1)
        rest = difference - difference.median(dim=1, keepdim=True).values
        behind = rest < 0
        squares = (rest.square() * behind).sum(dim=1) / behind.sum(dim=1).clamp(min=1)
        total = total + squares.clamp(max=limit).sum()
    return total / len(higher)
