"""States of streaming modules: typed dataclasses that belong to a session, never to a module.

A streaming module has `init_state(batch_size, context)` and `forward(x, context, state=None)`:
without a state it takes the whole sequence, with one it takes the next piece and advances it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor


@dataclass
class State:
    """Base of all states. Tensors have the batch on axis 0 unless a field says `shared`.

    A tensor may hold several rows for each item of the batch (guidance runs two), one item after
    the other; the first batched tensor of a state has one.
    """

    @classmethod
    def stack(cls, states: Sequence[Self]) -> Self:
        """Joins states of equal geometry along the batch.

        Raises:
            ValueError: the states stand at different positions or have different shapes.
        """
        return _merge(list(states))

    def unstack(self) -> list[Self]:
        """Splits a state into one for each item of the batch."""
        size = self.batch_size

        def rows_of(item: int) -> Callable[[Tensor], Tensor]:
            def rows(tensor: Tensor) -> Tensor:
                count = tensor.shape[0] // size
                return tensor[item * count : (item + 1) * count]

            return rows

        return [_map(self, rows_of(item)) for item in range(size)]

    @property
    def batch_size(self) -> int:
        """Items in the batch, read off the first batched tensor."""
        for shared, tensor in _tensors(self):
            if not shared:
                return tensor.shape[0]
        return 1

    @property
    def num_bytes(self) -> int:
        """Memory held by the tensors of the state."""
        return sum(tensor.numel() * tensor.element_size() for _, tensor in _tensors(self))

    def clone(self) -> Self:
        """Copies the state, so that one prompt can start many sessions."""
        return _map(self, torch.clone, torch.clone)

    def shared(self) -> Self:
        """A state that goes on from here with the same tensors, none of which is written to.

        The state that it is taken of must not be advanced any more: a module may put what follows
        behind what its own state holds.
        """
        return _map(self, lambda tensor: tensor)


def allocated_bytes(values: Iterable[State]) -> int:
    """Memory that is kept because of some states.

    Of a view that is the whole of what it looks into; what several look into is counted once.
    """
    sizes: dict[tuple[torch.device, int], int] = {}
    for value in values:
        for _, tensor in _tensors(value):
            storage = tensor.untyped_storage()
            sizes[tensor.device, storage._cdata] = storage.nbytes()
    return sum(sizes.values())


def shared_field() -> Any:
    """A dataclass field whose tensor has no batch axis (positions, for instance)."""
    return dataclasses.field(metadata={"shared": True})


def _is_shared(item: dataclasses.Field[Any]) -> bool:
    return bool(item.metadata.get("shared"))


def _tensors(value: Any, shared: bool = False) -> list[tuple[bool, Tensor]]:
    if isinstance(value, Tensor):
        return [(shared, value)]
    if isinstance(value, State):
        found = []
        for item in dataclasses.fields(value):
            found += _tensors(getattr(value, item.name), shared or _is_shared(item))
        return found
    if isinstance(value, list):
        return [pair for element in value for pair in _tensors(element, shared)]
    return []


def _map(
    value: Any,
    function: Callable[[Tensor], Tensor],
    shared_function: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    shared: bool = False,
) -> Any:
    if isinstance(value, Tensor):
        return shared_function(value) if shared else function(value)
    if isinstance(value, State):
        fields = {
            item.name: _map(
                getattr(value, item.name), function, shared_function, shared or _is_shared(item)
            )
            for item in dataclasses.fields(value)
        }
        return type(value)(**fields)
    if isinstance(value, list):
        return [_map(element, function, shared_function, shared) for element in value]
    return value


def _merge(values: list[Any], shared: bool = False) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        if any(value.shape[1:] != first.shape[1:] for value in values[1:]):
            raise ValueError("states of different shapes cannot be stacked")
        if shared:
            if any(not torch.equal(value, first) for value in values[1:]):
                raise ValueError("states at different positions cannot be stacked")
            return first
        return torch.cat(values)
    if isinstance(first, State):
        fields = {
            item.name: _merge([getattr(v, item.name) for v in values], shared or _is_shared(item))
            for item in dataclasses.fields(first)
        }
        return type(first)(**fields)
    if isinstance(first, list):
        if any(len(value) != len(first) for value in values[1:]):
            raise ValueError("states of different depth cannot be stacked")
        return [_merge(list(column), shared) for column in zip(*values, strict=True)]
    if any(value != first for value in values[1:]):
        raise ValueError(f"states at different positions cannot be stacked: {values}")
    return first
