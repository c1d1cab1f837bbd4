"""Streams that stand at different places, run as one batch.

Only what is small is put together and parted again: the pasts of convolutions. The caches of
attention stay with their streams, so that their lengths may differ and nothing of them is copied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from tokenlm.modules.streaming import State
from tokenlm.modules.transformer import SideBySide, TransformerState

StateT = TypeVar("StateT", bound=State | list[Any])


@contextmanager
def side_by_side(states: Sequence[StateT]) -> Iterator[StateT]:
    """One state for a batch of the rows of all streams, one stream after the other.

    Args:
        states: of the streams, or lists of their states; advanced in place when the context ends.
            They have equally many rows, and tensors of equal shapes outside of attention. A single
            one is given as it is.
    """
    if len(states) == 1:
        yield states[0]
        return
    joined = _join(states)
    yield joined
    _part(joined, states)


def _join(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat([*values])
    if isinstance(first, TransformerState):
        columns = zip(*(value.layers for value in values), strict=True)
        return SideBySide(streams=[*values], layers=[[*column] for column in columns])
    if isinstance(first, State):
        names = [item.name for item in dataclasses.fields(first)]
        fields = {name: _join([getattr(value, name) for value in values]) for name in names}
        return type(first)(**fields)
    return [_join(column) for column in zip(*values, strict=True)]


def _part(joined: Any, states: Sequence[Any]) -> None:
    if isinstance(joined, SideBySide):
        return  # whose streams have been advanced themselves
    if isinstance(joined, list):
        for element, *column in zip(joined, *states, strict=True):
            _part(element, column)
        return
    for item in dataclasses.fields(joined):
        value = getattr(joined, item.name)
        if not isinstance(value, Tensor):
            _part(value, [getattr(state, item.name) for state in states])
            continue
        for state, part in zip(states, value.chunk(len(states)), strict=True):
            setattr(state, item.name, part.clone())  # a view would keep the whole batch
