"""States: batched, copied, measured."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tokenlm.modules.streaming import State, batched


@dataclass
class Inner(State):
    values: Tensor


@dataclass
class Outer(State):
    first: Tensor
    layers: list[Inner]
    waiting: list[Tensor]
    doubled: Tensor
    position: int


def outer(*items: float, position: int = 3) -> Outer:
    """A state whose numbers are those of its items; `doubled` has two rows for each."""
    column = torch.tensor(items)[:, None]
    layers = [Inner(values=column.expand(-1, 2) * 10) for _ in range(2)]
    doubled = torch.stack([column, -column], dim=1).flatten(0, 1)
    return Outer(
        first=column, layers=layers, waiting=[column + 1], doubled=doubled, position=position
    )


def test_streams_advance_in_one_batch() -> None:
    states = [outer(1.0), outer(2.0)]
    with batched(states) as joined:
        assert joined.first.flatten().tolist() == [1, 2] and joined.position == 3
        assert joined.layers[1].values.tolist() == [[10, 10], [20, 20]]
        assert joined.doubled.flatten().tolist() == [1, -1, 2, -2]
        joined.first = joined.first * 3
        joined.layers[0].values = joined.layers[0].values[:, :1]
        joined.waiting = [joined.waiting[0] * 2]
        joined.position += 1
    for state, number in zip(states, (1.0, 2.0), strict=True):
        assert state.position == 4
        assert state.first.tolist() == [[3 * number]]
        assert state.layers[0].values.tolist() == [[10 * number]]
        assert state.layers[1].values.tolist() == [[10 * number] * 2]
        assert state.waiting[0].tolist() == [[2 * (number + 1)]]
        assert state.doubled.flatten().tolist() == [number, -number]
        # Nothing of the batch is kept by a stream.
        assert state.doubled.untyped_storage().nbytes() == 2 * 4


def test_lists_of_states_and_a_single_one() -> None:
    lists = [[outer(1.0)], [outer(2.0)]]
    with batched(lists) as joined:
        joined[0].position = 7
    assert [states[0].position for states in lists] == [7, 7]
    alone = outer(5.0)
    with batched([alone]) as joined_alone:
        assert joined_alone is alone


def test_an_error_changes_no_stream() -> None:
    states = [outer(1.0), outer(2.0)]
    with pytest.raises(RuntimeError), batched(states) as joined:
        joined.position = 9
        raise RuntimeError
    assert [state.position for state in states] == [3, 3]


def test_clone_is_apart() -> None:
    state = outer(1.0)
    copy = state.clone()
    for tensor in (copy.first, copy.layers[0].values, copy.waiting[0]):
        tensor += 1
    assert state.first.tolist() == [[1.0]]
    assert state.layers[0].values.tolist() == [[10.0, 10.0]]
    assert state.waiting[0].tolist() == [[2.0]]


def test_num_bytes_counts_every_tensor() -> None:
    # 2 + 2 * 4 + 2 + 4 floats of 4 bytes.
    assert outer(1.0, 2.0).num_bytes == 4 * (2 + 8 + 2 + 4)


def with_first(first: Tensor) -> Outer:
    state = outer(1.0)
    state.first = first
    return state


def with_layers(count: int) -> Outer:
    state = outer(1.0)
    state.layers = state.layers[:count]
    return state


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (outer(2.0, position=4), "differ in a value"),
        (with_first(torch.zeros(1, 5)), "different shapes"),
        (with_layers(1), "different depth"),
    ],
)
def test_what_cannot_be_batched(other: Outer, words: str) -> None:
    with pytest.raises(ValueError, match=words), batched([outer(1.0), other]):
        pass
