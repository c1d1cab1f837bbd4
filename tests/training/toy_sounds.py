"""Sounds that are known, for the tests of the refinement."""

from __future__ import annotations

import math

import torch

RATE = 16_000


def tone(seconds: float, hertz: float = 440.0, level: float = 0.3) -> torch.Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    return level * torch.sin(2 * math.pi * hertz * time)


def quiet(seconds: float, level: float = 1e-4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return level * torch.randn(int(seconds * RATE), generator=generator)


def embed(waveform: torch.Tensor) -> torch.Tensor:
    """Stands for an encoder: low and high voices are two directions."""
    power = torch.fft.rfft(waveform).abs().square()
    split = int(len(power) * 1000 / (RATE / 2))
    return torch.nn.functional.normalize(
        torch.stack([power[:split].sum(), power[split:].sum()]), dim=0
    )
