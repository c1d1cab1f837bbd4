"""Clocks of the benchmark."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from inference.benchmark.timeline import peak_memory_bytes, stage_clock


class Sleeper(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return x


def test_clock_counts_calls_inside_alone() -> None:
    busy, idle = Sleeper(), Sleeper()
    with stage_clock({"busy": busy, "idle": idle}) as seconds:
        busy(busy(torch.zeros(1)))
    before = seconds["busy"]
    busy(torch.zeros(1))
    assert before == seconds["busy"] >= 0.04
    assert seconds["idle"] == 0.0


def test_peak_memory_does_not_fall() -> None:
    first = peak_memory_bytes()
    held = torch.ones(32 << 20)
    during = peak_memory_bytes()
    assert during >= held.numel() * held.element_size()
    del held
    assert peak_memory_bytes() >= during >= first
