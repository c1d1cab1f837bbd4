"""What the stage hift adds to the stage vocoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.models.vocoder import HiFT
from training.loop.task import StepInfo
from training.run import load_task
from training.stages.hift import HiFTTask


@pytest.fixture
def task(stage_config: Callable[..., Path]) -> HiFTTask:
    _, task = load_task(stage_config("hift"))
    assert isinstance(task, HiFTTask)
    task.build()
    return task


def batch_of(task: HiFTTask, *indices: int) -> Tensor:
    data: Any = task.dataset("train")
    return task.collate([data[index] for index in indices])


def gradients(task: HiFTTask, loss: Tensor) -> tuple[float, float]:
    """Largest gradient of the pitch predictor, and of everything else."""
    vocoder = task.modules["vocoder"]
    vocoder.zero_grad()
    loss.backward()
    found = {True: 0.0, False: 0.0}
    for name, weight in vocoder.named_parameters():
        if weight.grad is not None:
            is_pitch = name.startswith("pitch.")
            found[is_pitch] = max(found[is_pitch], float(weight.grad.abs().max()))
    return found[True], found[False]


def test_the_pitch_learns_from_its_own_loss_alone(task: HiFTTask) -> None:
    prepared = task.prepare(batch_of(task, 0, 1), StepInfo(0, 1, 0))
    # Harmonics of 100 and 160 Hz.
    pitch = prepared.tensors["pitch"]
    assert pitch.shape == (2, 16)
    for row, hertz in zip(pitch, (100.0, 160.0), strict=True):
        torch.testing.assert_close(row[3:-3], torch.full((10,), hertz), rtol=0.01, atol=0)
    _, generate = task.phases()
    losses = generate.losses(prepared)
    assert losses.keys() == {
        "vocoder/mel",
        "vocoder/pitch",
        "vocoder/adversarial",
        "vocoder/feature_matching",
        "vocoder/relative",
    }
    assert losses.keys() <= prepared.counts.keys()
    predictor, rest = gradients(task, losses["vocoder/pitch"])
    assert predictor > 0 and rest == 0
    for name in ("vocoder/mel", "vocoder/adversarial", "vocoder/feature_matching"):
        predictor, rest = gradients(task, generate.losses(prepared)[name])
        assert predictor == 0 and rest > 0, name


def test_training_renders_what_inference_does(task: HiFTTask) -> None:
    batch = batch_of(task, 0, 2)
    prepared = task.prepare(batch, StepInfo(0, 0, 0))
    vocoder = task.modules["vocoder"]
    assert isinstance(vocoder, HiFT)
    with torch.no_grad():
        prepared.tensors["first_sample"] = 0
        rendered, _ = task.render(prepared)
        torch.testing.assert_close(rendered, vocoder(prepared.tensors["mel"]))
    assert rendered.shape == batch.shape


def test_noise_is_of_another_place_in_every_step(task: HiFTTask) -> None:
    batch = batch_of(task, 0)
    places = [task.prepare(batch, StepInfo(0, step, 0)).tensors["first_sample"] for step in (0, 1)]
    again = task.prepare(batch, StepInfo(0, 0, 0)).tensors["first_sample"]
    assert places[0] == again != places[1]
    assert all(place % 480 == 0 for place in places)


def test_discriminators_learn_before_they_speak(stage_config: Callable[..., Path]) -> None:
    _, task = load_task(stage_config("hift", adversarial_start_step=3))
    task.build()
    discriminate, generate = task.phases()
    assert discriminate.starts_at == 0
    assert isinstance(task, HiFTTask)
    prepared = task.prepare(batch_of(task, 0), StepInfo(0, 2, 0))
    assert discriminate.losses(prepared).keys() == {
        "vocoder/discriminator",
        "vocoder/discriminator_relative",
    }
    assert generate.losses(prepared).keys() == {"vocoder/mel", "vocoder/pitch"}
    with pytest.raises(ValueError, match="must not come after adversarial_start_step"):
        load_task(stage_config("hift", discriminator_start_step=2))
