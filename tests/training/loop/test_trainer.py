"""The loop on a toy stage: divisors, phases, resuming, stopping."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_stage import ToyTask, toy_config

from tokenlm.config import ConfigError
from training.loop.checkpoints import latest_checkpoint
from training.loop.task import Phase, Prepared
from training.loop.trainer import Observer, Trainer, TrainingError

SCRIPT = Path(__file__).parents[1] / "toy_stage.py"
ROOT = SCRIPT.parents[2]


def train(folder: Path, task_class: type[ToyTask] = ToyTask, **changes: Any) -> Trainer:
    config = toy_config(folder, **changes)
    trainer = Trainer(task_class(config), config)
    trainer.run()
    return trainer


def weights(folder: Path) -> dict[str, Tensor]:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    found = load_file(checkpoint / "net.safetensors")
    averages = load_file(checkpoint / "ema.safetensors")
    return {**found, **{f"ema {name}": value for name, value in averages.items()}}


def rows(folder: Path) -> list[dict[str, Any]]:
    timing = ("time", "steps_per_second", "audio_seconds_per_second", "data_wait")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


def start(folder: Path, changes: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), json.dumps(changes)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


class Notes(Observer):
    """Writes down what it is told, and ends a run at a step."""

    def __init__(self, ends_at: int, *, by_signal: bool = False) -> None:
        self.calls: list[tuple[str, int]] = []
        self.ends_at, self.by_signal = ends_at, by_signal

    def begins(self, step: int) -> bool:
        self.calls.append(("begins", step))
        return False

    def stepped(self, step: int, is_stopping: Callable[[], bool]) -> bool:
        self.calls.append(("stepped", step))
        assert not is_stopping()
        return self.by_signal and step == self.ends_at

    def evaluated(
        self, step: int, metrics: Mapping[str, float], modules: Mapping[str, nn.Module]
    ) -> bool:
        assert metrics and not any(module.training for module in modules.values())
        self.calls.append(("evaluated", step))
        return step == self.ends_at and not self.by_signal


def test_an_observer_follows_and_ends_a_run(tmp_path: Path) -> None:
    first = Notes(3, by_signal=True)
    config = toy_config(tmp_path, log={"evaluate_every": 2, "save_every": 2})
    assert Trainer(ToyTask(config), config, first).run() == "signal"
    begun = [("begins", 0), ("evaluated", 0), ("stepped", 1), ("stepped", 2), ("evaluated", 2)]
    assert first.calls == [*begun, ("stepped", 3)]
    then = Notes(4)
    assert Trainer(ToyTask(config), config, then).run() == "converged"
    assert then.calls[:3] == [("begins", 3), ("stepped", 4), ("evaluated", 4)]
    assert set(then.calls[3:]) <= {("evaluated", 4)}
    assert (tmp_path / "export").is_dir()


def test_a_signal_while_a_run_converges(tmp_path: Path) -> None:
    """The resumed run has nothing to learn any more: it ends as one that was not stopped."""

    class Both(Notes):
        def begins(self, step: int) -> bool:
            super().begins(step)
            return step >= self.ends_at

        def stepped(self, step: int, is_stopping: Callable[[], bool]) -> bool:
            return super().stepped(step, is_stopping) or step == self.ends_at

    config = toy_config(tmp_path, log={"evaluate_every": 1, "save_every": 1})
    assert Trainer(ToyTask(config), config, Both(2)).run() == "signal"
    then = Both(2)
    assert Trainer(ToyTask(config), config, then).run() == "converged"
    assert then.calls == [("begins", 2), ("evaluated", 2)]
    assert (tmp_path / "export").is_dir()


def test_two_micro_batches_equal_one_batch_of_both(tmp_path: Path) -> None:
    """The divisor is the count of the global batch: unequal micro-batches change nothing."""
    common: dict[str, Any] = {"num_items": 5, "dropout": 0.0}

    class Fixed(ToyTask):
        """Clean items, so that the same five meet in every step."""

        def dataset(self, split: str) -> Any:
            data = super().dataset(split)
            data.draw = lambda index, generator: data[index]  # type: ignore[method-assign]
            return data

    one = {"max_seconds_per_batch": 99.0, "max_items": 5}
    two = {"max_seconds_per_batch": 99.0, "max_items": 3, "accumulation": 2}
    # Without noise in the targets the order of the items does not matter either.
    train(tmp_path / "one", Fixed, batch=one, noise=0.0, **common)
    train(tmp_path / "two", Fixed, batch=two, noise=0.0, **common)
    split, whole = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-4, atol=1e-5)


def test_gradient_is_the_weighted_mean_over_targets(tmp_path: Path) -> None:
    """One SGD-like look at the gradient itself, against the plain formula."""
    seen: list[Tensor] = []

    class Looking(ToyTask):
        def build(self) -> None:
            net = nn.Linear(4, 1)
            self.modules = {"net": net}
            net.weight.register_post_accumulate_grad_hook(
                lambda parameter: seen.append(parameter.grad.clone())  # type: ignore[union-attr]
            )
            self.batches: list[Prepared] = []

        def losses(self, prepared: Prepared) -> dict[str, Tensor]:
            self.batches.append(prepared)
            return super().losses(prepared)

        def export(self, folder: Path) -> None:
            return None

    config = toy_config(
        tmp_path, optim={"max_steps": 1}, batch={"accumulation": 3}, loss_weights={"toy/error": 2.0}
    )
    task = Looking(config)
    trainer = Trainer(task, config)
    weight, bias = (p.detach().clone() for p in task.modules["net"].parameters())
    trainer.run()
    assert len(task.batches) == 3 and len(seen) == 3
    x = torch.cat([batch.tensors["x"] for batch in task.batches])
    y = torch.cat([batch.tensors["y"] for batch in task.batches])
    count = torch.cat([batch.tensors["weight"] for batch in task.batches])
    residual = (x @ weight[0] + bias - y) * count
    expected = 2.0 * (2 * residual[:, None] * x).sum(dim=0) / count.sum()
    torch.testing.assert_close(seen[-1][0], expected)


class Adversarial(ToyTask):
    """A discriminator phase, and a generator phase that starts later and reuses the graph."""

    def build(self) -> None:
        super().build()
        self.modules["judge"] = nn.Linear(1, 1)

    def prepare(self, batch: Any, step: Any) -> Prepared:
        prepared = super().prepare(batch, step)
        size = float(len(batch["x"]))
        prepared.counts = {"toy/judge": size, "toy/fool": size, "toy/none": 0.0}
        return prepared

    def judge(self, prepared: Prepared) -> dict[str, Tensor]:
        fake = self.modules["net"](prepared.tensors["x"])
        prepared.tensors["fake"] = fake
        real = prepared.tensors["y"][:, None]
        scores = self.modules["judge"]
        return {"toy/judge": (scores(fake.detach()) - scores(real)).sum()}

    def fool(self, prepared: Prepared) -> dict[str, Tensor]:
        fake = prepared.tensors["fake"]
        return {"toy/fool": -self.modules["judge"](fake).sum(), "toy/none": fake[:0].sum()}

    def phases(self) -> list[Phase]:
        return [
            Phase("judge", ("judge",), self.judge),
            Phase("net", ("net",), self.fool, starts_at=2),
        ]


def test_phases_change_their_own_modules_only(tmp_path: Path) -> None:
    config = toy_config(tmp_path, optim={"max_steps": 2, "weight_decay": 0.0, "ema_decay": 0.0})
    trainer = Trainer(Adversarial(config), config)
    net = {k: v.clone() for k, v in trainer.trained["net"].state_dict().items()}
    judge = {k: v.clone() for k, v in trainer.trained["judge"].state_dict().items()}
    trainer.run()
    assert_same(net, dict(trainer.trained["net"].state_dict()))
    assert not torch.equal(judge["weight"], trainer.trained["judge"].state_dict()["weight"])
    assert set(rows(tmp_path)[-1]) >= {"toy/judge", "total/judge", "lr/judge", "grad_norm/judge"}

    config = toy_config(tmp_path, optim={"max_steps": 3, "weight_decay": 0.0, "ema_decay": 0.0})
    trainer = Trainer(Adversarial(config), config)
    trainer.run()
    assert not torch.equal(net["0.weight"], trainer.trained["net"].state_dict()["0.weight"])
    row = rows(tmp_path)[-1]
    assert row["toy/none"] == 0.0 and row["step"] == 3


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    killed = start(tmp_path / "killed", {"kill_at": 7})
    output, _ = killed.communicate(timeout=900)
    assert killed.returncode == -signal.SIGKILL, output
    checkpoint = latest_checkpoint(tmp_path / "killed")
    assert checkpoint is not None and checkpoint.name == "step-000004"
    assert [row["step"] for row in rows(tmp_path / "killed")] == [5]
    stored = tmp_path / "killed" / "config.yaml"
    stored.write_text(stored.read_text().replace("kill_at: 7", "kill_at: -1"))

    train(tmp_path / "killed")
    train(tmp_path / "whole")
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    final = [
        torch.load(tmp_path / name / "step-000012" / "optimizer.pt", weights_only=True)
        for name in ("killed", "whole")
    ]
    assert_same(
        *(
            {str(k): v["exp_avg_sq"] for k, v in f["optimizers"]["toy"]["state"].items()}
            for f in final
        )
    )


@pytest.mark.slow
def test_two_ranks_equal_two_micro_batches(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        start(
            tmp_path / "ranks",
            {},
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=900)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    train(tmp_path / "accumulated", batch={"accumulation": 2})
    two = weights(tmp_path / "ranks")
    for name, value in weights(tmp_path / "accumulated").items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    assert rows(tmp_path / "ranks")[-1]["toy/error"] == pytest.approx(
        rows(tmp_path / "accumulated")[-1]["toy/error"], rel=1e-4
    )


def test_workers_change_nothing(tmp_path: Path) -> None:
    train(tmp_path / "here", optim={"max_steps": 4})
    train(tmp_path / "workers", optim={"max_steps": 4}, batch={"num_workers": 2})
    assert_same(weights(tmp_path / "here"), weights(tmp_path / "workers"))


def test_non_finite_steps_are_skipped_then_stop_the_run(tmp_path: Path) -> None:
    config = toy_config(tmp_path, nan_from=6, max_skipped_steps=3, log={"save_every": 1})
    trainer = Trainer(ToyTask(config), config)
    with pytest.raises(TrainingError, match="3 steps in a row up to step 8"):
        trainer.run()
    assert trainer.skipped == 3
    for value in trainer.trained["net"].state_dict().values():
        assert value.isfinite().all()


def test_weight_of_a_loss_that_is_none_is_an_error(tmp_path: Path) -> None:
    config = toy_config(tmp_path, loss_weights={"toy/eror": 1.0})
    with pytest.raises(ConfigError, match="no loss toy/eror; valid are: toy/error"):
        Trainer(ToyTask(config), config).run()


def test_start_over_after_a_kill_before_the_first_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n')
    train(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [5, 10, 12]


def test_sigterm_saves_and_the_next_start_goes_on(tmp_path: Path) -> None:
    config = toy_config(tmp_path, stop_at=5)
    trainer = Trainer(ToyTask(config), config)
    assert trainer.run() == "signal"
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.name == "step-000006"
    assert not (tmp_path / "export").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    again = Trainer(ToyTask(config), config)
    assert again.step == 6
    assert again.run() == "max_steps"
    train(tmp_path / "whole")
    assert_same(weights(tmp_path), weights(tmp_path / "whole"))


def test_max_minutes_saves_evaluates_and_exports(tmp_path: Path) -> None:
    config = toy_config(tmp_path, max_minutes=1e-9, log={"evaluate_every": 100})
    assert Trainer(ToyTask(config), config).run() == "max_minutes"
    assert (tmp_path / "step-000000").is_dir()
    assert rows(tmp_path)[-1]["kind"] == "valid"
    assert (tmp_path / "export" / "weights.json").exists()


def test_export_and_evaluation_use_the_average(tmp_path: Path) -> None:
    trainer = train(tmp_path, log={"evaluate_every": 5, "sample_every": 6})
    exported = torch.tensor(json.loads((tmp_path / "export" / "weights.json").read_text()))
    torch.testing.assert_close(exported, trainer.ema.averages["net.0.weight"])
    assert not torch.equal(exported, trainer.trained["net"].state_dict()["0.weight"])
    assert (tmp_path / "samples" / "step-000006" / "toy.json").exists()
    assert [row["step"] for row in rows(tmp_path) if row["kind"] == "valid"] == [5, 10, 12]
    assert not trainer.task.modules["frozen"].weight.requires_grad


def test_finished_run_starts_again_without_change(tmp_path: Path) -> None:
    train(tmp_path)
    before = weights(tmp_path)
    train(tmp_path)
    assert_same(before, weights(tmp_path))
