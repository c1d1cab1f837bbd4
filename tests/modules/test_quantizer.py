"""The finite scalar quantizer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tokenlm.modules.quantizer import FiniteScalarQuantizer

LEVELS = [(3, 3, 3), (5, 5), (4, 6), (3, 4, 5)]


def with_identity(levels: tuple[int, ...]) -> FiniteScalarQuantizer:
    """A quantizer whose digits are its inputs."""
    quantizer = FiniteScalarQuantizer(len(levels), levels)
    with torch.no_grad():
        quantizer.project_in.weight.copy_(torch.eye(len(levels)))
        quantizer.project_in.bias.zero_()
    return quantizer


@pytest.mark.parametrize("levels", LEVELS)
def test_every_index_survives(levels: tuple[int, ...]) -> None:
    quantizer = with_identity(levels)
    size = math.prod(levels)
    assert quantizer.codebook_size == size
    indices = torch.arange(size)[None]
    codes = quantizer.decode(indices)
    assert codes.shape == (1, size, len(levels))
    assert len({tuple(code) for code in codes[0].tolist()}) == size
    assert torch.equal(quantizer.fsq.codes_to_indices(codes).long(), indices)
    for digit, level in enumerate(levels):
        found = codes[0, :, digit].unique()
        expected = (torch.arange(level) - level // 2) / (level // 2)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("levels", LEVELS)
def test_every_code_can_be_reached(levels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    quantizer = with_identity(levels)
    used = quantizer.encode(3 * torch.randn(1, 40 * math.prod(levels), len(levels)))
    assert used.dtype == torch.int64
    assert len(used.unique()) == math.prod(levels)


@pytest.mark.parametrize("levels", LEVELS)
def test_blend(levels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    quantizer = FiniteScalarQuantizer(6, levels)
    x = torch.randn(2, 50, 6)
    with torch.no_grad():
        rounded, continuous = quantizer(x), quantizer(x, blend=0.0)
        torch.testing.assert_close(rounded, quantizer.decode(quantizer.encode(x)))
        # Rounding what is continuous gives what is rounded.
        half = torch.tensor([level // 2 for level in levels])
        torch.testing.assert_close((continuous * half).round() / half, rounded)
        assert not torch.allclose(rounded, continuous, atol=0.1)
        torch.testing.assert_close(quantizer(x, blend=0.25), torch.lerp(continuous, rounded, 0.25))


@pytest.mark.parametrize("blend", [0.0, 0.5, 1.0])
def test_gradients_pass(blend: float) -> None:
    torch.manual_seed(0)
    quantizer = FiniteScalarQuantizer(4, (5, 4))
    x = torch.randn(1, 8, 4, requires_grad=True)
    (quantizer(x, blend) * torch.tensor([1.0, 2.0])).sum().backward()
    assert x.grad is not None and bool((x.grad.abs().sum(dim=-1) > 0).all())
    weight = quantizer.project_in.weight.grad
    assert weight is not None and bool((weight != 0).all())


def test_weights_are_the_projection_alone() -> None:
    """What is saved; also what a checkpoint of a training run holds."""
    quantizer = FiniteScalarQuantizer(4, (5, 4))
    assert set(quantizer.state_dict()) == {"project_in.weight", "project_in.bias"}
    assert [name for name, _ in quantizer.named_parameters()] == [
        "project_in.weight",
        "project_in.bias",
    ]
    assert isinstance(quantizer.fsq.project_in, nn.Identity)
