"""States of streaming modules: typed dataclasses that belong to a session, never to a module.

A streaming module has `init_state(batch_size)` and `forward(x, context, state=None)`: without a
state it takes the whole sequence, with one it takes the next piece and advances it.

Shapes: B batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
from torch import Tensor


@dataclass
class State:
    """Base of all states.

    Tensors have the batch on axis 0. Fields may also be states, lists of either, or plain values.
    """

    @property
    def num_bytes(self) -> int:
        """Memory held by the tensors of the state."""
        return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(self))

    def clone(self) -> Self:
        """Copies the state, so that one prompt can start many sessions."""
        return _map(self, torch.clone, lambda state: state.clone())

    def shared(self) -> Self:
        """A state that continues from here and shares the tensors, which neither writes to."""
        return _map(self, lambda tensor: tensor, lambda state: state.shared())

    @classmethod
    def join(cls, states: Sequence[Self]) -> Any:
        """One state for the rows of all streams, one stream after the other; see `batched`.

        Raises:
            ValueError: the states differ in the shapes of their tensors or in a plain value.
        """
        columns = {
            item.name: _join([getattr(state, item.name) for state in states])
            for item in dataclasses.fields(cls)
        }
        return cls(**columns)

    def write_back(self, states: Sequence[Any]) -> None:
        """Gives each of the streams that were joined its own rows of this state."""
        for item in dataclasses.fields(self):
            parts = _split(getattr(self, item.name), [getattr(s, item.name) for s in states])
            for state, part in zip(states, parts, strict=True):
                setattr(state, item.name, part)


StateT = TypeVar("StateT", bound=State | list[Any])


@contextmanager
def batched(states: Sequence[StateT]) -> Iterator[StateT]:
    """One state for a batch of streams, each at a position of its own.

    What is small (the pasts of convolutions) is concatenated, and split again when the context
    ends. The caches of attention stay with their streams: their lengths may differ, and nothing of
    them is copied or padded (`TransformerState`).

    Args:
        states: of the streams, or equally long lists of their states; advanced in place when the
            context ends without an error. They have equally many rows, and tensors of equal shapes
            outside of attention. A single one is used as it is.

    Raises:
        ValueError: the states cannot be batched.
    """
    if len(states) == 1:
        yield states[0]
        return
    joined = _join(states)
    yield joined
    _split(joined, states)


def allocated_bytes(values: Iterable[State]) -> int:
    """Memory that is kept because of some states.

    Of a view that is the whole of what it looks into; what several look into is counted once.
    """
    sizes: dict[tuple[torch.device, int], int] = {}
    for value in values:
        for tensor in _tensors(value):
            storage = tensor.untyped_storage()
            sizes[tensor.device, storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, State):
        for item in dataclasses.fields(value):
            yield from _tensors(getattr(value, item.name))
    elif isinstance(value, list):
        for element in value:
            yield from _tensors(element)


def _map(state: State, function: Callable[[Tensor], Tensor], inner: Callable[[Any], Any]) -> Any:
    """A state of the same class: `function` of its tensors, `inner` of the states in it."""

    def mapped(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        if isinstance(value, State):
            return inner(value)
        return [mapped(element) for element in value] if isinstance(value, list) else value

    fields = {item.name: mapped(getattr(state, item.name)) for item in dataclasses.fields(state)}
    return type(state)(**fields)


def _join(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        if any(value.shape[1:] != first.shape[1:] for value in values[1:]):
            raise ValueError("states of different shapes cannot be batched")
        return torch.cat([*values])
    if isinstance(first, State):
        return type(first).join(values)
    if isinstance(first, list):
        if any(len(value) != len(first) for value in values[1:]):
            raise ValueError("states of different depth cannot be batched")
        return [_join(column) for column in zip(*values, strict=True)]
    if any(value != first for value in values[1:]):
        raise ValueError(f"states that differ in a value cannot be batched: {values}")
    return first


def _split(joined: Any, values: Sequence[Any]) -> Sequence[Any]:
    """The part of each stream; states and lists of `values` are changed in place."""
    if isinstance(joined, Tensor):
        # A view would keep the whole batch.
        return [part.clone() for part in joined.chunk(len(values))]
    if isinstance(joined, State):
        joined.write_back(values)
    elif isinstance(joined, list):
        columns = zip(*values, strict=True)
        for place, (element, column) in enumerate(zip(joined, columns, strict=True)):
            for value, part in zip(values, _split(element, column), strict=True):
                value[place] = part
    else:
        return [joined] * len(values)
    return values
