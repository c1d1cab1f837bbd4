"""Equal error rate, crops."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenlm.config import ConfigError
from training.loop.task import StepInfo
from training.run import load_task, main
from training.stages.speaker_encoder import equal_error_rate


def vectors(*degrees: float) -> torch.Tensor:
    angles = torch.tensor([math.radians(value) for value in degrees])
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_equal_error_rate_by_hand() -> None:
    assert equal_error_rate(vectors(0, 20, 90, 130), ["a", "a", "b", "b"]) == 0.0
    # Own pairs score 0 and -0.34, others -0.64, 0.34, 0.77 and 0.94. At the threshold 0 one of
    # two own pairs is missed, and three of four others are taken for one speaker.
    found = equal_error_rate(vectors(0, 90, 20, 130), ["a", "a", "b", "b"])
    assert found == pytest.approx((0.5 + 0.75) / 2)


def test_chance_is_a_half() -> None:
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(200, 16), dim=1)
    speakers = [f"s{index % 10}" for index in range(200)]
    assert equal_error_rate(embeddings, speakers) == pytest.approx(0.5, abs=0.05)


def test_no_pairs_no_rate() -> None:
    assert math.isnan(equal_error_rate(vectors(0, 10), ["a", "a"]))
    assert math.isnan(equal_error_rate(vectors(0, 10), ["a", "b"]))


def test_long_crops_come_first(stage_config: Callable[..., Path]) -> None:
    """The shortest crop falls from 0.6 s to 0.3 s over ten steps."""
    _, task = load_task(stage_config("speaker_encoder"), ["curriculum_steps=10"])
    task.build()
    data: Any = task.dataset("train")
    batch = task.collate([data[index] for index in range(4)])
    for step, shortest in ((0, 0.6), (5, 0.45), (10, 0.3), (99, 0.3)):
        lengths = task.prepare(batch, StepInfo(0, step, 0)).tensors["lengths"] / 16_000
        assert bool((lengths >= shortest - 1e-3).all()) and bool((lengths <= 0.6).all())


def test_sphereface2_is_a_loss_of_the_stage(stage_config: Callable[..., Path]) -> None:
    _, task = load_task(stage_config("speaker_encoder"), ["loss=sphereface2"])
    task.build()
    centres = task.modules["centres"]
    assert set(dict(centres.named_parameters())) == {"weight", "bias"}
    data: Any = task.dataset("train")
    batch = task.collate([data[index] for index in range(4)])
    optimizer = torch.optim.Adam(
        [weight for module in task.modules.values() for weight in module.parameters()], lr=3e-3
    )
    losses = []
    for _ in range(8):
        (loss,) = task.phases()[0].losses(task.prepare(batch, StepInfo(0, 1, 0))).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "wrong",
    ["min_crop_seconds=4", "positive_share=1", "curriculum_steps=-1", "similarity_power=0"],
)
def test_wrong_settings(stage_config: Callable[..., Path], wrong: str) -> None:
    with pytest.raises(ConfigError):
        load_task(stage_config("speaker_encoder"), [wrong])


def test_crops(stage_config: Callable[..., Path]) -> None:
    _, task = load_task(stage_config("speaker_encoder"))
    task.build()
    data: Any = task.dataset("train")
    batch = task.collate([data[index] for index in range(4)])
    prepared = task.prepare(batch, StepInfo(0, 1, 0))
    lengths = prepared.tensors["lengths"]
    assert bool((lengths >= 0.3 * 16_000).all()) and bool((lengths <= 0.6 * 16_000).all())
    assert len(set(lengths.tolist())) > 1
    for row, length, source in zip(
        prepared.tensors["waveform"], lengths.tolist(), batch["waveform"], strict=True
    ):
        assert bool((source.unfold(0, length, 1) == row[:length]).all(dim=1).any())
    assert prepared.tensors["margin"] == 0.1  # half of the warm-up
    assert prepared.counts == {"speaker/margin": 4.0}
    assert batch["labels"].tolist() == [0, 1, 2, 0]


def test_one_speaker_is_too_few(
    stage_config: Callable[..., Path], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (corpus / "train.jsonl").read_text().splitlines()
    path = corpus / "alone.jsonl"
    path.write_text(lines[0] + "\n")
    config = stage_config("speaker_encoder", data={"train": str(path)})
    assert main(["--config", str(config)]) == 1
    assert "needs at least two speakers" in capsys.readouterr().err
