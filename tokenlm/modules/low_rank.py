"""Low-rank additions to linear layers (Hu et al., 2021, LoRA), chosen for each row of a batch.

A layer with additions gives `y + (x down^T) up^T` for the rows whose stream has any, so that people
with voices of their own are decoded in one batch over one set of weights. Which rows have which
additions is set for the length of a `with` block and the thread that runs it; a layer is asked by a
hook. Outside of such a block, and for layers without a hook, nothing is different.

Shapes: B rows of a batch, R rank, P positions.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]
"""Down (R, in) and up (out, R), which holds the scale."""

_KEY = -1
"""Of our hook among those of a layer; torch counts its own from 0."""
KEPT_BATCHES = 8
"""Combinations of rows whose stacked additions each thread keeps."""


class Additions:
    """The low-rank additions of one adapter to one model; compared by identity."""

    def __init__(self, pairs: Mapping[str, Pair]) -> None:
        """Take down and up of each layer, by its name in the model."""
        self.pairs = dict(pairs)

    @property
    def num_bytes(self) -> int:
        """Memory of the tensors."""
        tensors = [tensor for pair in self.pairs.values() for tensor in pair]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Stack(NamedTuple):
    """The additions of some rows of a batch to one layer."""

    places: Tensor | None
    """(A,) rows that have any; None is all of them."""
    down: Tensor
    """(A, in, R)"""
    up: Tensor
    """(A, R, out)"""


class _Batch:
    """The additions of the rows of one batch, stacked when a layer first asks for them."""

    def __init__(self, rows: Sequence[Additions | None]) -> None:
        self.rows = rows
        self._stacks: dict[tuple[str, int], _Stack | None] = {}

    def add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Output (B, P, out) or (B, out) of a layer with the additions of each row."""
        # Guidance puts two rows of an item side by side.
        repeats, rest = divmod(x.shape[0], len(self.rows))
        assert rest == 0, f"{name}: {x.shape[0]} rows for {len(self.rows)} streams"
        key = (name, repeats)
        if key not in self._stacks:
            self._stacks[key] = self._stack(name, repeats, x)
        stack = self._stacks[key]
        if stack is None:
            return y
        taken = x if stack.places is None else x.index_select(0, stack.places)
        flat = taken.reshape(taken.shape[0], -1, taken.shape[-1])
        added = torch.bmm(torch.bmm(flat, stack.down), stack.up)
        added = added.reshape(*taken.shape[:-1], -1).to(y.dtype)
        return y + added if stack.places is None else y.index_add(0, stack.places, added)

    def _stack(self, name: str, repeats: int, x: Tensor) -> _Stack | None:
        own = [None if row is None else row.pairs.get(name) for row in self.rows]
        own = [pair for pair in own for _ in range(repeats)]
        pairs = [pair for pair in own if pair is not None]
        if not pairs:
            return None
        places = [place for place, pair in enumerate(own) if pair is not None]
        rank = max(down.shape[0] for down, _ in pairs)
        # Of another rank: the missing ones add nothing.
        downs = [nn.functional.pad(down, (0, 0, 0, rank - down.shape[0])) for down, _ in pairs]
        ups = [nn.functional.pad(up, (0, rank - up.shape[1])) for _, up in pairs]
        return _Stack(
            None if len(places) == len(own) else torch.tensor(places, device=x.device),
            torch.stack(downs).transpose(1, 2).to(x.device, x.dtype),
            torch.stack(ups).transpose(1, 2).to(x.device, x.dtype),
        )


class _Active(threading.local):
    """What the present thread computes for."""

    def __init__(self) -> None:
        self.batch: _Batch | None = None
        self.kept: OrderedDict[tuple[int, ...], _Batch] = OrderedDict()


_active = _Active()


@contextmanager
def adapted(rows: Sequence[Additions | None]) -> Iterator[None]:
    """Inside, the layers of `hook_layers` add for each row of a batch what is given for it.

    Args:
        rows: additions of each stream; a batch has one row for each, or the same number of
            neighbouring rows for each.
    """
    key = tuple(map(id, rows))  # safe: a batch that is kept keeps its rows
    batch = _active.kept.get(key)
    if batch is None:
        with torch.inference_mode(False):
            batch = _active.kept[key] = _Batch(tuple(rows))
        while len(_active.kept) > KEPT_BATCHES:
            _active.kept.popitem(last=False)
    _active.kept.move_to_end(key)
    before, _active.batch = _active.batch, batch
    try:
        yield
    finally:
        _active.batch = before


class _Hook:
    """Asks for the additions of a layer. A class, so that models can be copied and pickled."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        batch = _active.batch
        return None if batch is None else batch.add(self.name, inputs[0], output)


def hook_layers(model: nn.Module, names: Sequence[str]) -> None:
    """Let layers of a model ask for additions. May be called again.

    Args:
        model: its results stay the same until additions are set.
        names: of linear layers in it.
    """
    for name in names:
        layer = model.get_submodule(name)
        if _KEY not in layer._forward_hooks:
            # In another thread the layer may run: it sees the hooks before or those after.
            layer._forward_hooks = OrderedDict([*layer._forward_hooks.items(), (_KEY, _Hook(name))])
