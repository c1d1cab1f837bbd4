"""Flow matching: path, schedule, guidance, solvers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tokenlm.models.flow.decoder import (
    SIGMA_MIN,
    cosine_schedule,
    guided,
    path,
    solve,
    solve_euler,
)


def test_path_by_hand() -> None:
    x0, x1 = torch.tensor([[[2.0]], [[4.0]]]), torch.tensor([[[10.0]], [[0.0]]])
    x_t, velocity = path(x0, x1, torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(x_t.flatten(), torch.tensor([4.0, 4.0 * SIGMA_MIN]))
    torch.testing.assert_close(velocity.flatten(), torch.tensor([8.0, -4.0]), atol=1e-5, rtol=0)


def test_velocity_is_the_derivative_of_the_path() -> None:
    torch.manual_seed(0)
    x0, x1 = torch.randn(2, 3, 4, 5, dtype=torch.float64).unbind()
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    before, velocity = path(x0, x1, t - 1e-4)
    after, _ = path(x0, x1, t + 1e-4)
    torch.testing.assert_close((after - before) / 2e-4, velocity)


def test_cosine_schedule_by_hand() -> None:
    assert cosine_schedule(1).tolist() == [0.0, 1.0]
    half = 1 - math.sqrt(0.5)
    torch.testing.assert_close(cosine_schedule(2), torch.tensor([0.0, half, 1.0]))
    third = [0.0, 1 - math.sqrt(3) / 2, 0.5, 1.0]
    torch.testing.assert_close(cosine_schedule(3), torch.tensor(third))
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        cosine_schedule(0)


def test_guidance_by_hand() -> None:
    out = guided(torch.tensor([3.0]), torch.tensor([1.0]), 0.7)
    torch.testing.assert_close(out, torch.tensor([1.7 * 3.0 - 0.7]))
    assert torch.equal(guided(torch.tensor([3.0]), torch.tensor([1.0]), 0.0), torch.tensor([3.0]))


def grow(step: int, t: Tensor, x: Tensor) -> Tensor:
    """dx/dt = 2 x."""
    return 2 * x


def test_euler_by_hand() -> None:
    times = torch.tensor([0.0, 0.25, 0.75, 1.0])
    x = solve_euler(grow, torch.ones(1, 1, 1), times)
    # Factors 1 + 2 h: 1.5, 2, 1.5.
    assert x.item() == pytest.approx(4.5)


def test_euler_tells_the_step_and_its_time() -> None:
    seen = []

    def watch(step: int, t: Tensor, x: Tensor) -> Tensor:
        seen.append((step, round(float(t), 4)))
        return torch.zeros_like(x)

    solve_euler(watch, torch.zeros(1, 1, 1), cosine_schedule(3))
    assert seen == [(0, 0.0), (1, 0.134), (2, 0.5)]


def test_library_euler_agrees_on_the_same_grid() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(5, 5) / 3

    def velocity(step: int, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ matrix) * (1 + t) + step

    x0, times = torch.randn(2, 4, 5), cosine_schedule(7)
    torch.testing.assert_close(
        solve(velocity, x0, times, "euler"), solve_euler(velocity, x0, times), atol=1e-5, rtol=0
    )


def test_higher_orders_come_closer() -> None:
    """To exp(2), the exact solution of the growth."""
    x0, times = torch.ones(1, 1, 1, dtype=torch.float64), cosine_schedule(8).double()
    errors = [
        abs(solve(grow, x0, times, method).item() - math.exp(2))
        for method in ("euler", "midpoint", "rk4", "dopri5")
    ]
    assert errors[0] > errors[1] > errors[2] > 1e-9 and errors[3] < 1e-4


def test_unknown_method_is_an_error() -> None:
    with pytest.raises(ValueError, match="Invalid method"):
        solve(grow, torch.ones(1, 1, 1), cosine_schedule(2), "guess")
