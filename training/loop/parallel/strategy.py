"""The interface between the loop and a way to spread a run over processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from training.loop.task import Phase, Prepared

StrategyName = Literal["single", "ddp", "fsdp2", "zero1", "zero2", "zero3"]


class Parallel(Protocol):
    """One way to spread a run. Methods marked "all ranks" must be called by all of them."""

    name: StrategyName
    is_sharded: bool
    """Whether one rank alone cannot run the modules."""

    def optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """Make the optimizer of a phase; called once for each, after the modules are built."""
        ...

    def losses(self, phase: Phase, prepared: Prepared) -> dict[str, Tensor]:
        """Run the losses of a phase with its modules whole. All ranks."""
        ...

    def backward(self, phase: Phase, total: Tensor, *, is_last: bool) -> None:
        """Add the gradient of one micro-batch. All ranks."""
        ...

    def reduce(self, phase: Phase, max_norm: float) -> Tensor:
        """Sum the gradients over the ranks and clip them. All ranks.

        Returns:
            Their norm before, a scalar; 0 where it is known only after the step.
        """
        ...

    def step(self, phase: Phase, rate: float) -> float | None:
        """Make the step of the optimizer; return the norm where `reduce` could not. All ranks."""
        ...

    def local(self, parameter: nn.Parameter) -> Tensor:
        """The part of a parameter that this rank keeps, sharing its memory."""
        ...

    def piece(self, parameter: nn.Parameter, full: Tensor) -> Tensor:
        """Cut out of a whole tensor what this rank keeps of `parameter`."""
        ...

    def full_state(self, module: nn.Module) -> dict[str, Tensor]:
        """The whole weights and buffers of a module. All ranks."""
        ...

    def load_state(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Load whole weights into a module. All ranks.

        Raises:
            RuntimeError: If they do not fit.
        """
        ...

    def full_optimizers(self) -> dict[str, Any]:
        """The state of the optimizers as one process would have it, by phase. All ranks."""
        ...

    def load_optimizers(self, saved: Mapping[str, Any], checkpoint: Path) -> None:
        """Take back what `full_optimizers` or `save_shards` has kept. All ranks."""
        ...

    def save_shards(self, folder: Path) -> Path | None:
        """Write what only the ranks together have into a new folder. All ranks."""
        ...


class StageModule(nn.Module):
    """The modules of a phase as one, whose forward is the losses.

    Sharding gathers the weights of a module for the time of its forward. As the losses of a stage
    may call any method of any of its modules, all of them run inside this one.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        """Hold the modules under their names."""
        super().__init__()
        self.parts = nn.ModuleDict(modules)

    def forward(self, phase: Phase, prepared: Prepared) -> dict[str, Tensor]:
        """The losses of a phase."""
        return phase.losses(prepared)
