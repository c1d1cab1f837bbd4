"""Embeddings of a speaker encoder that is an ONNX graph, as imported bundles have it."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch import Tensor, nn
from toy_shards import RATE, make_work
from typer.testing import CliRunner

from tokenlm.audio.fbank import FbankConfig, KaldiFbank
from tokenlm.audio.io import load_audio, save_audio
from tokenlm.checkpoint import save_component
from tokenlm.checkpoint.registry import SPEAKER_ENCODERS, load_model
from tokenlm.models.onnx_models import OnnxSpeakerConfig, read_graph
from training.data import commands
from training.data.manifest import read_manifest
from training.data.precompute import build_shards
from training.data.rejects import read_rejects
from training.data.shards import ShardDataset

EMBEDDING_DIM = 6


class BankToEmbedding(nn.Module):
    """What the published graph takes and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(80, EMBEDDING_DIM)

    def forward(self, feats: Tensor) -> Tensor:
        return self.project(feats.abs().mean(dim=1))


def save_encoder(folder: Path, model: nn.Module) -> bytes:
    """Writes the component; gives the bytes of its graph."""
    file = folder.with_suffix(".onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.randn(1, 50, 80),),
            str(file),
            input_names=["feats"],
            dynamic_axes={"feats": {1: "T"}},
            dynamo=False,
            opset_version=17,
        )
    graph = file.read_bytes()
    save_component(
        folder,
        kind="onnx_speaker_encoder",
        config=OnnxSpeakerConfig(embedding_dim=EMBEDDING_DIM, num_bytes=len(graph)),
        state_dict=read_graph(graph),
    )
    return graph


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return BankToEmbedding().eval().requires_grad_(False)


def precompute(manifest: Path, output: Path, encoder: Path) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(commands.precompute)
    arguments = [str(manifest), str(output), "--speaker-encoder", str(encoder)]
    done = CliRunner().invoke(app, [*arguments, "--items-per-shard", "4", "--max-rejects", "0.5"])
    return done.exit_code, f"{done.output} {done.exception or ''}"


def test_embeddings_are_those_of_the_graph(
    model: nn.Module, recordings: Path, tmp_path: Path
) -> None:
    graph = save_encoder(tmp_path / "speaker", model)
    code, told = precompute(recordings / "rows.jsonl", tmp_path / "shards", tmp_path / "speaker")
    assert code == 0 and "3 of 3 shards (embedding)" in told
    data = ShardDataset(str(tmp_path / "shards"), RATE)
    assert len(data.utterances) == 10
    bank = KaldiFbank(FbankConfig(subtract_mean=True))
    for index, row in enumerate(data.utterances):
        waveform = load_audio(recordings / row.audio.name, RATE)
        expected = model(bank(waveform[None]))[0].numpy()
        np.testing.assert_allclose(data.array(index, "embedding"), expected, rtol=1e-4, atol=1e-5)
    first, last = data.array(0, "embedding"), data.array(len(data) - 1, "embedding")
    assert np.abs(first - last).max() > 1e-2, "recordings are told apart"
    info = json.loads((tmp_path / "shards" / "shards.json").read_text())
    assert info["speaker_encoder"] == hashlib.sha256(graph).hexdigest()[:16]


def test_shards_of_another_graph_are_not_added_to(
    model: nn.Module, recordings: Path, tmp_path: Path
) -> None:
    save_encoder(tmp_path / "speaker", model)
    precompute(recordings / "rows.jsonl", tmp_path / "shards", tmp_path / "speaker")
    save_encoder(tmp_path / "other", BankToEmbedding())
    code, told = precompute(recordings / "rows.jsonl", tmp_path / "shards", tmp_path / "other")
    assert code != 0 and "speaker_encoder: " in told


def test_too_short_for_a_frame_is_set_aside(model: nn.Module, tmp_path: Path) -> None:
    rows = []
    for name, samples in (("long", 8000), ("scrap", 399), ("frame", 400)):
        save_audio(tmp_path / f"{name}.wav", 0.1 * torch.randn(samples), RATE)
        row = {"id": name, "audio": f"{name}.wav", "text": "a", "speaker": "s"}
        rows.append(json.dumps({**row, "duration": samples / RATE}))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    save_encoder(tmp_path / "speaker", model)
    code, told = precompute(tmp_path / "rows.jsonl", tmp_path / "shards", tmp_path / "speaker")
    assert code == 0 and "1 of 1 shards" in told
    data = ShardDataset(str(tmp_path / "shards"), RATE)
    assert [row.id for row in data.utterances] == ["long", "frame"]
    (reject,) = read_rejects(tmp_path / "shards" / "rejects.jsonl")
    assert reject.line == 2 and "shorter than a frame of the speaker encoder" in reject.reason


def test_tokens_and_embeddings_together(model: nn.Module, recordings: Path, tmp_path: Path) -> None:
    save_encoder(tmp_path / "speaker", model)
    work = make_work(speaker_encoder=load_model(tmp_path / "speaker", *SPEAKER_ENCODERS))
    build_shards(read_manifest(recordings / "rows.jsonl"), tmp_path / "shards", work)
    data = ShardDataset(str(tmp_path / "shards"), RATE)
    assert data.array(0, "embedding").shape == (EMBEDDING_DIM,)
    assert data.utterances[0].speech_tokens
