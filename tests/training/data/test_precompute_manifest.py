"""Speech tokens written into a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tokenlm.audio.io import load_audio, save_audio
from tokenlm.checkpoint import save_component
from tokenlm.checkpoint.registry import load_model
from tokenlm.models.onnx_models import OnnxGraph, OnnxTokenizerConfig
from tokenlm.models.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from training.data.commands import precompute
from training.data.manifest import read_manifest
from training.data.precompute import Precompute, write_tokens
from training.data.rejects import TooManyRejects, read_rejects

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


def run(folder: Path, output: Path, share: float = 0.5) -> None:
    precompute(folder / "rows.jsonl", output, tokenizer=folder / "tokenizer", max_rejects=share)


def test_rows_carry_tokens_and_fingerprint(folder: Path) -> None:
    (folder / "out").mkdir()
    run(folder, folder / "out" / "rows.jsonl")
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
    run(folder, folder / "rows.tokens.jsonl")
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
    run(folder, folder / "out.jsonl")
    assert len(read_manifest(folder / "out.jsonl", strict=True).utterances) == 6
    assert "6 of 10 rows are good" in capsys.readouterr().out
    bad = {reject.line: reject for reject in read_rejects(folder / "out.rejects.jsonl")}
    assert sorted(bad) == [2, 4, 5, 10]  # type: ignore[type-var]
    assert {reject.file for reject in bad.values()} == {str(folder / "rows.jsonl")}
    assert "broken.wav" in bad[2].reason and "shorter than a speech token" in bad[4].reason
    assert "'duration' is 3.00 s" in bad[5].reason and "not JSON" in bad[10].reason


def test_too_many_stop_it(folder: Path) -> None:
    with pytest.raises(TooManyRejects, match=r"2 of 4 rows cannot be used, more than .* 0\.3"):
        run(folder, folder / "out.jsonl", share=0.3)
    assert not (folder / "out.jsonl").exists()


@pytest.mark.parametrize("name", ["out.jsonl", "out"])
def test_no_good_row_is_an_error(folder: Path, name: str) -> None:
    """However many may be bad: there is nothing to train on."""
    for path in (folder / "audio").iterdir():
        path.write_bytes(b"RIFF")
    with pytest.raises(TooManyRejects, match=r"none of the 4 rows can be used; why: .*\n.*long"):
        run(folder, folder / name, share=1.0)
    assert not (folder / "out.jsonl").exists()


def test_the_manifest_is_not_overwritten(folder: Path) -> None:
    before = (folder / "rows.jsonl").read_bytes()
    (folder / "link.jsonl").symlink_to(folder / "rows.jsonl")
    for output in (folder / "tokenizer" / ".." / "rows.jsonl", folder / "link.jsonl"):
        with pytest.raises(ValueError, match="is the manifest itself: give another file"):
            run(folder, output)
    assert (folder / "rows.jsonl").read_bytes() == before
    assert not list(folder.glob("*.rejects.jsonl"))


def test_mistakes_are_sentences(folder: Path) -> None:
    with pytest.raises(ValueError, match="a manifest holds speech tokens only, not tokens, mel"):
        precompute(
            folder / "rows.jsonl", folder / "out.jsonl", tokenizer=folder / "tokenizer", mel=True
        )
    (folder / "rows.jsonl").unlink()
    with pytest.raises(ValueError, match=r"rows\.jsonl"):
        run(folder, folder / "out.jsonl")
    assert not (folder / "out.jsonl").exists()


def test_killed_and_restarted_on_other_processes(folder: Path) -> None:
    """Whoever is last writes the manifest, which is that of one process."""
    tokenizer = load_model(folder / "tokenizer", SpeechTokenizer)
    work = Precompute(tokenizer=tokenizer, items_per_shard=1, max_reject_share=0.5)
    manifest = read_manifest(folder / "rows.jsonl")
    write_tokens(manifest, folder / "one.jsonl", work)
    (folder / "other").mkdir()
    for rank in (1, 1, 0):
        assert not (folder / "other" / "two.jsonl").exists()
        write_tokens(manifest, folder / "other" / "two.jsonl", work, rank=rank, num_ranks=2)
    one, two = (read_manifest(folder / name) for name in ("one.jsonl", "other/two.jsonl"))
    assert [row.speech_tokens for row in one.utterances] == [
        row.speech_tokens for row in two.utterances
    ]
    assert sorted(path.name for path in (folder / "other").iterdir()) == [
        "two.jsonl", "two.rejects.jsonl"
    ]  # fmt: skip
