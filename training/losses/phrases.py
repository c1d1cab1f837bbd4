"""Losses of nets that find phrases.

Shapes: B recordings, T frames, R phrases.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def branch_loss(log_probs: Tensor, has_phrase: Tensor, mask: Tensor) -> Tensor:
    """Loss of a discriminative branch of two units for each phrase (Adya et al., 2020).

    Where the phrase is said, the first unit must be sure of it at one frame at least (its maximum
    over time); where it is not, the second must be sure of that at every frame (its sum).

    Args:
        log_probs: (B, T, R, 2) of `PhraseChecker.phrase_log_probs`.
        has_phrase: (B, R) True where it is said.
        mask: (B, T) True where valid.

    Returns:
        The sum over recordings and phrases.
    """
    valid = mask[..., None]
    said = -log_probs[..., 0].masked_fill(~valid, -torch.inf).amax(dim=1)
    unsaid = -(log_probs[..., 1] * valid).sum(dim=1)
    return torch.where(has_phrase, said, unsaid).sum()


def score_loss(scores: Tensor, is_said: Tensor) -> Tensor:
    """Cross-entropy (B,) of detection scores (B,), as logits, that the phrase is said."""
    return functional.binary_cross_entropy_with_logits(scores, is_said.float(), reduction="none")
