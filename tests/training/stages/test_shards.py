"""Stages train on shards as on the manifest that the shards were made of, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tokenlm.checkpoint.registry import load_model
from tokenlm.models.speech_tokenizer import SpeechTokenizer
from training.checkpointing import latest_checkpoint
from training.data.manifest import read_manifest
from training.data.shards.build import Precompute, build_shards
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
    found = [latest_checkpoint(tmp_path / name) for name in ("manifest", "shards")]
    one, other = (load_file(path / f"{stage}.safetensors") for path in found if path is not None)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
