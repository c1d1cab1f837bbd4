"""The command line of training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import toy_stage

from tokenlm.installation import install_command
from training import run
from training.config import (
    BatchConfig,
    LogConfig,
    OptimConfig,
    resolve_precision,
    run_folder,
    runs_folder,
)
from training.stages import STAGES


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A config file of the toy stage, registered for the length of a test."""
    monkeypatch.setitem(STAGES, "toy", ("ToyConfig", "ToyTask"))
    monkeypatch.setitem(sys.modules, "training.stages.toy", toy_stage)
    base = "stage: toy\noptim: {max_steps: 3}\nbatch: {max_seconds_per_batch: 9}\n"
    (tmp_path / "base.yaml").write_text(base)
    path = tmp_path / "toy.yaml"
    path.write_text(f"base: base.yaml\nrun: {tmp_path}/out\nlog: {{evaluate_every: 0}}\n")
    return path


def test_trains_and_exports(toy: Path, tmp_path: Path) -> None:
    assert run.main(["--config", str(toy), "optim.lr=1e-3", "seed=4"]) == 0
    assert (tmp_path / "out" / "step-000003").is_dir()
    assert "lr: 0.001" in (tmp_path / "out" / "config.yaml").read_text()
    options = ["--config", str(toy), "optim.lr=1e-3", "seed=4", "--export", str(tmp_path / "e")]
    assert run.main(options) == 0
    exported = (tmp_path / "e" / "weights.json").read_text()
    assert exported == (tmp_path / "out" / "export" / "weights.json").read_text()


def test_mistakes_are_sentences(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--config", str(toy), "optim.learning_rate=1"]) == 2
    assert "unknown key 'learning_rate'" in capsys.readouterr().err
    assert run.main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert run.main(["--config", str(toy), "stage=voice"]) == 2
    assert "unknown stage 'voice'; valid stages: speech_tokenizer" in capsys.readouterr().err
    assert run.main(["--config", str(toy), "stage=cosyvoice_flow"]) == 2
    now = "which is the stage flow with configs/train/flow.cosyvoice.yaml now; valid stages:"
    assert f"unknown stage 'cosyvoice_flow', {now}" in capsys.readouterr().err
    assert run.main(["--config", str(toy), "batch.max_seconds_per_batch=2"]) == 1
    assert "more than a whole batch" in capsys.readouterr().err
    (tmp_path / "empty.yaml").write_text("seed: 1")
    assert run.main(["--config", str(tmp_path / "empty.yaml")]) == 2
    assert "names no stage" in capsys.readouterr().err


def test_export_needs_a_checkpoint(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--config", str(toy), "--export", str(tmp_path / "e")]) == 2
    assert "has no checkpoint to export" in capsys.readouterr().err


def test_missing_extra_is_one_sentence(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    assert run.main(["--config", str(toy)]) == 2
    assert install_command("train") in capsys.readouterr().err


def test_unknown_tracker(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--config", str(toy), "log.trackers=[paper]"]) == 1
    assert "log.trackers has 'paper'; valid are:" in capsys.readouterr().err


def test_run_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKENLM_RUNS", str(tmp_path / "runs"))
    assert run_folder(toy_stage.toy_config("")) == tmp_path / "runs" / "toy"
    assert run_folder(toy_stage.toy_config("mine")) == tmp_path / "runs" / "mine"
    assert run_folder(toy_stage.toy_config(tmp_path / "x")) == tmp_path / "x"
    assert run_folder(toy_stage.toy_config("a/b")) == Path.cwd() / "a" / "b"
    monkeypatch.delenv("TOKENLM_RUNS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform.startswith("linux"):
        assert runs_folder() == tmp_path / "tokenlm" / "runs"


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("fp32", cpu) == "fp32"
    assert resolve_precision("auto", cpu) in ("fp32", "bf16")
    assert resolve_precision("auto", torch.device("mps")) == "fp32"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OptimConfig(lr=0.0), "lr must be positive"),
        (lambda: OptimConfig(ema_decay=1.0), "ema_decay"),
        (lambda: OptimConfig(betas=(0.9, 1.0)), "betas"),
        (lambda: BatchConfig(accumulation=0), "accumulation"),
        (lambda: LogConfig(save_every=-1), "save_every"),
        (lambda: toy_stage.toy_config("", max_minutes=0.0), "max_minutes"),
        (lambda: toy_stage.toy_config("", precision="fp16"), "precision"),
    ],
)
def test_bad_values(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        make()
