"""Loss of flow matching."""

from __future__ import annotations

import torch

from training.losses.flow import velocity_loss


def test_only_valid_frames_count() -> None:
    predicted = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [9.0, 9.0]]])
    velocity = torch.zeros(2, 2, 2)
    mask = torch.tensor([[True, True], [True, False]])
    assert velocity_loss(predicted, velocity, mask).item() == 1 + 4 + 9
    assert velocity_loss(velocity, velocity, mask).item() == 0
    assert velocity_loss(predicted, velocity, ~mask).item() == 162


def test_half_precision_is_summed_in_full() -> None:
    predicted = torch.full((1, 1000, 80), 2.0, dtype=torch.bfloat16)
    loss = velocity_loss(predicted, torch.zeros(1, 1000, 80), torch.ones(1, 1000, dtype=torch.bool))
    assert loss.dtype == torch.float32 and loss.item() == 320_000
