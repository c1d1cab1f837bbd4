"""What needs float64 on a device that has none and mixes with no other; see `pretend_device`."""

from __future__ import annotations

import pytest
import torch
from pretend_device import DEVICE, pretend
from torch import Tensor

from tokenlm.models.lm.decoding import SamplingConfig, draw, sample
from tokenlm.modules.exact import has_float64


@pytest.mark.parametrize("window", [0, 10])
def test_draws_without_float64_are_those_with_it(window: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(200, 300, generator=generator)
    uniforms = torch.rand(200, 2, generator=generator)
    history = torch.randint(0, 300, (200, 10), generator=generator)
    probabilities = logits.softmax(dim=-1)
    config = SamplingConfig(top_k=0, top_p=1.0, repetition_window=window)

    def drawn(device: torch.device) -> list[Tensor]:
        given = [tensor.to(device) for tensor in (logits, history, uniforms, probabilities)]
        found = [
            sample(given[0], given[1], given[2], config),
            draw(given[3], given[2][:, 0]),
        ]
        assert all(tokens.device.type == device.type for tokens in found)
        return [tokens.cpu() for tokens in found]

    plain = drawn(torch.device("cpu"))
    # In float32 the sum of 300 probabilities is off by more than some draws are from an edge.
    with pretend():
        assert not has_float64(DEVICE.type)
        other = drawn(DEVICE)
    assert all(torch.equal(one, two) for one, two in zip(plain, other, strict=True))
