"""What the loop asks of a way to spread a run over processes, and which one a launch has chosen.

`accelerate` reads the choice from its own config file and hands it on in the environment. On a
CPU it then ignores FSDP without a word (its state becomes MULTI_CPU), because it knows sharding on
accelerators alone. Here the environment decides: sharding is torch's own `fully_shard`, which has
no such limit, and `check_launch` refuses a launch whose ranks have not found one another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, parse_flag_from_env
from torch import Tensor, nn

from tokenlm.config import ConfigError
from training.config import RunConfig
from training.task import Phase, Prepared

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


def strategy_name(accelerator: Accelerator) -> StrategyName:
    """Return what the launch has chosen.

    Raises:
        ConfigError: If it has chosen FSDP of the first version.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        plugin = accelerator.state.deepspeed_plugin
        assert plugin is not None
        stage = plugin.zero_stage
        names: dict[int, StrategyName] = {1: "zero1", 2: "zero2", 3: "zero3"}
        if stage not in names:
            raise ConfigError(f"ZeRO stage {stage}: DeepSpeed is used for the stages 1, 2 and 3")
        return names[stage]
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and accelerator.num_processes > 1:
        if os.environ.get("FSDP_VERSION", "1") != "2":
            raise ConfigError("FSDP: only its second version is used; set fsdp_version: 2")
        return "fsdp2"
    return "ddp" if accelerator.num_processes > 1 else "single"


def will_shard() -> bool:
    """Whether the launch asks for sharded modules; also where its choice turns out invalid."""
    flags = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(parse_flag_from_env(flag) for flag in flags)


def check_launch(accelerator: Accelerator) -> None:
    """Refuse a launch whose processes train alone, each believing that it is the only one.

    Raises:
        ConfigError: If fewer ranks have met than were started.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise ConfigError(
            f"{started} processes were started, but this one sees {accelerator.num_processes}: "
            "accelerate has found no backend to connect them"
        )


def make_parallel(
    accelerator: Accelerator,
    config: RunConfig,
    phases: Sequence[Phase],
    trained: Mapping[str, nn.Module],
) -> Parallel:
    """Spread the trained modules, which are on the device and the same on all ranks.

    Raises:
        ConfigError: If the stage cannot be spread in the way that the launch has chosen.
    """
    check_launch(accelerator)
    name = strategy_name(accelerator)
    if name in ("single", "ddp"):
        from training.parallel.replicated import Replicated

        return Replicated(name, config, trained, accelerator.num_processes)
    if len(phases) != 1:
        raise ConfigError(
            f"{name}: the stage {config.stage} has {len(phases)} optimizers, one for each of "
            f"{', '.join(phase.name for phase in phases)}; it trains in one process or under DDP"
        )
    if name == "fsdp2":
        from training.parallel.fully_sharded import FullySharded

        return FullySharded(accelerator, config, trained)
    from training.parallel.zero import Zero

    return Zero(name, accelerator, config, trained)
