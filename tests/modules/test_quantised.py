"""Linear layers with fewer bits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.modules import quantised as quantised_module
from tokenlm.modules.quantised import BFloat16Linear, Int8Linear, PackedInt8Linear, quantise_weights

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
    quantise_weights(model, precision)
    assert isinstance(model[0], BFloat16Linear if precision == "bfloat16" else PackedInt8Linear)
    assert isinstance(model[2][0], nn.Linear)
    out = model(x)
    assert out.dtype == x.dtype
    assert 0 < deviation(out, expected) < BOUNDS[precision]


def test_bfloat16_is_the_same_on_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 32), torch.randn(7, 64)
    outs = []
    for has_instructions in (lambda _: True, lambda _: False):
        monkeypatch.setattr(quantised_module, "multiplies_bfloat16", has_instructions)
        outs.append(BFloat16Linear(layer)(x).detach())
    # Sums in another order may be rounded to the neighbouring number.
    torch.testing.assert_close(outs[1], outs[0], rtol=2**-7, atol=1e-3)
    assert (outs[0] == outs[1]).float().mean() > 0.9


@pytest.mark.parametrize("has_bias", [True, False])
def test_packed_rows_do_not_see_each_other(has_bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(96, 40, bias=has_bias).requires_grad_(False)
    packed = PackedInt8Linear(layer)
    x = torch.randn(2, 5, 96) * torch.logspace(-3, 3, 10).view(2, 5, 1)
    out = packed(x)
    assert out.shape == (2, 5, 40)
    for row, whole in zip(x.flatten(0, 1), out.flatten(0, 1), strict=True):
        assert torch.equal(packed(row[None])[0], whole)
        assert deviation(whole, layer(row)) < BOUNDS["int8"]
    assert torch.equal(copy.deepcopy(packed)(x), out)
    assert torch.equal(packed(torch.zeros(1, 96)), layer(torch.zeros(1, 96)))


def test_packed_weights_are_those_of_int8() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 48, bias=False)
    # Ones and zeros are exact in 126 steps.
    x = torch.eye(64)
    torch.testing.assert_close(
        PackedInt8Linear(layer)(x).detach(), Int8Linear(layer)(x), rtol=2**-7, atol=0
    )


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("kind", [BFloat16Linear, Int8Linear, PackedInt8Linear])
def test_what_goes_in_has_a_gradient(kind: Any, has_bias: bool) -> None:
    """Voices are fitted through layers that are not trained."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 48, bias=has_bias).requires_grad_(False)
    reduced, x = kind(layer), torch.randn(5, 64, requires_grad=True)
    gradients = [torch.autograd.grad(m(x).square().sum(), [x])[0] for m in (layer, reduced)]
    assert deviation(gradients[1], gradients[0]) < 0.03
    with torch.no_grad():
        torch.testing.assert_close(reduced(x), reduced(x.detach()), rtol=0, atol=0)
