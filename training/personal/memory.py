"""Batches that fit the memory there is: smaller micro-batches, and more of them to a step."""

from __future__ import annotations

import math
from dataclasses import replace

import psutil
import torch
from torch import Tensor

from training.config import BatchConfig
from training.loop.task import StepInfo, Task

TRAINED_BYTES = 20
"""Of each number that learns: itself, its gradient, two moments and the average."""
WORKSPACE = 2.0
"""Memory of a backward pass over what the forward pass keeps for it."""


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def kept_bytes_per_second(task: Task) -> tuple[float, int]:
    """What a task keeps for the backward pass of each second of audio, and numbers that learn.

    One item goes forward, the longest.

    Args:
        task: built.
    """
    data = task.dataset("train")
    assert data is not None
    longest = max(range(len(data)), key=lambda index: data.durations[index])
    with torch.no_grad():
        prepared = task.prepare(task.collate([data[longest]]), StepInfo(0, 0, 0))
    own = {p.data_ptr() for module in task.modules.values() for p in module.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    largest, num_trained = 0, 0
    for phase in task.phases():
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            losses = phase.losses(prepared)
        largest = max(largest, sum(kept.values()))
        del losses
        for name in phase.modules:
            trained = [p for p in task.modules[name].parameters() if p.requires_grad]
            num_trained += sum(p.numel() for p in trained)
    return largest / max(float(data.durations[longest]), 1e-3), num_trained


def fit_batch(
    batch: BatchConfig, longest: float, bytes_per_second: float, free: float
) -> BatchConfig:
    """The same batch in micro-batches that fit.

    Args:
        batch: as the recipe has it.
        longest: seconds of the longest item, which no micro-batch can be smaller than.
        bytes_per_second: that a step keeps for each second.
        free: bytes for it.
    """
    room = free / max(WORKSPACE * bytes_per_second, 1.0)
    seconds = min(max(room, longest * 1.001), batch.max_seconds_per_batch)
    largest = batch.max_seconds_per_batch
    if not batch.pack_seconds:  # packed rows hold any number of items
        largest = min(largest, batch.max_items * longest)
    times = math.ceil(largest / seconds)
    return replace(batch, max_seconds_per_batch=seconds, accumulation=batch.accumulation * times)
