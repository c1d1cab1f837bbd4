"""Additive angular margin softmax (ArcFace, Deng et al., 2019) for speaker embeddings.

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
