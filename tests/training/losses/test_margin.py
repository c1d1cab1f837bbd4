"""Losses with a margin."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from training.losses.margin import margin_softmax_loss, sphereface2_bias, sphereface2_loss


def at(degrees: float, length: float = 1.0) -> list[float]:
    return [length * math.cos(math.radians(degrees)), length * math.sin(math.radians(degrees))]


def test_by_hand() -> None:
    """An embedding 30 degrees from its centre, 60 from the other; the margin is 15 degrees."""
    weight = torch.tensor([at(0, 3.0), at(90, 0.5)])
    loss = margin_softmax_loss(
        torch.tensor([at(30, 7.0)]),
        weight,
        torch.tensor([0]),
        margin=math.radians(15),
        scale=10.0,
    )
    own, other = 10 * math.cos(math.radians(45)), 10 * math.cos(math.radians(60))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(other - own)), rel=1e-4)


def test_without_margin_it_is_cross_entropy_of_cosines() -> None:
    torch.manual_seed(0)
    embedding, weight = torch.randn(6, 4), torch.randn(3, 4)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    cosine = functional.normalize(embedding) @ functional.normalize(weight).T
    expected = functional.cross_entropy(5 * cosine, labels, reduction="sum")
    found = margin_softmax_loss(embedding, weight, labels, margin=0.0, scale=5.0)
    torch.testing.assert_close(found, expected)


def test_loss_rises_with_the_angle_all_the_way_round() -> None:
    """Also past pi - margin, where the shifted cosine itself would rise again."""
    weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    losses = [
        margin_softmax_loss(
            torch.tensor([[*at(degrees), 0.0]]), weight, torch.tensor([0]), margin=0.5, scale=4.0
        ).item()
        for degrees in range(0, 181, 4)
    ]
    assert all(sooner < later for sooner, later in zip(losses, losses[1:], strict=False))
    # At 180 degrees: cos(pi) - margin sin(pi - margin), against a cosine of 0.
    end = 4 * (-1 - 0.5 * math.sin(math.pi - 0.5))
    assert losses[-1] == pytest.approx(math.log(1 + math.exp(-end)), rel=1e-3)


def test_gradients_are_finite_where_the_angle_is_nothing() -> None:
    embedding = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    margin_softmax_loss(embedding, weight, torch.tensor([0, 0]), margin=0.2, scale=30.0).backward()
    assert embedding.grad is not None and bool(embedding.grad.isfinite().all())
    assert weight.grad is not None and bool(weight.grad.isfinite().all())


SPHEREFACE2 = {"margin": 0.2, "scale": 10.0, "positive_share": 0.7, "power": 3.0}


def test_sphereface2_by_hand() -> None:
    """An embedding 60 degrees from its centre, 30 from the other: similarities of
    2 (3/4)^3 - 1 and 2 ((1 + cos 30) / 2)^3 - 1."""
    weight = torch.tensor([at(0, 3.0), at(90, 0.5)])
    loss = sphereface2_loss(
        torch.tensor([at(60, 7.0)]), weight, torch.tensor([0.5]), torch.tensor([0]), **SPHEREFACE2
    )
    own = 2 * 0.75**3 - 1
    other = 2 * ((1 + math.cos(math.radians(30))) / 2) ** 3 - 1
    expected = 0.7 * math.log(1 + math.exp(-(10 * (own - 0.2) + 0.5)))
    expected += 0.3 * math.log(1 + math.exp(10 * (other + 0.2) + 0.5))
    assert loss.item() == pytest.approx(expected / 10, rel=1e-4)


@pytest.mark.parametrize("num_speakers", [2, 7, 3000])
@pytest.mark.parametrize("scale", [5.0, 30.0])
def test_the_bias_begins_where_both_kinds_pull_equally(num_speakers: int, scale: float) -> None:
    numbers = {**SPHEREFACE2, "scale": scale}
    # All cosines are 0: embeddings and centres lie in other dimensions.
    embedding, weight = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]] * num_speakers)
    bias = torch.tensor([sphereface2_bias(num_speakers, **numbers)]).double().requires_grad_()
    loss = sphereface2_loss(embedding.double(), weight.double(), bias, torch.tensor([0]), **numbers)
    loss.backward()
    assert bias.grad is not None
    own = 0.7 / scale  # the most that the own speaker may pull
    assert abs(float(bias.grad)) < 1e-4 * own


def test_sphereface2_gradients_are_finite_where_the_angle_is_nothing() -> None:
    embedding = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    numbers = {**SPHEREFACE2, "power": 0.5}
    sphereface2_loss(embedding, weight, torch.zeros(1), torch.tensor([0, 0]), **numbers).backward()
    assert embedding.grad is not None and bool(embedding.grad.isfinite().all())
