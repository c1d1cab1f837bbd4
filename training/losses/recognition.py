"""Losses of recognisers: CTC, and the cross-entropy of an attention decoder.

Shapes: B sequences, N speech tokens, L characters, V characters known, blank or end first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def ctc_loss(
    log_probs: Tensor, characters: Tensor, num_tokens: Tensor, num_characters: Tensor
) -> Tensor:
    """Negative CTC log-likelihood of the texts (Graves et al., 2006), one for each sequence (B,).

    Args:
        log_probs: (B, N, V), blank first.
        characters: (B, L) indices, padded with 0.
        num_tokens: (B,) valid positions.
        num_characters: (B,) valid characters.

    Returns:
        (B,), 0 where the speech is too short for any path.
    """
    return functional.ctc_loss(
        log_probs.float().transpose(0, 1),
        characters,
        num_tokens,
        num_characters,
        reduction="none",
        zero_infinity=True,
    )


def attention_loss(logits: Tensor, characters: Tensor, num_characters: Tensor) -> Tensor:
    """Cross-entropy of the characters and the end, summed over all texts.

    Args:
        logits: (B, L + 1, V), teacher-forced.
        characters: (B, L) indices, padded with 0, which is the end as well.
        num_characters: (B,) valid characters.
    """
    targets = functional.pad(characters, (0, 1))
    places = torch.arange(targets.shape[1], device=targets.device)
    targets = targets.masked_fill(places[None] > num_characters[:, None], -1)
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-1, reduction="sum"
    )
