"""The averaged weights in place of the trained ones, for what is measured and what is exported."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.loop.optim import Ema
from training.loop.parallel.strategy import Parallel
from training.loop.randomness import derive_seed
from training.loop.task import Task


class Averaged:
    """Puts averaged weights into a task.

    Where modules are sharded, no rank can run them alone. The first rank then evaluates whole
    copies of its own, which are filled from all ranks every time.
    """

    def __init__(self, task: Task, trained: Mapping[str, nn.Module], seed: int) -> None:
        """Remember the modules; call `copy_whole` before they are sharded."""
        self._task, self._trained, self._seed = task, trained, seed
        self._copies: dict[str, nn.Module] = {}

    def copy_whole(self) -> None:
        """Keep whole copies of the trained modules, which are not sharded yet."""
        self._copies = {
            name: copy.deepcopy(module).requires_grad_(False)
            for name, module in self._trained.items()
        }

    def full_averages(self, parallel: Parallel, ema: Ema) -> dict[str, Tensor]:
        """Return the whole averages by "<module>.<parameter>". All ranks."""
        if not parallel.is_sharded or not ema.averages:
            return ema.averages
        with ema.applied():
            return {
                f"{key}.{name}": value
                for key, module in self._trained.items()
                for name, value in parallel.full_state(module).items()
                if f"{key}.{name}" in ema.averages
            }

    @contextmanager
    def applied(self, parallel: Parallel, ema: Ema, *, is_main: bool) -> Iterator[None]:
        """Let the task have averaged weights, in evaluation mode, without gradient.

        Where the modules are sharded, all ranks enter together, and only the first one may use the
        task inside.
        """
        for module in self._task.modules.values():
            module.eval()
        # A fixed seed: two evaluations of the same weights give the same numbers.
        torch.manual_seed(derive_seed("evaluate", self._seed))
        if not parallel.is_sharded:
            with ema.applied(), torch.no_grad():
                yield
            return
        with ema.applied():
            states = {name: parallel.full_state(m) for name, m in self._trained.items()}
        sharded = dict(self._task.modules)
        if is_main:
            for name, module in self._copies.items():
                module.load_state_dict(states[name])
                self._task.modules[name] = module.eval()
        del states
        try:
            with torch.no_grad():
                yield
        finally:
            self._task.modules.update(sharded)
