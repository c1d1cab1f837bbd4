"""One training step of a stage, its losses and gradients, on any device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.data.reader import to_device
from training.loop.task import StepInfo, Task
from training.run import load_task


def build_task(config: Path) -> Task:
    """The stage of a config file, with weights that are the same at every call."""
    _, task = load_task(config)
    torch.manual_seed(0)
    task.build()
    return task


def gradients(task: Task, device: torch.device) -> dict[str, Tensor]:
    """Losses and gradients of the first items of a stage, on the CPU, by name."""
    phases = task.phases()
    task.to(device)
    data = task.dataset("train")
    assert data is not None
    batch = task.collate([data[index] for index in range(min(4, len(data)))])
    for module in task.modules.values():
        module.train()
    with torch.no_grad():
        prepared = task.prepare(to_device(batch, device), StepInfo(1, 10_000, 0))
    found: dict[str, Tensor] = {}
    for phase in phases:
        torch.manual_seed(1)
        losses = phase.losses(prepared)
        torch.stack([*losses.values()]).sum().backward()
        found |= {name: loss.detach().cpu() for name, loss in losses.items()}
        for name in phase.modules:
            for key, weight in task.modules[name].named_parameters():
                if weight.grad is not None:
                    found[f"{name}.{key}"] = weight.grad.cpu()
    return found
