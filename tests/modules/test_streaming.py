"""States: joined, parted, copied, measured."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tokenlm.modules.streaming import State, shared_field


@dataclass
class Inner(State):
    values: Tensor
    places: Tensor = shared_field()


@dataclass
class Outer(State):
    first: Tensor
    layers: list[Inner]
    doubled: Tensor
    position: int


def outer(*items: float, position: int = 3, places: int = 2) -> Outer:
    """A state whose numbers are those of its items; `doubled` has two rows for each."""
    column = torch.tensor(items)[:, None]
    inner = Inner(values=column.expand(-1, 2) * 10, places=torch.arange(places))
    doubled = torch.stack([column, -column], dim=1).flatten(0, 1)
    return Outer(first=column, layers=[inner, inner], doubled=doubled, position=position)


def test_stack_and_unstack() -> None:
    joined = Outer.stack([outer(1.0), outer(2.0, 3.0)])
    assert joined.batch_size == 3 and joined.position == 3
    assert joined.first.flatten().tolist() == [1, 2, 3]
    assert joined.layers[1].values.tolist() == [[10, 10], [20, 20], [30, 30]]
    assert joined.layers[0].places.tolist() == [0, 1]
    assert joined.doubled.flatten().tolist() == [1, -1, 2, -2, 3, -3]
    for part, number in zip(joined.unstack(), (1.0, 2.0, 3.0), strict=True):
        expected = outer(number)
        assert part.batch_size == 1 and part.position == 3
        assert torch.equal(part.first, expected.first)
        assert torch.equal(part.layers[0].values, expected.layers[0].values)
        assert torch.equal(part.layers[0].places, expected.layers[0].places)
        assert torch.equal(part.doubled, expected.doubled)


def test_clone_is_apart() -> None:
    state = outer(1.0)
    copy = state.clone()
    for tensor in (copy.first, copy.layers[0].values, copy.layers[0].places):
        tensor += 1
    assert state.first.tolist() == [[1.0]]
    assert state.layers[0].values.tolist() == [[10.0, 10.0]]
    assert state.layers[0].places.tolist() == [0, 1]


def test_num_bytes_counts_every_tensor() -> None:
    # 2 + 2 * 4 + 4 floats of 4 bytes, 2 * 2 places of 8 bytes.
    assert outer(1.0, 2.0).num_bytes == 4 * (2 + 8 + 4) + 8 * 4


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (outer(2.0, position=4), "different positions"),
        (outer(2.0, places=3), "different positions"),
        (Outer(torch.zeros(1, 5), outer(1.0).layers, torch.zeros(2, 1), 3), "different shapes"),
        (Outer(torch.zeros(1, 1), outer(1.0).layers[:1], torch.zeros(2, 1), 3), "different depth"),
    ],
)
def test_what_cannot_be_stacked(other: Outer, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Outer.stack([outer(1.0), other])
