"""What the stages of a trigger take from files: texts, and what a checkpoint holds."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tokenlm.config import ConfigError
from tokenlm.models.directedness import TextDirectednessConfig
from training.data import exclusion
from training.stages.phrase_detector import PhraseDetectorTask
from training.stages.text_directedness import TextDirectednessStageConfig, TextDirectednessTask


def test_texts_of_test_sets_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    excluded = exclusion.read_texts(exclusion.evaluation_files()[0])[0]
    rows = [{"text": text, "use": "overheard"} for text in (excluded, "token, stop the boat now")]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = TextDirectednessConfig(dim=16, num_layers=1, num_heads=2)
    config = TextDirectednessStageConfig(
        stage="text_directedness", phrases=("token",), texts=path, num_texts=1, model=small,
    )  # fmt: skip
    task = TextDirectednessTask(config)
    with caplog.at_level(logging.WARNING):
        task.build()
    assert len(task.dataset("train")) == 1
    assert "train: 1 of 2 texts are of test sets" in caplog.text
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(ConfigError, match="none is left"):
        TextDirectednessTask(config).build()


def test_palettes_of_a_checkpoint_go_to_the_device() -> None:
    task = PhraseDetectorTask(SimpleNamespace())  # type: ignore[arg-type]
    task.model_config = SimpleNamespace(phrases=("token",))  # type: ignore[assignment]
    task.device = torch.device("meta")
    task.load_state({"phrases": ["token"], "palettes": {"weight": torch.zeros(16)}})
    assert task.state()["palettes"]["weight"].device == task.device
