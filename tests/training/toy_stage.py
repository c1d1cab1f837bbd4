"""A tiny stage for the tests of the loop: a line is fitted to noisy points, with dropout."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.config import BatchConfig, LogConfig, OptimConfig, RunConfig
from training.loop.task import Phase, Prepared, StepInfo, Task


@dataclass(frozen=True, kw_only=True)
class ToyConfig(RunConfig):
    """Config of the toy stage."""

    stage: str = "toy"
    num_items: int = 20
    dropout: float = 0.25
    noise: float = 0.1
    kill_at: int = -1
    stop_at: int = -1
    nan_from: int = -1
    hidden: int = 8
    extra: dict[str, float] = field(default_factory=dict)


class ToyData:
    """Points of different "durations"; `draw` adds noise."""

    def __init__(self, num_items: int) -> None:
        generator = torch.Generator().manual_seed(5)
        self.points = torch.randn(num_items, 4, generator=generator)
        self.durations = [1.0 + 0.25 * (i % 7) for i in range(num_items)]

    def __len__(self) -> int:
        return len(self.durations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": self.points[index], "num": 1 + index % 3}

    def draw(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        noise = 0.05 * torch.randn(4, generator=generator)
        return {"x": self.points[index] + noise, "num": 1 + index % 3}


class ToyTask(Task):
    """Regression of the sum of the coordinates."""

    name = "toy"

    def __init__(self, config: ToyConfig) -> None:
        self.config = config
        self.modules: dict[str, nn.Module] = {}
        self.seen: list[float] = []

    def build(self) -> None:
        net = nn.Sequential(
            nn.Linear(4, self.config.hidden),
            nn.Dropout(self.config.dropout),
            nn.LayerNorm(8),
            nn.Linear(8, 1),
        )
        self.modules = {"net": net, "frozen": nn.Linear(1, 1)}

    def dataset(self, split: str) -> ToyData:
        return ToyData(self.config.num_items if split == "train" else 6)

    def collate(self, items: list[Any]) -> dict[str, Tensor]:
        return {
            "x": torch.stack([item["x"] for item in items]),
            "num": torch.tensor([item["num"] for item in items], dtype=torch.float32),
        }

    def prepare(self, batch: dict[str, Tensor], step: StepInfo) -> Prepared:
        if step.step == self.config.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step.step == self.config.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        noise = torch.stack(
            [torch.randn((), generator=step.generator(i)) for i in range(len(batch["x"]))]
        )
        target = batch["x"].sum(dim=1) + self.config.noise * noise
        if 0 <= self.config.nan_from <= step.step:
            target = target * float("nan")
        return Prepared(
            {"x": batch["x"], "y": target, "weight": batch["num"]},
            {"toy/error": float(batch["num"].sum())},
        )

    def losses(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors = prepared.tensors
        error = (self.modules["net"](tensors["x"]).squeeze(1) - tensors["y"]) ** 2
        return {"toy/error": (error * tensors["weight"]).sum()}

    def phases(self) -> list[Phase]:
        return [Phase("toy", ("net",), self.losses)]

    def evaluate(
        self, batches: Iterable[Any], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        assert not modules["net"].training
        total, count = 0.0, 0
        for batch in batches:
            error = (modules["net"](batch["x"]).squeeze(1) - batch["x"].sum(dim=1)) ** 2
            total, count = total + float(error.sum()), count + len(error)
        return {"toy/error": total / count}

    def samples(self, folder: Path) -> None:
        (folder / "toy.json").write_text(json.dumps({"time": time.time()}))

    def export(self, folder: Path) -> None:
        weight = self.modules["net"][0].weight  # type: ignore[index]
        (folder / "weights.json").write_text(json.dumps(weight.tolist()))


def toy_config(run: Path | str, **changes: Any) -> ToyConfig:
    """Return a quick config; `optim`, `batch` and `log` take dicts."""
    optim = {"lr": 0.01, "warmup_steps": 3, "max_steps": 12, "ema_decay": 0.9}
    batch = {"max_seconds_per_batch": 12.0, "max_items": 4}
    log = {"log_every": 5, "evaluate_every": 0, "save_every": 4}
    # Numbers are compared to 1e-4, which "auto" would spoil on a processor that has bf16.
    changes.setdefault("precision", "fp32")
    return ToyConfig(
        run=str(run),
        optim=OptimConfig(**{**optim, **changes.pop("optim", {})}),
        batch=BatchConfig(**{**batch, **changes.pop("batch", {})}),
        log=LogConfig(**{**log, **changes.pop("log", {})}),
        **changes,
    )


if __name__ == "__main__":
    from training.loop.processes import leave_group
    from training.loop.trainer import Trainer

    toy = toy_config(sys.argv[1], **json.loads(sys.argv[2]))
    Trainer(ToyTask(toy), toy).run()
    leave_group()
