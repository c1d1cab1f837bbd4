"""Stages train on shards as on the manifest that they were made of, to the last bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tokenlm.checkpoint.registry import load_model
from tokenlm.models.speech_tokenizer import SpeechTokenizer
from training.data.manifest import read_manifest
from training.data.precompute import Precompute, build_shards
from training.data.rejects import read_rejects
from training.loop.checkpoints import latest_checkpoint
from training.run import main


@pytest.mark.parametrize("stage", ["speech_lm", "flow"])
def test_shards_equal_the_manifest(
    stage: str, corpus: Path, tmp_path: Path, stage_config: Callable[..., Path]
) -> None:
    tokenizer = load_model(corpus / "speech_tokenizer", SpeechTokenizer)
    work = Precompute(tokenizer=tokenizer, audio_rate=24_000, items_per_shard=3)
    manifest = read_manifest(corpus / "train.jsonl")
    for rank in range(2):
        build_shards(manifest, tmp_path / "shards", work, rank=rank, num_ranks=2)
    tokens, valid = (str(corpus / f"{split}_tokens.jsonl") for split in ("train", "valid"))
    shards = {"shards": f"{tmp_path / 'shards'}", "valid": valid}
    for name, data in (("manifest", {"train": tokens, "valid": valid}), ("shards", shards)):
        assert main(["--config", str(stage_config(stage, name, data=data))]) == 0
    require_same(tmp_path / "manifest", tmp_path / "shards", stage)


def require_same(run: Path, other_run: Path, stage: str) -> None:
    found = [latest_checkpoint(folder) for folder in (run, other_run)]
    one, other = (load_file(path / f"{stage}.safetensors") for path in found if path is not None)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("stop_at", [1, 9])
def test_resumed_in_the_middle_of_an_epoch(
    stop_at: int, corpus: Path, tmp_path: Path, stage_config: Callable[..., Path]
) -> None:
    """Eight items in five to eight micro-batches: no epoch ends after step 1 or 9."""
    data = {"shards": f"{corpus}/shards"}

    def train(run: str, num_steps: int) -> None:
        optim = {"max_steps": num_steps, "warmup_steps": 1, "decay": "constant"}
        log = {"evaluate_every": 0, "save_every": 0}
        path = stage_config("speech_lm", run, data=data, optim=optim, log=log)
        assert main(["--config", str(path)]) == 0

    train("parted", stop_at)
    stopped = latest_checkpoint(tmp_path / "parted")
    assert stopped is not None
    position = json.loads((stopped / "state.json").read_text())["position"]
    assert position["index"] > 0 and position["epoch"] == (0 if stop_at == 1 else 1)
    train("parted", 11)
    train("whole", 11)
    require_same(tmp_path / "whole", tmp_path / "parted", "speech_lm")


def test_what_is_damaged_is_told_and_the_run_goes_on(
    corpus: Path, tmp_path: Path, stage_config: Callable[..., Path]
) -> None:
    shards = Path(shutil.copytree(corpus / "shards", tmp_path / "shards"))
    rows = [json.loads(line) for line in (shards / "shard-00000.jsonl").read_text().splitlines()]
    tar = bytearray((shards / "shard-00000.tar").read_bytes())
    start = rows[1]["members"]["tokens"][0]
    tar[start : start + 16] = b"x" * 16
    (shards / "shard-00000.tar").write_bytes(tar)
    rows[2]["text"] = ""
    (shards / "shard-00000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    optim, log = {"max_steps": 6, "warmup_steps": 1}, {"evaluate_every": 0, "save_every": 2}
    data = {"shards": str(shards), "max_reject_share": 0.3}
    path = stage_config("speech_lm", data=data, optim=optim, log=log, join_share=0.0)
    assert main(["--config", str(path)]) == 0
    found = read_rejects(tmp_path / "run" / "rejects.jsonl")
    empty = [bad for bad in found if bad.line == 3 and bad.file.endswith("shard-00000.jsonl")]
    assert [bad.reason for bad in empty] == ["'text' is empty."]
    (broken,) = (bad for bad in found if bad.line is None)
    assert "shard-00000.tar" in broken.reason and rows[1]["key"] in broken.reason


def test_bad_rows_of_a_manifest_are_told_and_too_many_stop_the_run(
    corpus: Path, tmp_path: Path, stage_config: Callable[..., Path], capsys: Any
) -> None:
    lines = (corpus / "train_tokens.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["audio"] = str(corpus / row["audio"])
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{line}\n" for line in [*map(json.dumps, rows), "{", lines[0]]))
    log = {"evaluate_every": 0}
    for share, status in ((0.2, 0), (0.1, 1)):
        data = {"train": str(path), "max_reject_share": share}
        config = stage_config("speech_lm", f"run{share}", data=data, log=log)
        for _ in range(2):  # the second start tells nothing twice
            assert main(["--config", str(config)]) == status
    bad = read_rejects(tmp_path / "run0.2" / "rejects.jsonl")
    assert [reject.line for reject in bad] == [9, 10]
    assert "already that of line 1" in bad[1].reason
    assert "2 of 10 rows cannot be used, more than the allowed" in capsys.readouterr().err
