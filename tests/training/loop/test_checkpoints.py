"""Run folders: atomic, resumable, and true to their config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from toy_stage import ToyConfig, toy_config

from tokenlm.checkpoint import ComponentError
from tokenlm.config import ConfigError
from training.loop import checkpoints as checkpointing
from training.loop.checkpoints import (
    SavedState,
    changed_keys,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    load_initial,
    open_run,
    save_checkpoint,
    truncate_metrics,
)


def save(folder: Path, step: int, module: nn.Module, keep_last: int = 2) -> Path:
    saved = SavedState({"step": step}, {"p": {"lr": 0.5}}, {"k": [1, 2]})
    averages = {"m.weight": torch.full((1, 1), 7.0)}
    return save_checkpoint(folder, step, {"m": module}, averages, saved, keep_last)


def test_round_trip(tmp_path: Path) -> None:
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    path = save(tmp_path, 3, one)
    assert sorted(p.name for p in path.iterdir()) == [
        "ema.safetensors",
        "m.safetensors",
        "optimizer.pt",
        "state.json",
    ]
    saved, averages = load_checkpoint(path, {"m": other})
    assert torch.equal(one.weight, other.weight)
    assert saved == SavedState({"step": 3}, {"p": {"lr": 0.5}}, {"k": [1, 2]})
    assert averages["m.weight"].item() == 7.0


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    path = save(tmp_path, 1, module)
    first.weight.data.zero_()
    load_checkpoint(path, {"m": module})
    assert second.weight.abs().sum() > 0


def test_keeps_the_last_and_orders_by_number(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 5):
        save(tmp_path, step, nn.Linear(1, 1), keep_last=3)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-000005", "step-999999", "step-1000000"]
    save(tmp_path, 1_000_001, nn.Linear(1, 1), keep_last=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-1000000", "step-1000001"]


def test_failure_while_writing_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(tmp_path)
    open_run(tmp_path, config)
    save(tmp_path, 1, nn.Linear(1, 1))

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(checkpointing.torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, 2, nn.Linear(1, 1))
    latest = latest_checkpoint(tmp_path)
    assert latest is not None and latest.name == "step-000001"
    open_run(tmp_path, config)
    assert not list(tmp_path.glob(".writing-*"))


def test_weights_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    path = save(tmp_path, 1, nn.Linear(1, 1))
    with pytest.raises(ValueError, match="do not fit"):
        load_checkpoint(path, {"m": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="no weights of 'other'"):
        load_checkpoint(path, {"other": nn.Linear(1, 1)})


@pytest.mark.parametrize("name", ["m.safetensors", "ema.safetensors", "optimizer.pt", "state.json"])
def test_a_damaged_file_is_named_with_what_to_remove(tmp_path: Path, name: str) -> None:
    one = nn.Linear(1, 1)
    first, path = save(tmp_path, 1, one), save(tmp_path, 2, one)
    whole = (path / name).read_bytes()
    for content in (b"", whole[: len(whole) // 2], bytes(len(whole)), b"[1, 2"):
        (path / name).write_bytes(content)
        with pytest.raises(ValueError, match="is damaged") as caught:
            load_checkpoint(path, {"m": one})
        assert str(caught.value).startswith(f"{path / name} is damaged (")
        assert str(caught.value).endswith(
            f"; remove {path} to go on from the checkpoint before it, {first.name}."
        )
        assert " ()" not in str(caught.value)
        assert len(str(caught.value)) < 300 + 2 * len(str(path))
    (first / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"step-000001 to begin anew\."):
        load_checkpoint(first, {"m": one})


def test_a_file_that_is_gone_is_missing(tmp_path: Path) -> None:
    path = save(tmp_path, 1, nn.Linear(1, 1))
    (path / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match=r"optimizer\.pt is missing; remove .*step-000001"):
        load_checkpoint(path, {"m": nn.Linear(1, 1)})


def test_changed_config_is_an_error_that_lists_the_keys(tmp_path: Path) -> None:
    open_run(tmp_path, toy_config(tmp_path))
    # Nothing was trained yet: a config that failed to start may be corrected.
    open_run(tmp_path, toy_config(tmp_path, seed=3))
    open_run(tmp_path, toy_config(tmp_path))
    save(tmp_path, 1, nn.Linear(1, 1))
    with pytest.raises(ConfigError) as caught:
        open_run(tmp_path, toy_config(tmp_path, seed=1, optim={"lr": 0.5}))
    assert "seed: 0 -> 1" in str(caught.value)
    assert "optim.lr: 0.01 -> 0.5" in str(caught.value)
    assert "max_steps" not in str(caught.value)


def test_a_folder_of_another_stage_is_told_by_the_stage_alone(tmp_path: Path) -> None:
    open_run(tmp_path, toy_config(tmp_path))
    save(tmp_path, 1, nn.Linear(1, 1))
    stored = tmp_path / "config.yaml"
    stored.write_text(stored.read_text().replace("stage: toy", "stage: vocoder\nperiods: [2, 3]"))
    with pytest.raises(ConfigError) as caught:
        open_run(tmp_path, toy_config(tmp_path, seed=1))
    assert str(caught.value) == (
        f"The run folder {tmp_path} is of the stage vocoder, this is toy; give another `run`."
    )


@pytest.mark.parametrize(("number", "end"), [(10, "x9: 9.0 -> 10.0. "), (13, "; and 3 more. ")])
def test_ten_differences_are_listed(tmp_path: Path, number: int, end: str) -> None:
    def config(more: int) -> ToyConfig:
        return toy_config(tmp_path, extra={f"x{n}": float(n + more) for n in range(number)})

    open_run(tmp_path, config(0))
    save(tmp_path, 1, nn.Linear(1, 1))
    with pytest.raises(ConfigError) as caught:
        open_run(tmp_path, config(1))
    assert str(caught.value).count(" -> ") == 10
    assert str(caught.value).endswith(f"{end}Give the old values, or another `run`.")


def test_harmless_changes_are_accepted(tmp_path: Path) -> None:
    open_run(tmp_path, toy_config(tmp_path))
    open_run(
        tmp_path,
        toy_config(
            tmp_path,
            max_minutes=3.0,
            optim={"max_steps": 99},
            log={"log_every": 1},
            batch={"num_workers": 2},
        ),
    )
    assert "max_steps: 99" in (tmp_path / "config.yaml").read_text()


def test_changed_keys_of_nested_and_missing_values() -> None:
    old = {"a": {"b": 1, "c": {}}, "d": [1, 2]}
    new = {"a": {"b": 2, "c": {"e": 3}}, "d": [1, 2]}
    assert changed_keys(old, new) == [
        "a.b: 1 -> 2",
        "a.c: {} -> (not set)",
        "a.c.e: (not set) -> 3",
    ]


def test_truncate_metrics_drops_later_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s}) + "\n" for s in (5, 10, 15)) + '{"step": 1')
    truncate_metrics(path, 10)
    assert path.read_text() == '{"step": 5}\n{"step": 10}\n'


def test_a_key_that_was_added_since_is_no_change_while_it_has_its_default(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    open_run(tmp_path, config)
    save(tmp_path, 1, nn.Linear(1, 1))
    stored = tmp_path / "config.yaml"
    lines = stored.read_text().splitlines(keepends=True)
    stored.write_text("".join(line for line in lines if "length_jitter" not in line))
    assert open_run(tmp_path, config) is not None
    stored.write_text("".join(line for line in lines if "length_jitter" not in line))
    other = toy_config(tmp_path, batch={"length_jitter": 0.5})
    with pytest.raises(ConfigError, match=r"batch.length_jitter: 0.15 -> 0.5"):
        open_run(tmp_path, other)


def test_a_run_goes_on_from_what_fits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another codebook has other tables, and another task other heads; the rest is kept."""

    def model(codes: int) -> nn.ModuleDict:
        return nn.ModuleDict({"table": nn.Embedding(codes, 2), "layer": nn.Linear(2, 2)})

    old, new = model(5), model(3)
    old["head"] = nn.Linear(2, 7)
    save_file(old.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ComponentError, match="of another shape"):
        load_initial({"lm": new}, {"lm": tmp_path})
    fresh = new["table"].weight.clone()
    with caplog.at_level("INFO", "training"):
        load_initial({"lm": new}, {"lm": tmp_path}, partial=True)
    assert torch.equal(new["layer"].weight, old["layer"].weight)
    assert torch.equal(new["table"].weight, fresh)
    assert "lm: start at random: table.weight" in caplog.text
    assert "lm: not used: head.bias, head.weight" in caplog.text
    other = nn.ModuleDict({"table": nn.Embedding(4, 2), "layer": nn.Linear(3, 3)})
    with pytest.raises(ConfigError, match="no weight of"):
        load_initial({"lm": other}, {"lm": tmp_path}, partial=True)
