"""FSDP2: weights, gradients and optimizer state cut into as many pieces as there are ranks.

Every block of the modules is gathered for the time of its forward and backward, everything else
with the stage as a whole. Checkpoints hold whole tensors, as those of one process do: a run goes
on with any number of ranks, sharded or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from training.config import RunConfig
from training.loop.blocks import blocks
from training.loop.optim import make_optimizer, optimizer_parameters
from training.loop.parallel.strategy import StageModule, StrategyName
from training.loop.task import Phase, Prepared


class FullySharded:
    """See `Parallel`."""

    name: StrategyName = "fsdp2"
    is_sharded = True

    def __init__(
        self, accelerator: Accelerator, config: RunConfig, trained: Mapping[str, nn.Module]
    ) -> None:
        """Shard the modules in place."""
        self._config, self._trained = config, trained
        self._device = accelerator.device
        mesh = init_device_mesh(self._device.type, (accelerator.num_processes,))
        self._stage = StageModule(trained)
        for block in blocks(self._stage):
            fully_shard(block, mesh=mesh)
        fully_shard(self._stage, mesh=mesh)
        for module in self._stage.modules():
            if isinstance(module, FSDPModule):
                # Losses are divided by the counts of all ranks: gradients are summed, not averaged.
                # (Gloo has no scaled sum, hence the plain one.)
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
                # A weight that one rank's batch does not touch is reduced all the same.
                module.set_reduce_scatter_unused_params(True)
        self._optimizers: dict[str, torch.optim.Optimizer] = {}

    def optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """See `Parallel`."""
        modules = [self._trained[name] for name in phase.modules]
        made = make_optimizer(modules, phase.optim or self._config.optim)
        self._optimizers[phase.name] = made
        return made

    def losses(self, phase: Phase, prepared: Prepared) -> dict[str, Tensor]:
        """See `Parallel`."""
        return self._stage(phase, prepared)

    def backward(self, phase: Phase, total: Tensor, *, is_last: bool) -> None:
        """See `Parallel`."""
        total.backward()

    def reduce(self, phase: Phase, max_norm: float) -> Tensor:
        """See `Parallel`; the backward pass has summed the gradients already."""
        parameters = optimizer_parameters(self._optimizers[phase.name])
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return torch.zeros((), device=self._device)
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if max_norm > 0:
            share = (max_norm / (norm + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                _local(gradient).mul_(share)
        return norm

    def step(self, phase: Phase, rate: float) -> float | None:
        """See `Parallel`."""
        optimizer = self._optimizers[phase.name]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        return None

    def local(self, parameter: nn.Parameter) -> Tensor:
        """See `Parallel`."""
        return _local(parameter)

    def piece(self, parameter: nn.Parameter, full: Tensor) -> Tensor:
        """See `Parallel`."""
        return _local(self._distributed(parameter, full))

    def _distributed(self, like: Tensor, full: Tensor) -> Tensor:
        if not isinstance(like, DTensor):
            return full.to(like.device)
        return distribute_tensor(full.to(self._device), like.device_mesh, like.placements)

    @torch.no_grad()
    def full_state(self, module: nn.Module) -> dict[str, Tensor]:
        """See `Parallel`."""
        return {name: _full(value) for name, value in module.state_dict().items()}

    @torch.no_grad()
    def load_state(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """See `Parallel`."""
        own = module.state_dict()
        if own.keys() != state.keys():
            different = sorted(own.keys() ^ state.keys())
            raise RuntimeError(f"other weights: {', '.join(different)}")
        for name, value in own.items():
            if value.shape != state[name].shape:
                raise RuntimeError(f"{name} is {value.shape}, not {state[name].shape}")
            value.copy_(self._distributed(value, state[name]))

    @torch.no_grad()
    def full_optimizers(self) -> dict[str, Any]:
        """See `Parallel`."""
        found = {}
        for name, optimizer in self._optimizers.items():
            saved = optimizer.state_dict()
            saved["state"] = {
                index: {key: _full(value) for key, value in entry.items()}
                for index, entry in saved["state"].items()
            }
            found[name] = saved
        return found

    @torch.no_grad()
    def load_optimizers(self, saved: Mapping[str, Any], checkpoint: Path) -> None:
        """See `Parallel`."""
        for name, optimizer in self._optimizers.items():
            parameters = optimizer_parameters(optimizer)
            state = {
                index: {
                    key: self._distributed(parameters[index], value)
                    if isinstance(value, Tensor) and value.shape == parameters[index].shape
                    else value
                    for key, value in entry.items()
                }
                for index, entry in saved[name]["state"].items()
            }
            optimizer.load_state_dict({**saved[name], "state": state})

    def save_shards(self, folder: Path) -> Path | None:
        """See `Parallel`: whole tensors are saved."""
        return None


def _local(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, DTensor):
        return tensor
    with torch.no_grad():
        return tensor.to_local()


def _full(value: Any) -> Any:
    # Every rank takes part; the whole tensor is needed on the first one only, but comes to all.
    return cast("Tensor", value.full_tensor()).cpu() if isinstance(value, DTensor) else value
