"""The log, the samples and the draws of a step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
from accelerate import Accelerator

from training.loop.randomness import derive_seed, make_generator
from training.loop.task import StepInfo
from training.loop.tracking import MetricsLog, MetricsWindow, write_audio_sample, write_mel_picture


def test_metrics_go_to_the_log_and_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "training")
    log = MetricsLog(tmp_path, Accelerator(cpu=True), "toy")
    log.write(5, {"loss": 0.123456789, "bad": float("nan")})
    log.write(6, {"loss": 1.0}, kind="valid")
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").open())
    assert first["step"] == 5 and first["loss"] == 0.123456789 and first["bad"] is None
    assert second["kind"] == "valid"
    printed = caplog.text
    assert "toy: train 5" in printed and "loss 0.1235" in printed and "bad nan" in printed


def test_window_by_hand() -> None:
    window = MetricsWindow()
    window.add({"loss": 1.0, "late": 5.0})
    window.add({"loss": 2.0})
    window.add_time(seconds=1.0, data_seconds=0.5, audio_seconds=30.0)
    window.add_time(seconds=3.0, data_seconds=0.5, audio_seconds=10.0)
    again = MetricsWindow(json.loads(json.dumps(window.numbers)))
    assert again.averages() == {
        "loss": 1.5,
        "late": 5.0,
        "steps_per_second": 0.5,
        "audio_seconds_per_second": 10.0,
        "data_wait": 0.25,
    }
    assert MetricsWindow().averages()["steps_per_second"] == 0.0


def test_samples(tmp_path: Path) -> None:
    write_audio_sample(
        tmp_path / "s" / "a.wav", torch.full((1, 800), 4.0), 8000, mel=torch.randn(9, 8)
    )
    samples, sample_rate = soundfile.read(tmp_path / "s" / "a.wav")
    assert sample_rate == 8000 and len(samples) == 800 and abs(samples).max() <= 1.0
    assert (tmp_path / "s" / "a.png").read_bytes().startswith(b"\x89PNG")
    write_mel_picture(
        tmp_path / "two.png", {"one": torch.randn(1, 9, 8), "other": torch.zeros(3, 8)}
    )
    assert (tmp_path / "two.png").stat().st_size > 1000


def test_seeds_depend_on_all_parts() -> None:
    assert derive_seed("a", 1) == derive_seed("a", 1)
    seeds = {derive_seed("a", 1), derive_seed("a", 2), derive_seed("b", 1), derive_seed("a", 1, 0)}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("a", 1, 23) != derive_seed("a", 12, 3)
    assert torch.equal(
        torch.randn(3, generator=make_generator(1)), torch.randn(3, generator=make_generator(1))
    )


def test_draws_of_an_item_do_not_depend_on_the_split_into_micro_batches() -> None:
    whole, part = StepInfo(seed=1, step=2, first_item=0), StepInfo(seed=1, step=2, first_item=5)
    one = torch.randn(4, generator=whole.generator(7))
    assert torch.equal(one, torch.randn(4, generator=part.generator(2)))
    later = StepInfo(seed=1, step=3, first_item=0)
    assert not torch.equal(one, torch.randn(4, generator=later.generator(7)))
