"""The modules whole on every rank (DDP), and one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.config import RunConfig
from training.loop.optim import (
    clip_gradients,
    make_optimizer,
    optimizer_parameters,
    reduce_gradients,
)
from training.loop.parallel.strategy import StrategyName
from training.loop.task import Phase, Prepared


class Replicated:
    """Every rank has all weights; gradients are summed. See `Parallel`.

    The sum is our own rather than that of `DistributedDataParallel`, which wants one forward of
    one module for each backward: phases share graphs, and losses call any method they like.
    """

    is_sharded = False

    def __init__(
        self,
        name: StrategyName,
        config: RunConfig,
        trained: Mapping[str, nn.Module],
        num_ranks: int,
    ) -> None:
        """Keep the modules."""
        self.name: StrategyName = name
        self._config, self._trained, self._num_ranks = config, trained, num_ranks
        self._optimizers: dict[str, torch.optim.Optimizer] = {}

    def optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """See `Parallel`."""
        modules = [self._trained[name] for name in phase.modules]
        made = make_optimizer(modules, phase.optim or self._config.optim)
        self._optimizers[phase.name] = made
        return made

    def losses(self, phase: Phase, prepared: Prepared) -> dict[str, Tensor]:
        """See `Parallel`."""
        return phase.losses(prepared)

    def backward(self, phase: Phase, total: Tensor, *, is_last: bool) -> None:
        """See `Parallel`."""
        if total.requires_grad:
            # Only the parameters of the phase get a gradient: what another phase owns (a
            # discriminator) may be used freely, and no graph is freed that it needs.
            total.backward(inputs=optimizer_parameters(self._optimizers[phase.name]))

    def reduce(self, phase: Phase, max_norm: float) -> Tensor:
        """See `Parallel`."""
        parameters = optimizer_parameters(self._optimizers[phase.name])
        reduce_gradients(parameters, self._num_ranks)
        return clip_gradients(parameters, max_norm)

    def step(self, phase: Phase, rate: float) -> float | None:
        """See `Parallel`."""
        optimizer = self._optimizers[phase.name]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        return None

    def local(self, parameter: nn.Parameter) -> Tensor:
        """See `Parallel`."""
        return parameter

    def piece(self, parameter: nn.Parameter, full: Tensor) -> Tensor:
        """See `Parallel`."""
        return full

    def full_state(self, module: nn.Module) -> dict[str, Tensor]:
        """See `Parallel`."""
        return module.state_dict()

    def load_state(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """See `Parallel`."""
        module.load_state_dict(state)

    def full_optimizers(self) -> dict[str, Any]:
        """See `Parallel`."""
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_optimizers(self, saved: Mapping[str, Any], checkpoint: Path) -> None:
        """See `Parallel`."""
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(saved[name])

    def save_shards(self, folder: Path) -> Path | None:
        """See `Parallel`: there are none."""
        return None
