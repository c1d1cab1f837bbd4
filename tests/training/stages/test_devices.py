"""The losses and gradients of every stage on another device than the CPU; see `pretend_device`.

A tensor that stays on the CPU ends the step, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pretend_device import DEVICE, pretend
from torch import Tensor

from training.data.reader import to_device
from training.loop.task import StepInfo, Task
from training.run import load_task

QUICK = ("speech_lm", "flow", "speech_tokenizer")
OTHERS = ("token_recognizer", "speaker_encoder", "dpo", "grpo", "token_reward", "vocoder",
          "flow.cosyvoice", "hift")  # fmt: skip


@pytest.mark.parametrize(
    "stage",
    [pytest.param(stage, marks=pytest.mark.slow) for stage in QUICK]
    + [pytest.param(stage, marks=pytest.mark.nightly) for stage in OTHERS],
)
def test_a_step_is_that_of_the_cpu(stage: str, stage_config: Callable[..., Path]) -> None:
    path = stage_config(stage)
    expected = gradients(build(path), torch.device("cpu"))
    task = build(path)
    with pretend(has_float64=True) as counts:
        found = gradients(task, DEVICE)
        assert sum(counts.values()) > 100, "nothing was computed on the device"
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-3, rtol=1e-3), name


def build(path: Path) -> Task:
    _, task = load_task(path)
    torch.manual_seed(0)
    task.build()
    return task


def gradients(task: Task, device: torch.device) -> dict[str, Tensor]:
    """Losses and gradients of the first items of a stage."""
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
