"""Cross-entropy of speech tokens."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses.tokens import token_cross_entropy


def test_by_hand() -> None:
    logits = torch.tensor(
        [[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], [[0.2, 0.2, 0.6], [1.0, 0.0, 0.0]]]
    ).log()
    targets = torch.tensor([[0, 2], [1, -100]])
    expected = -math.log(0.5) - math.log(0.7) - math.log(0.2)
    assert token_cross_entropy(logits, targets).item() == pytest.approx(expected, rel=1e-6)


def test_ignored_positions_have_no_gradient() -> None:
    logits = torch.zeros(1, 2, 4, requires_grad=True)
    token_cross_entropy(logits, torch.tensor([[-100, 3]])).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].tolist() == [0, 0, 0, 0]
    assert logits.grad[0, 1].tolist() == [0.25, 0.25, 0.25, -0.75]


def test_half_precision_is_computed_in_full() -> None:
    logits = torch.randn(1, 3, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.tensor([[1, 2, 3]])
    assert token_cross_entropy(logits, targets).dtype == torch.float32
    torch.testing.assert_close(
        token_cross_entropy(logits, targets), token_cross_entropy(logits.float(), targets)
    )
