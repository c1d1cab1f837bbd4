"""Schedule, parameter groups, clipping and averages against hand-computed numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from training.config import OptimConfig
from training.loop.average import Ema
from training.loop.optim import (
    clip_gradients,
    learning_rate,
    make_optimizer,
    parameter_groups,
    reduce_gradients,
)


def test_cosine_schedule() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=4, max_steps=12, min_ratio=0.2)
    assert [learning_rate(step, config) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(4, config) == 1.0
    assert learning_rate(8, config) == pytest.approx(0.2 + 0.8 * 0.5)
    assert learning_rate(6, config) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert learning_rate(12, config) == pytest.approx(0.2)
    assert learning_rate(1000, config) == pytest.approx(0.2)


def test_linear_and_constant_schedule() -> None:
    linear = OptimConfig(lr=2.0, warmup_steps=0, max_steps=10, min_ratio=0.0, decay="linear")
    assert [learning_rate(step, linear) for step in (0, 5, 10)] == [2.0, 1.0, 0.0]
    constant = OptimConfig(lr=2.0, warmup_steps=2, max_steps=10, decay="constant")
    assert [learning_rate(step, constant) for step in (0, 1, 9, 99)] == [1.0, 2.0, 2.0, 2.0]


def test_late_phase_warms_up_from_its_start() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=2, max_steps=10, min_ratio=0.0, decay="linear")
    assert learning_rate(4, config, starts_at=4) == 0.5
    assert learning_rate(8, config, starts_at=4) == pytest.approx(0.5)


def test_no_decay_on_norms_biases_and_embeddings() -> None:
    frozen = nn.Linear(2, 2)
    frozen.requires_grad_(False)
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.LayerNorm(2), frozen)
    decayed, undecayed = parameter_groups([model], 0.1)
    assert decayed["weight_decay"] == 0.1 and undecayed["weight_decay"] == 0.0
    assert [id(p) for p in decayed["params"]] == [id(model[1].weight)]
    assert len(undecayed["params"]) == 4


def test_tied_parameters_are_optimised_once() -> None:
    embedding, head = nn.Embedding(3, 2), nn.Linear(2, 3, bias=False)
    head.weight = embedding.weight
    (group,) = parameter_groups([embedding, head], 0.1)
    assert len(group["params"]) == 1 and group["weight_decay"] == 0.0


def test_optimizer_first_step_is_the_learning_rate() -> None:
    layer = nn.Linear(1, 1, bias=False)
    before = layer.weight.item()
    optimizer = make_optimizer([layer], OptimConfig(lr=0.1, weight_decay=0.5))
    layer.weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    assert layer.weight.item() == pytest.approx(before * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)


def test_fused_or_not_the_steps_are_the_same() -> None:
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        layer = nn.Linear(5, 3)
        optimizer = make_optimizer([layer], OptimConfig(lr=0.1, weight_decay=0.2, fused=fused))
        assert optimizer.defaults["fused"] is fused
        for _ in range(3):
            layer(torch.randn(4, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        found.append(layer.weight)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_clip_gradients() -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_gradients([a, b], 0.0).item() == 5.0
    assert a.grad.item() == 3.0
    assert clip_gradients([a, b], 1.0).item() == 5.0
    assert a.grad.item() == pytest.approx(0.6, abs=1e-4)
    assert b.grad.item() == pytest.approx(0.8, abs=1e-4)
    assert clip_gradients([nn.Parameter(torch.zeros(1))], 1.0).item() == 0.0


def test_reduce_gradients_on_one_rank_is_nothing() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    reduce_gradients([parameter], 1)
    assert parameter.grad is None


def test_average_of_the_weights() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(0.0)
    ema = Ema({"m": layer}, decay=0.5)
    layer.weight.data.fill_(1.0)
    ema.update(0)  # decay 1/10
    assert ema.averages["m.weight"].item() == pytest.approx(0.9)
    layer.weight.data.fill_(2.0)
    ema.update(100)  # decay 0.5
    assert ema.averages["m.weight"].item() == pytest.approx(1.45)
    with ema.applied():
        assert layer.weight.item() == pytest.approx(1.45)
    assert layer.weight.item() == 2.0
    assert ema.averages["m.weight"].item() == pytest.approx(1.45)


def test_average_refuses_other_parameters() -> None:
    ema = Ema({"m": nn.Linear(1, 1, bias=False)}, decay=0.5)
    with pytest.raises(ValueError, match=r"m\.other, m\.weight"):
        ema.load({"m.other": torch.zeros(1)})


def test_average_is_put_back_after_an_error() -> None:
    layer = nn.Linear(1, 1, bias=False)
    ema = Ema({"m": layer}, decay=0.5)
    layer.weight.data.fill_(3.0)
    with pytest.raises(RuntimeError), ema.applied():
        raise RuntimeError
    assert layer.weight.item() == 3.0
