"""Linear layers with fewer bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.modules.reduced import BFloat16Linear, Int8Linear, reduce_weights

# Greatest share of the root mean square by which a result may be off.
BOUNDS = {"bfloat16": 0.03, "int8": 0.06}


def deviation(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize("has_bias", [True, False])
def test_rows_have_their_own_scale(has_bias: bool) -> None:
    layer = nn.Linear(3, 2, bias=has_bias)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[127.0, -64.0, 1.0], [0.5, 0.0, -1.27]]))
        if has_bias:
            layer.bias.copy_(torch.tensor([1.0, 2.0]))
    reduced = Int8Linear(layer)
    assert reduced.weight.tolist() == [[127, -64, 1], [50, 0, -127]]
    torch.testing.assert_close(reduced.scale, torch.tensor([1.0, 0.01]))
    out = reduced(torch.tensor([[[1.0, 0.0, 1.0]]]))
    expected = torch.tensor([[[128.0, -0.77]]]) + (torch.tensor([1.0, 2.0]) if has_bias else 0)
    torch.testing.assert_close(out, expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_large_layers_are_replaced(precision: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Sequential(nn.Linear(128, 8)))
    x = torch.randn(5, 64)
    expected = model.requires_grad_(False)(x)
    reduce_weights(model, precision)
    assert isinstance(model[0], BFloat16Linear if precision == "bfloat16" else Int8Linear)
    assert isinstance(model[2][0], nn.Linear)
    out = model(x)
    assert out.dtype == x.dtype
    assert 0 < deviation(out, expected) < BOUNDS[precision]
