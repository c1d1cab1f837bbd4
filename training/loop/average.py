"""The average of the weights, which is what is evaluated and exported."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.loop.parallel.strategy import Parallel
from training.loop.randomness import derive_seed
from training.loop.task import Task


class Ema:
    """Exponential moving average of the trainable parameters of some modules.

    The first steps use the smaller decay `(1 + step) / (10 + step)`, so that the average forgets
    the random initial weights at once.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        decay: float,
        local: Callable[[nn.Parameter], Tensor] = lambda parameter: parameter,
        piece: Callable[[nn.Parameter, Tensor], Tensor] = lambda parameter, full: full,
    ) -> None:
        """Start the average at the present weights.

        Args:
            modules: Whose weights are averaged.
            decay: Decay of the average.
            local: Part of a parameter that this rank keeps, sharing its memory.
            piece: Cuts that part out of a whole tensor.
        """
        self.decay, self._local, self._piece = decay, local, piece
        self._parameters = {
            f"{key}.{name}": parameter
            for key, module in modules.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.averages = {
            name: local(parameter).detach().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step` (from 0)."""
        if not self._parameters:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        # One call for all parameters: a loop over them costs more than the sums, and torch has no
        # public name for it.
        lerp = getattr(torch, "_foreach_lerp_")  # noqa: B009
        weights = [self._local(parameter) for parameter in self._parameters.values()]
        lerp(list(self.averages.values()), weights, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the modules for the length of a `with` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            weight = self._local(parameter)
            kept = weight.detach().clone()
            weight.copy_(self.averages[name])
            self.averages[name].copy_(kept)

    def load(self, averages: Mapping[str, Tensor]) -> None:
        """Take back averages that were saved.

        Raises:
            ValueError: If the names differ from those of the modules.
        """
        if set(averages) != set(self.averages):
            different = sorted(set(averages) ^ set(self.averages))
            raise ValueError(f"The saved average has other parameters: {', '.join(different)}.")
        for name, average in averages.items():
            self.averages[name].copy_(self._piece(self._parameters[name], average))


class AveragedWeights:
    """Puts averaged weights into a task in place of the trained ones.

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
