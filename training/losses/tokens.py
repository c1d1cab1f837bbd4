"""Cross-entropy of speech tokens."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from tokenlm.models.lm.layout import IGNORE


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood summed over the positions that predict something.

    Args:
        logits: (B, L, V).
        targets: (B, L), IGNORE where nothing is predicted.
    """
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )
