"""Low-rank additions to linear layers (Hu et al., 2021, LoRA), chosen for each row of a batch.

A layer with additions gives `y + (x down^T) up^T` for the rows whose stream has any, so that people
with voices of their own are decoded in one batch over one set of weights. Which rows have which
additions is set for the length of a `with` block and the thread that runs it; a layer is asked by a
hook. Outside of such a block, and for layers without a hook, nothing is different. Additions are
read where they are, so that those of an adapter take memory once and only while it is in use.

Shapes: B rows of a batch, R rank, P positions.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[Tensor, Tensor]
"""Down (R, in) and up (out, R), which holds the scale."""

_KEY = -1
"""Of our hook among those of a layer; torch counts its own from 0."""


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


class _Batch:
    """Which rows of a batch have which additions."""

    def __init__(self, rows: Sequence[Additions | None]) -> None:
        self.num_rows = len(rows)
        self.runs: list[tuple[int, int, Additions]] = []
        """First row, the one after the last, and the additions of rows that follow one another."""
        place = 0
        for additions, run in groupby(rows):
            start, place = place, place + sum(1 for _ in run)
            if additions is not None:
                self.runs.append((start, place, additions))

    def add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Output (B, ..., out) of a layer; what is added for each row is added in place."""
        # Guidance puts two rows of an item side by side.
        repeats, rest = divmod(x.shape[0], self.num_rows)
        assert rest == 0, f"{name}: {x.shape[0]} rows for {self.num_rows} streams"
        for start, end, additions in self.runs:
            pair = additions.pairs.get(name)
            if pair is not None:
                rows = slice(start * repeats, end * repeats)
                down, up = (part.to(x.device, x.dtype) for part in pair)
                y[rows] += functional.linear(functional.linear(x[rows], down), up)
        return y


class _Active(threading.local):
    """What the present thread computes for."""

    batch: _Batch | None = None


_active = _Active()


@contextmanager
def adapted(rows: Sequence[Additions | None]) -> Iterator[None]:
    """Inside, the layers of `hook_layers` add for each row of a batch what is given for it.

    Args:
        rows: additions of each stream; a batch has one row for each, or the same number of
            neighbouring rows for each.
    """
    before, _active.batch = _active.batch, _Batch(rows)
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
