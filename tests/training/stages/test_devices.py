"""The losses and gradients of every stage on another device than the CPU; see `pretend_device`.

A tensor that stays on the CPU ends the step, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pretend_device import DEVICE, pretend

from tests.stage_step import build_task, gradients

QUICK = ("speech_lm", "flow", "speech_tokenizer")
OTHERS = ("token_recognizer", "speaker_encoder", "dpo", "grpo", "token_reward", "vocoder",
          "flow.cosyvoice", "hift")  # fmt: skip


@pytest.mark.parametrize(
    "stage",
    [pytest.param(stage, marks=pytest.mark.slow) for stage in QUICK]
    + [pytest.param(stage, marks=pytest.mark.nightly) for stage in OTHERS],
)
def test_a_step_is_that_of_the_cpu(stage: str, stage_config: Callable[..., Path]) -> None:
    path = stage_config(stage)
    expected = gradients(build_task(path), torch.device("cpu"))
    task = build_task(path)
    with pretend(has_float64=True) as counts:
        found = gradients(task, DEVICE)
        assert sum(counts.values()) > 100, "nothing was computed on the device"
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        worst = float((found[name] - value).abs().max())
        assert torch.allclose(found[name], value, atol=1e-3, rtol=1e-3), (name, worst)
