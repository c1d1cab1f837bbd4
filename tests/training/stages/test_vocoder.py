"""Crops and phases of the stage vocoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.data.manifest import Rows
from training.data.reader import MicroBatchDataset, UnreadableItems
from training.data.rejects import read_rejects
from training.data.sampler import MicroBatch
from training.loop.task import StepInfo, Task
from training.run import load_task


@pytest.fixture
def task(stage_config: Callable[..., Path]) -> Task:
    _, task = load_task(stage_config("vocoder"))
    task.build()
    return task


def test_crops(task: Task) -> None:
    data: Any = task.dataset("train")
    assert len(data) == 8 and data.durations.tolist() == [16 * 480 / 24_000] * 8
    waveform = data.utterances.waveform(0)
    assert waveform.shape == (19_200,)
    # The middle in validation.
    assert torch.equal(data[0], waveform[5760:13_440])
    crops = [data.draw(0, torch.Generator().manual_seed(seed)) for seed in range(3)]
    for crop in crops:
        assert bool((waveform.unfold(0, 7680, 1) == crop).all(dim=1).any())
    assert not torch.equal(crops[0], crops[1])


def test_short_utterances_are_filled_up(task: Task) -> None:
    data: Any = task.dataset("train")
    data.num_samples = 24_000
    crop = data[0]
    assert crop.shape == (24_000,)
    assert torch.equal(crop[:19_200], data.utterances.waveform(0))
    assert bool((crop[19_200:] == 0).all())
    assert torch.equal(data.draw(0, torch.Generator().manual_seed(1)), crop)


def test_adversaries_come_later(task: Task) -> None:
    data: Any = task.dataset("train")
    batch = task.collate([data[0], data[1]])
    discriminate, generate = task.phases()
    assert discriminate.starts_at == 1 and discriminate.modules == ("discriminator",)
    assert generate.starts_at == 0 and generate.modules == ("vocoder",)
    spectral = {"vocoder/mel", "vocoder/convergence", "vocoder/log_magnitude"}
    first = task.prepare(batch, StepInfo(0, 0, 0))
    assert generate.losses(first).keys() == spectral
    later = task.prepare(batch, StepInfo(0, 1, 0))
    adversarial = {"vocoder/adversarial", "vocoder/feature_matching"}
    assert generate.losses(later).keys() == spectral | adversarial
    assert discriminate.losses(later).keys() == {"vocoder/discriminator"}
    relative = {"vocoder/relative", "vocoder/discriminator_relative"}
    assert set(later.counts) == spectral | adversarial | {"vocoder/discriminator"} | relative
    assert set(later.counts.values()) == {2.0}


def test_discriminator_gives_the_vocoder_no_gradient(task: Task) -> None:
    data: Any = task.dataset("train")
    prepared = task.prepare(task.collate([data[0]]), StepInfo(0, 1, 0))
    loss = task.phases()[0].losses(prepared)["vocoder/discriminator"]
    loss.backward()
    assert all(weight.grad is None for weight in task.modules["vocoder"].parameters())
    assert all(weight.grad is not None for weight in task.modules["discriminator"].parameters())


def test_generator_hears_the_discriminator_without_training_it(task: Task) -> None:
    data: Any = task.dataset("train")
    _, generate = task.phases()
    prepared = task.prepare(task.collate([data[0], data[1]]), StepInfo(0, 1, 0))
    sum(generate.losses(prepared).values(), torch.zeros(())).backward()
    discriminator = task.modules["discriminator"]
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
    prepared = task.prepare(task.collate([data[0], data[1]]), StepInfo(0, 1, 0))
    weights = list(task.modules["vocoder"].parameters())
    gradients = []
    for names in ({"vocoder/adversarial"}, {"vocoder/feature_matching"}):
        task.modules["vocoder"].zero_grad()
        losses = generate.losses(prepared)
        sum((losses[name] for name in names), torch.zeros(())).backward()
        gradients.append(max(float(p.grad.abs().max()) for p in weights if p.grad is not None))

    assert min(gradients) > 0


def test_a_broken_recording_is_set_aside_by_its_name(task: Task, tmp_path: Path) -> None:
    data: Any = task.dataset("train")
    row = data.utterances.utterances[3]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    rows = list(data.utterances.utterances)
    rows[3] = replace(row, audio=broken)
    data.utterances.utterances = Rows.of(rows)
    unreadable = UnreadableItems(tmp_path / "rejects.jsonl", 0.5)
    items = MicroBatchDataset(task, data, 0, augment=True, unreadable=unreadable)
    assert items[MicroBatch((2, 3), 0)].shape[0] == 2
    (reject,) = read_rejects(tmp_path / "rejects.jsonl")
    assert reject.file == f"{row.id}, {broken}"
