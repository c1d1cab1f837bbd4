"""Conditional flow matching: the path, the solver and guidance.

Shapes: B batch, T mel frames, M mel bins. The path is the optimal-transport one of Lipman et al.
(2023), from noise x0 at t = 0 to data x1 at t = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tokenlm.installation import install_command

SIGMA_MIN = 1e-6
"""Deviation that the path keeps around the data."""

TOLERANCE = 1e-5
"""Of adaptive solvers; the defaults of `torchdiffeq` are too fine for float32."""

Velocity = Callable[[int, Tensor, Tensor], Tensor]
"""(solver step, time (), x_t (B, T, M)) to velocity (B, T, M)."""


def path(x0: Tensor, x1: Tensor, t: Tensor, sigma_min: float = SIGMA_MIN) -> tuple[Tensor, Tensor]:
    """The point x_t of the path and its velocity.

    Args:
        x0: (B, T, M) noise.
        x1: (B, T, M) data.
        t: (B,) times in [0, 1].
        sigma_min: deviation that is kept around the data.

    Returns:
        x_t = (1 - (1 - sigma) t) x0 + t x1 and x1 - (1 - sigma) x0, both (B, T, M).
    """
    time = t[:, None, None]
    return (1 - (1 - sigma_min) * time) * x0 + time * x1, x1 - (1 - sigma_min) * x0


def cosine_schedule(num_steps: int) -> Tensor:
    """Times (num_steps + 1,) from 0 to 1, dense near 0: 1 - cos(pi s / 2) of an even grid."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    grid = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    return (1 - (grid * math.pi / 2).cos()).to(torch.float32)


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022): (1 + w) v(cond) - w v(uncond)."""
    return (1 + scale) * conditional - scale * unconditional


def solve_euler(velocity: Velocity, x0: Tensor, times: Tensor) -> Tensor:
    """Integrates the flow from `x0` (B, T, M) along the grid `times` by Euler steps."""
    x = x0
    for step in range(times.shape[0] - 1):
        x = x + (times[step + 1] - times[step]) * velocity(step, times[step], x)
    return x


def solve(velocity: Velocity, x0: Tensor, times: Tensor, method: str = "euler") -> Tensor:
    """Integrates with a method of `torchdiffeq` on the grid `times`; for whole sequences.

    Args:
        velocity: as for `solve_euler`; its step number is the interval that the time lies in.
        x0: (B, T, M).
        times: increasing grid from 0 to 1.
        method: "euler", "midpoint", "rk4", or an adaptive method such as "dopri5".

    Raises:
        ValueError: `torchdiffeq` is missing or does not know the method.
    """
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ValueError(
            f"solver {method!r} needs torchdiffeq: {install_command('train')}"
        ) from error

    def function(t: Tensor, x: Tensor) -> Tensor:
        step = int(torch.searchsorted(times, t, right=True)) - 1
        return velocity(min(max(step, 0), times.shape[0] - 2), t, x)

    points = odeint(function, x0, times, method=method, rtol=TOLERANCE, atol=TOLERANCE)
    assert isinstance(points, Tensor)
    return points[-1]
