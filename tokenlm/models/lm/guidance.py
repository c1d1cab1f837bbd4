"""Classifier-free guidance of the speech LM by its text (Ho & Salimans, 2022).

Text dropout in training teaches the model to go on with speech that has no text, as `<sos> <tos>
speech`. What the text adds to that is what guidance makes stronger.

Shapes: B batch, V speech classes.
"""

from __future__ import annotations

from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Guided logits (B, V): away from what the model would say without the text.

    Args:
        conditional: (B, V) logits with the text.
        unconditional: (B, V) logits without it.
        scale: 0 leaves the first as they are; the convention is that of the flow's guidance.
    """
    with_text = conditional.float().log_softmax(dim=-1)
    without = unconditional.float().log_softmax(dim=-1)
    return (1.0 + scale) * with_text - scale * without
