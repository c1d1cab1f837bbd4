"""Losses with a margin for speaker embeddings.

`margin_softmax_loss` is the additive angular margin softmax (ArcFace, Deng et al., 2019);
`sphereface2_loss` is SphereFace2 (Wen et al., 2022), a binary classification for each speaker. It
trains for what verification asks: whether a recording is of this person, not of which of many.

Shapes: B batch, D embedding channels, K speakers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def margin_softmax_loss(
    embedding: Tensor, weight: Tensor, labels: Tensor, *, margin: float, scale: float
) -> Tensor:
    """Cross-entropy where the target's angle is enlarged by `margin`, summed over B.

    Args:
        embedding: (B, D).
        weight: (K, D), one centre for each speaker.
        labels: (B,) speaker indices.
        margin: radians added to the angle between an embedding and its own centre.
        scale: factor of the cosines before the softmax.
    """
    cosine = functional.linear(functional.normalize(embedding), functional.normalize(weight))
    cosine = cosine.clamp(-1 + 1e-6, 1 - 1e-6)
    sine = (1 - cosine.square()).sqrt()
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    # Past pi - margin the cosine would rise again; continue it as a line there (ArcFace, 3.2).
    shifted = torch.where(
        cosine > math.cos(math.pi - margin), shifted, cosine - margin * math.sin(math.pi - margin)
    )
    is_target = functional.one_hot(labels, weight.shape[0]).bool()
    logits = scale * torch.where(is_target, shifted, cosine)
    return functional.cross_entropy(logits, labels, reduction="sum")


def sphereface2_loss(
    embedding: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    *,
    margin: float,
    scale: float,
    positive_share: float,
    power: float,
) -> Tensor:
    """Binary cross-entropies of all speakers with an additive cosine margin, summed over B.

    Args:
        embedding: (B, D).
        weight: (K, D), one centre for each speaker.
        bias: (1,), shared by all speakers; see `sphereface2_bias` for where it begins.
        labels: (B,) speaker indices.
        margin: taken from the similarity with the own centre and added to those with others.
        scale: factor of the similarities.
        positive_share: weight of the own speaker against that of all others, from 0 to 1.
        power: exponent that spreads the similarities (t of the paper); 1 leaves the cosine.
    """
    cosine = functional.linear(functional.normalize(embedding), functional.normalize(weight))
    similarity = _spread(cosine.clamp(-1 + 1e-6, 1 - 1e-6), power)
    is_own = functional.one_hot(labels, weight.shape[0]).bool()
    own = functional.softplus(-(scale * (similarity - margin) + bias))
    other = functional.softplus(scale * (similarity + margin) + bias)
    losses = torch.where(is_own, positive_share * own, (1 - positive_share) * other)
    return losses.sum() / scale


def sphereface2_bias(
    num_speakers: int, *, margin: float, scale: float, positive_share: float, power: float
) -> float:
    """The bias at which, with all cosines 0, own speaker and others pull equally.

    Their gradients for the bias are equal where share / (1 + u p) = (1 - share) (K - 1) u n /
    (1 + u n), with u = exp(bias), p and n those of the similarities with their margins.
    """
    middle = float(_spread(torch.zeros(()), power))
    p, n = math.exp(scale * (middle - margin)), math.exp(scale * (middle + margin))
    ratio = positive_share / ((1 - positive_share) * (num_speakers - 1))
    root = math.sqrt(((1 - ratio) * n) ** 2 + 4 * ratio * n * p)
    # Of the two forms of the root the one that takes no difference of nearly equal numbers.
    linear = (1 - ratio) * n
    u = 2 * ratio / (linear + root) if linear > 0 else (root - linear) / (2 * n * p)
    return math.log(u)


def _spread(cosine: Tensor, power: float) -> Tensor:
    """2 ((cos + 1) / 2)^t - 1: large similarities lie farther apart (Wen et al., section 3.4)."""
    return 2 * ((cosine + 1) / 2) ** power - 1
