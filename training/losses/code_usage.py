"""How evenly the codes of a finite scalar quantizer are used.

Shapes: M tokens, C digits of a code, K codes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHARPNESS = 5.0
"""A level one step further away counts e to this power less."""


def code_usage_loss(digits: Tensor, levels: tuple[int, ...]) -> Tensor:
    """What the codes' entropy lacks to that of even use, in nats.

    Every token is shared out over the codes, softly by the distance of its digits to the levels,
    and the entropy is that of the mean over tokens, as in the entropy term of lookup-free
    quantization (Yu et al., 2024, section 3.1). Rounding itself has no gradient; the shares have
    one where a digit lies between two levels.

    Args:
        digits: (M, C) digits before rounding, in about [-1, 1].
        levels: of each digit.

    Returns:
        A number from 0, where all codes are used alike, to ln K, where a single one is.
    """
    shares = []
    for digit, level in zip(digits.float().unbind(dim=1), levels, strict=True):
        # As `vector-quantize-pytorch` has them: level k of L stands at (k - L // 2) / (L // 2).
        places = (torch.arange(level, device=digits.device) - level // 2) / (level // 2)
        distance = (digit[:, None] - places) * (level // 2)
        shares.append((-SHARPNESS * distance.square()).softmax(dim=1))
    # The mean of outer products is one product of two matrices.
    half = len(shares) // 2
    usage = _outer(shares[:half], digits).T @ _outer(shares[half:], digits) / digits.shape[0]
    entropy = -(usage * usage.clamp(min=1e-9).log()).sum()
    return math.log(math.prod(levels)) - entropy


def _outer(shares: list[Tensor], digits: Tensor) -> Tensor:
    product = digits.new_ones(digits.shape[0], 1, dtype=torch.float32)
    for share in shares:
        product = (product[:, :, None] * share[:, None, :]).flatten(1)
    return product
