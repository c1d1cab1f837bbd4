"""The way of spreading a run that a launch has chosen.

`accelerate` reads the choice from its own config file and hands it on in the environment. On a
CPU it then ignores FSDP without a word (its state becomes MULTI_CPU), because it knows sharding on
accelerators alone. Here the environment decides: sharding is torch's own `fully_shard`, which has
no such limit, and `check_launch` refuses a launch whose ranks have not found one another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from accelerate import Accelerator
from accelerate.utils import DistributedType, parse_flag_from_env
from torch import nn

from tokenlm.config import ConfigError
from training.config import RunConfig
from training.loop.parallel.strategy import Parallel, StrategyName
from training.loop.task import Phase


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
        from training.loop.parallel.replicated import Replicated

        return Replicated(name, config, trained, accelerator.num_processes)
    if len(phases) != 1:
        raise ConfigError(
            f"{name}: the stage {config.stage} has {len(phases)} optimizers, one for each of "
            f"{', '.join(phase.name for phase in phases)}; it trains in one process or under DDP"
        )
    if name == "fsdp2":
        from training.loop.parallel.fully_sharded import FullySharded

        return FullySharded(accelerator, config, trained)
    from training.loop.parallel.zero import Zero

    return Zero(name, accelerator, config, trained)
