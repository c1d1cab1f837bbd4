"""Manifests: good rows are read, bad ones reported by line, nothing is lost on the way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from training.data.commands import merge
from training.data.commands import validate as validate_command
from training.data.manifest import (
    Manifest,
    ManifestError,
    Utterance,
    by_speaker,
    read_manifest,
    validate,
    write_manifest,
)


def row(**changes: Any) -> str:
    good = {"id": "a", "audio": "wavs/a.wav", "text": "Hi.", "speaker": "ann", "duration": 1.0}
    return json.dumps({key: v for key, v in {**good, **changes}.items() if v != "DROP"})


def write(folder: Path, *rows: str) -> Path:
    path = folder / "m.jsonl"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def tone(path: Path, seconds: float, sample_rate: int = 8000) -> None:
    path.parent.mkdir(exist_ok=True)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    soundfile.write(path, 0.1 * np.sin(time * 2000), sample_rate)


def test_reads_a_full_row(tmp_path: Path) -> None:
    phones = [["h", 0.1], ["ay", 0.9]]
    path = write(tmp_path, row(phones=phones, speech_tokens=[1, 0], tokenizer="f", emotion="glad"))
    (found,) = read_manifest(path).utterances
    assert found == Utterance(
        id="a",
        audio=tmp_path / "wavs/a.wav",
        text="Hi.",
        speaker="ann",
        duration=1.0,
        phones=(("h", 0.1), ("ay", 0.9)),
        speech_tokens=(1, 0),
        tokenizer="f",
        extra={"emotion": "glad"},
    )


BAD = {
    "{not json": "not JSON",
    "[1]": "expected a JSON object, got list",
    row(id="DROP"): "missing key 'id'",
    row(text="  "): "'text' is empty",
    row(speaker=3): "'speaker' is not a string",
    row(duration="DROP"): "'duration' is not a number of seconds: None",
    row(duration=float("nan")): "must be a positive number",
    row(duration=0): "must be a positive number",
    row(duration=True): "not a number",
    row(id="first"): "'first' is already that of line 1",
    row(phones=[["a", 0.5], ["b", 0.2]]): "do not rise",
    row(phones=["x", "y"]): "not a list of [phone, end",
    row(speech_tokens=[1, -2]): "non-negative",
    row(speech_tokens=[1.5]): "non-negative",
    row(tokenizer=7): "not a string",
    row(speech_tokens=[2**31]): "too large for a token",
    row(text="half \ud83d"): "surrogates not allowed",
    row(duration=10**400): "too large to convert",
}


def test_bad_rows_are_kept_apart_with_line_and_reason(tmp_path: Path) -> None:
    path = write(tmp_path, row(id="first"), "", *BAD, row(id="last"))
    manifest = read_manifest(path)
    assert [u.id for u in manifest.utterances] == ["first", "last"]
    assert manifest.lines.tolist() == [1, 3 + len(BAD)]
    assert [bad.line for bad in manifest.bad_rows] == list(range(3, 3 + len(BAD)))
    for bad, reason in zip(manifest.bad_rows, BAD.values(), strict=True):
        assert reason in bad.reason
    assert f"{path}:3: not JSON" in manifest.report()
    assert f"and {len(BAD) - 1} more bad rows" in manifest.report(limit=1)


def test_row_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(row().encode() + b"\n\xff\xfe\n")
    manifest = read_manifest(path)
    assert [bad.line for bad in manifest.bad_rows] == [2]


def test_strict_and_missing_file_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path, row(), "{")
    with pytest.raises(ManifestError, match=r"m\.jsonl:2: not JSON"):
        read_manifest(path, strict=True)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path / "none.jsonl")


def test_writes_what_it_reads_in_another_folder(tmp_path: Path) -> None:
    full = row(phones=[["h", 0.5]], speech_tokens=[4], tokenizer="f", other={"x": 1}, text="Grüße")
    found = read_manifest(write(tmp_path, full, row(id="b"))).utterances
    copy = tmp_path / "deep" / "er" / "copy.jsonl"
    write_manifest(copy, found)
    again = read_manifest(copy).utterances
    assert json.loads(copy.read_text().splitlines()[0])["audio"] == "../../wavs/a.wav"
    assert [u.audio.resolve() for u in again] == [u.audio.resolve() for u in found]
    assert [(u.phones, u.extra, u.text) for u in again] == [
        (u.phones, u.extra, u.text) for u in found
    ]
    assert "phones" not in copy.read_text().splitlines()[1]


def test_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = write(tmp_path, row())
    before = path.read_text()

    def failing():  # type: ignore[no-untyped-def]
        yield read_manifest(path).utterances[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_manifest(path, failing())
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def broken_corpus(folder: Path) -> Path:
    tone(folder / "wavs" / "a.wav", 1.05)
    (folder / "wavs" / "text.wav").write_text("this is no sound")
    soundfile.write(folder / "wavs" / "empty.wav", np.zeros(0), 8000)
    soundfile.write(
        folder / "wavs" / "nan.wav", np.full(8000, np.nan, np.float32), 8000, subtype="FLOAT"
    )
    return write(
        folder,
        row(),
        row(id="b", audio="wavs/none.wav"),
        row(id="c", duration=1.2),
        row(id="d", audio="wavs/text.wav"),
        row(id="e", audio="wavs/nan.wav"),
        row(id="f", audio="wavs/empty.wav"),
        row(id="a"),
    )


def test_validate_reports_every_broken_file(tmp_path: Path) -> None:
    checked = validate(broken_corpus(tmp_path))
    assert [u.id for u in checked.utterances] == ["a"]
    reasons = {bad.line: bad.reason for bad in checked.bad_rows}
    assert list(reasons) == [2, 3, 4, 5, 6, 7]
    for line, words in {
        2: "does not exist",
        3: "'duration' is 1.20 s, the audio has 1.05 s",
        4: "cannot be read",
        5: "not finite",
        6: "holds no samples",
        7: "already that of line 1",
    }.items():
        assert words in reasons[line]
    assert len(validate(tmp_path / "m.jsonl", check_audio=False).bad_rows) == 1


def test_validate_command(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(validate_command)
    result = CliRunner().invoke(app, [str(broken_corpus(tmp_path))])
    assert result.exit_code == 1
    assert "1 of 7 rows are good" in result.output
    assert "m.jsonl:2:" in result.output
    good = write(tmp_path, row())
    result = CliRunner().invoke(app, [str(good), "--no-check-audio"])
    assert result.exit_code == 0 and "0.00 hours of 1 speakers" in result.output
    assert CliRunner().invoke(app, [str(tmp_path / "none.jsonl")]).exit_code == 2
    (tmp_path / "empty.jsonl").write_text("\n")
    result = CliRunner().invoke(app, [str(tmp_path / "empty.jsonl")])
    assert result.exit_code == 1 and "empty.jsonl: there is no row." in result.output


def test_by_speaker(tmp_path: Path) -> None:
    rows = [row(id=str(i), speaker=name) for i, name in enumerate(("zoe", "ann", "zoe"))]
    assert by_speaker(read_manifest(write(tmp_path, *rows)).utterances) == {
        "ann": [1],
        "zoe": [0, 2],
    }


def test_manifests_are_merged(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, extra in ((first, {"rate": 0.8}), (second, {"speech_tokens": [1, 2]})):
        folder.mkdir()
        write(folder, row(**extra), row(id="b", speaker="bob"))
    app = typer.Typer()
    app.command()(merge)
    output = tmp_path / "all" / "m.jsonl"
    output.parent.mkdir()
    done = CliRunner().invoke(app, [str(output), str(first / "m.jsonl"), f"x={second}/m.jsonl"])
    assert done.exit_code == 0 and "4 utterances, 0.00 hours" in done.output
    rows = list(read_manifest(output, strict=True).utterances)
    assert [one.id for one in rows] == ["a", "b", "x-a", "x-b"]
    assert [one.speaker for one in rows] == ["ann", "bob", "x-ann", "x-bob"]
    assert [one.audio.resolve().parent.parent for one in rows] == [first, first, second, second]
    assert rows[0].extra == {"rate": 0.8} and rows[2].speech_tokens == (1, 2)

    before = output.read_text()
    done = CliRunner().invoke(app, [str(output), str(first / "m.jsonl"), str(second / "m.jsonl")])
    assert "the id 'a' is in" in str(done.exception) and "NAME=PATH" in str(done.exception)
    assert output.read_text() == before


def test_the_fingerprint_is_that_of_the_rows_one_by_one(tmp_path: Path) -> None:
    """Shards carry it: it is the hash of the facts of all rows, as it always was."""
    rows = [
        {"id": f"n{number}", "audio": audio, "text": 'Größe "x"', "speaker": "ann", "duration": 1}
        for number, audio in enumerate(["a/b.wav", "c.flac", "d/e/", "f/.", "g\\h.wav", "i/.."])
    ]
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    manifest = read_manifest(path)
    sha = hashlib.sha256()
    for row in manifest.utterances:
        facts = [row.id, row.audio.name, row.text, row.speaker, row.duration]
        sha.update(json.dumps(facts).encode())
    assert manifest.fingerprint == sha.hexdigest()[:16]
    some = Manifest(path, manifest.utterances.select(np.array([3, 0])), [])
    assert some.fingerprint not in (manifest.fingerprint, hashlib.sha256().hexdigest()[:16])
