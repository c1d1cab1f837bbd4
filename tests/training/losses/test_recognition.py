"""Losses of recognisers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses.recognition import attention_loss, ctc_loss


def test_ctc_by_hand() -> None:
    # Blank, a, b with 1/2, 1/4, 1/4 at both places: "a" is said by a-, -a and aa.
    log_probs = torch.tensor([0.5, 0.25, 0.25]).log().expand(2, 2, 3)
    characters = torch.tensor([[1, 0], [1, 2]])
    found = ctc_loss(log_probs, characters, torch.tensor([2, 2]), torch.tensor([1, 2]))
    expected = [-math.log(0.125 + 0.125 + 0.0625), -math.log(0.0625)]
    assert found.tolist() == pytest.approx(expected)
    # One place is too few for two characters: nothing, not infinity.
    short = ctc_loss(log_probs, characters, torch.tensor([2, 1]), torch.tensor([1, 2]))
    assert short[1] == 0.0


def test_attention_by_hand() -> None:
    # The end, a and b with 1/2, 1/4 and 1/4, but for the second place of the second text.
    logits = torch.tensor([0.5, 0.25, 0.25]).log().repeat(2, 3, 1)
    logits[1, 1] = torch.tensor([0.125, 0.5, 0.375]).log()
    characters, lengths = torch.tensor([[1, 2], [2, 0]]), torch.tensor([2, 1])
    # a, b and the end; b and the end. The place behind that counts for nothing.
    expected = -math.log(0.25 * 0.25 * 0.5) - math.log(0.25 * 0.125)
    assert attention_loss(logits, characters, lengths).item() == pytest.approx(expected, rel=1e-5)
