"""The loss on the use of codes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from tokenlm.modules.quantizer import FiniteScalarQuantizer
from training.losses.code_usage import code_usage_loss


def all_digits(levels: tuple[int, ...]) -> torch.Tensor:
    axes = [[(k - n // 2) / (n // 2) for k in range(n)] for n in levels]
    return torch.tensor(list(itertools.product(*axes)))


@pytest.mark.parametrize("levels", [(5, 5), (8, 5, 3), (4,)])
def test_even_use_lacks_nothing_and_one_code_everything(levels: tuple[int, ...]) -> None:
    digits = all_digits(levels)
    # Shares that spill over to the neighbours leave the edges with a little less.
    assert 0 <= float(code_usage_loss(digits, levels)) < 0.01
    one = code_usage_loss(digits[:1].expand(50, -1), levels)
    assert float(one) == pytest.approx(math.log(math.prod(levels)), abs=0.15 * len(levels))


def test_levels_are_where_the_quantizer_rounds_to() -> None:
    quantizer = FiniteScalarQuantizer(3, (8, 5, 4))
    found = quantizer.decode(torch.arange(quantizer.codebook_size)[None])[0]
    expected = {tuple(row) for row in all_digits((8, 5, 4)).tolist()}
    assert {tuple(row) for row in found.tolist()} == expected


def test_descent_spreads_the_codes() -> None:
    torch.manual_seed(0)
    levels = (5, 5)
    quantizer = FiniteScalarQuantizer(4, levels)
    x = torch.randn(400, 4)

    def num_used() -> int:
        return int(quantizer.encode(0.3 * x[None]).unique().numel())

    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    before = num_used()
    for _ in range(100):
        loss = code_usage_loss(quantizer.continuous(0.3 * x), levels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 15 and num_used() == 25
