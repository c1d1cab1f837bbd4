"""The toy corpus and a config of every stage that trains on it in moments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.distributed.toy import make_corpus, stage_settings


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests with and without tokens, and the components that other stages need."""
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder, num_train=8, num_valid=4)
    return folder


@pytest.fixture
def stage_config(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the config of a stage; further keys replace its own."""

    def write(stage: str, run: str = "run", **changes: Any) -> Path:
        config = {
            "stage": stage.partition(".")[0],
            "run": str(tmp_path / run),
            "optim": {"max_steps": 2, "warmup_steps": 1, "lr": 1e-3, "ema_decay": 0.5},
            "batch": {"max_seconds_per_batch": 4.0, "max_items": 3},
            "log": {"log_every": 1, "evaluate_every": 2, "save_every": 1},
            **stage_settings(corpus, stage),
            **changes,
        }
        path = tmp_path / f"{stage}-{run}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write
