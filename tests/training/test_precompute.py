"""Speech tokens written into a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tokenlm.audio.io import load_audio, save_audio
from tokenlm.checkpoint import save_component
from tokenlm.models.onnx_models import OnnxGraph, OnnxTokenizerConfig
from tokenlm.models.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from training import precompute
from training.data.manifest import read_manifest
from training.data.rejects import read_rejects

RATE = 16_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer, and four recordings of which two cannot be used."""
    torch.manual_seed(0)
    config = SpeechTokenizerConfig(dim=16, num_heads=2, num_layers=1, levels=(3, 3))
    save_component(
        tmp_path / "tokenizer",
        kind="speech_tokenizer",
        config=config,
        state_dict=SpeechTokenizer(config).state_dict(),
        dtype=torch.float16,
    )
    (tmp_path / "audio").mkdir()
    rows = []
    for name, seconds in (("long", 1.3), ("short", 0.5), ("scrap", 0.039)):
        samples = int(seconds * RATE)
        save_audio(tmp_path / "audio" / f"{name}.wav", 0.1 * torch.randn(samples), RATE)
        rows.append(
            {"id": name, "audio": f"audio/{name}.wav", "duration": max(seconds, 0.04), "page": 7}
        )
    (tmp_path / "audio" / "broken.wav").write_bytes(b"RIFF")
    rows.insert(1, {"id": "broken", "audio": "audio/broken.wav", "duration": 1.0})
    lines = [json.dumps({**row, "text": "a", "speaker": "s"}) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(folder: Path, output: str, share: float = 0.5) -> int:
    order = ["--tokenizer", str(folder / "tokenizer"), "--max-rejects", str(share)]
    return precompute.main([*order, str(folder / "rows.jsonl"), output])


def test_rows_carry_tokens_and_fingerprint(folder: Path) -> None:
    (folder / "out").mkdir()
    assert run(folder, str(folder / "out" / "rows.jsonl")) == 0
    from tokenlm.checkpoint.registry import load_model

    tokenizer = load_model(folder / "tokenizer", SpeechTokenizer)
    found = read_manifest(folder / "out" / "rows.jsonl")
    assert not found.bad_rows
    assert [row.id for row in found.utterances] == ["long", "short"]
    for row, count in zip(found.utterances, (32, 12), strict=True):
        assert row.tokenizer == tokenizer.fingerprint
        expected = tokenizer.encode(load_audio(row.audio, RATE)[None])[0][0].tolist()
        assert list(row.speech_tokens or ()) == expected and len(expected) == count
        assert row.extra == {"page": 7}


def test_a_tokenizer_that_is_a_graph(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an imported bundle has; the graph is played by a function here."""
    monkeypatch.setattr(
        OnnxGraph, "run", lambda self, frames, count: torch.arange(-(-count // 4)) % 9
    )
    save_component(
        folder / "tokenizer",
        kind="onnx_tokenizer",
        config=OnnxTokenizerConfig(num_digits=2, num_bytes=4),
        state_dict={"graph.graph": torch.zeros(4, dtype=torch.uint8)},
    )
    assert run(folder, str(folder / "rows.tokens.jsonl")) == 0
    found = read_manifest(folder / "rows.tokens.jsonl").utterances
    assert [row.id for row in found] == ["long", "short"]
    assert all(tuple(row.speech_tokens or ())[:4] == (0, 1, 2, 3) for row in found)
    assert len({row.tokenizer for row in found}) == 1


def test_bad_recordings_are_set_aside_with_their_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    good = [{**rows[0], "id": f"long{n}"} for n in range(4)]
    wrong = {**rows[2], "id": "wrong", "duration": 3.0}
    lines = [*map(json.dumps, [*rows, wrong, *good]), "{"]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    assert run(folder, str(folder / "out.jsonl")) == 0
    assert len(read_manifest(folder / "out.jsonl", strict=True).utterances) == 6
    assert "6 of 10 rows are good" in capsys.readouterr().out
    bad = {reject.line: reject for reject in read_rejects(folder / "out.rejects.jsonl")}
    assert sorted(bad) == [2, 4, 5, 10]  # type: ignore[type-var]
    assert {reject.file for reject in bad.values()} == {str(folder / "rows.jsonl")}
    assert "broken.wav" in bad[2].reason and "shorter than a token" in bad[4].reason
    assert "'duration' is 3.00 s" in bad[5].reason and "not JSON" in bad[10].reason


def test_too_many_stop_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, str(folder / "out.jsonl"), share=0.3) == 1
    assert "2 of 4 rows cannot be used, more than the allowed share of 0.3" in (
        capsys.readouterr().err
    )
    assert not (folder / "out.jsonl").exists()


def test_mistakes_are_sentences(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rows.jsonl").unlink()
    assert run(folder, str(folder / "out.jsonl")) == 1
    assert "rows.jsonl" in capsys.readouterr().err
    assert not (folder / "out.jsonl").exists()
