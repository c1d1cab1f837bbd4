"""Phone labels, and what the stage prepares."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenlm.models.speech_tokenizer import SpeechTokenizerConfig
from tokenlm.models.token_recognizer import TokenRecognizerConfig
from training.data.split import DataConfig
from training.loop.task import StepInfo
from training.run import load_task
from training.stages.speech_tokenizer import (
    SpeechTokenizerStageConfig,
    phone_labels,
    phone_loss,
)

INDEX = {"a": 0, "b": 1}


def test_phone_labels_by_hand() -> None:
    """Read at 10, 30, 50, 70, 90 and 110 ms; "x" is not known, and 0.1 s is the end."""
    phones = [("a", 0.045), ("x", 0.06), ("b", 0.1)]
    assert phone_labels(phones, 3, 25, INDEX).tolist() == [[0, 0], [-1, 1], [1, -1]]


def test_no_phones_no_labels() -> None:
    assert phone_labels(None, 2, 25, INDEX).tolist() == [[-1, -1], [-1, -1]]
    assert phone_labels([], 1, 25, INDEX).tolist() == [[-1, -1]]
    assert phone_labels([("a", 1.0)], 0, 25, INDEX).shape == (0, 2)


def test_phone_loss_by_hand() -> None:
    """Two labels of a token, each over its own half of the outputs."""
    probabilities = torch.tensor([[[0.5, 0.5, 0.2, 0.8], [0.9, 0.1, 0.3, 0.7]]])
    labels = torch.tensor([[[0, 1], [-1, 0]]])
    expected = -math.log(0.5) - math.log(0.8) - math.log(0.3)
    assert phone_loss(probabilities.log(), labels).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("step", "blend"), [(0, 0.0), (1, 0.0), (2, 0.5), (3, 1.0), (9, 1.0)])
def test_blend_grows(stage_config: Callable[..., Path], step: int, blend: float) -> None:
    config, task = load_task(stage_config("speech_tokenizer"))
    task.build()
    data: Any = task.dataset("train")
    prepared = task.prepare(task.collate([data[0], data[1]]), StepInfo(0, step, 0))
    assert prepared.tensors["blend"] == blend
    # "one two." and "is it so?" in characters; phones of the second utterance alone.
    assert prepared.counts["tokenizer/ctc"] == 7 + 8
    assert prepared.counts["tokenizer/attention"] == 8 + 9
    assert prepared.counts["tokenizer/phone"] == int(0.9 * 25) * 2


def test_masked_frames_are_not_heard(stage_config: Callable[..., Path]) -> None:
    config, task = load_task(
        stage_config("speech_tokenizer"), ["spectrum_mask.time_masks_per_second=10"]
    )
    task.build()
    data: Any = task.dataset("train")
    batch = task.collate([data[0], data[1]])
    prepared = task.prepare(batch, StepInfo(0, 5, 0))
    mask = prepared.tensors["spectrum_mask"]
    again = task.prepare(batch, StepInfo(0, 5, 0)).tensors["spectrum_mask"]
    assert mask.equal(again) and not mask[:, :20].all() and mask.any()
    # The same draws wherever an item stands in the batches of a step.
    alone = task.prepare(task.collate([data[1]]), StepInfo(0, 5, 1)).tensors["spectrum_mask"]
    assert alone[0].equal(mask[1, : alone.shape[1]])
    tokenizer: Any = task.modules["speech_tokenizer"].eval()
    waveform, lengths = batch["waveform"], batch["lengths"]
    _, plain, _ = tokenizer(waveform, lengths)
    _, kept, _ = tokenizer(waveform, lengths, 1.0, torch.ones_like(mask))
    _, masked, _ = tokenizer(waveform, lengths, 1.0, mask)
    assert kept.equal(plain) and not masked.equal(plain)


def test_levels_must_agree() -> None:
    with pytest.raises(ValueError, match="recognizer.levels \\(5, 5\\) must be equal"):
        SpeechTokenizerStageConfig(
            stage="speech_tokenizer",
            data=DataConfig(train=Path("x")),
            model=SpeechTokenizerConfig(levels=(3, 3)),
            recognizer=TokenRecognizerConfig(levels=(5, 5)),
        )
    with pytest.raises(ValueError, match="must not be after blend_end_step"):
        SpeechTokenizerStageConfig(
            stage="speech_tokenizer",
            data=DataConfig(train=Path("x")),
            blend_start_step=3,
            blend_end_step=2,
        )
