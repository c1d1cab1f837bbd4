"""Every layout, from a fixture of a few files to a manifest."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from training.data.commands import FORMATS, import_data
from training.data.importers import IMPORTERS, import_rows
from training.data.manifest import read_manifest
from training.data.rejects import EARLIEST_STOP, Reject, Rejects, TooManyRejects, read_rejects


def sound(seconds: float = 0.5, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    time = np.arange(int(seconds * rate)) / rate
    soundfile.write(file, 0.1 * np.sin(440 * time), rate, format="FLAC")
    return file.getvalue()


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(name: str, source: Path | str, tmp_path: Path, **options: Any) -> tuple[list, Rejects]:
    rejects = Rejects(tmp_path / "rejects.jsonl", 1.0)
    return list(import_rows(name, str(source), tmp_path / "out.jsonl", rejects, **options)), rejects


def test_libritts(tmp_path: Path) -> None:
    tree = tmp_path / "LibriTTS" / "dev-clean" / "84" / "121"
    put(tree / "84_121_000001_000000.flac", sound(0.75))
    put(tree / "84_121_000001_000000.normalized.txt", "Mister Hall, there.\n")
    put(tree / "84_121_000001_000000.original.txt", "Mr. Hall, there.\n")
    put(tree / "84_121_000002_000000.flac", sound())
    rows, rejects = read("libritts", tmp_path / "LibriTTS", tmp_path)
    assert [(r.id, r.text, r.speaker, r.duration) for r in rows] == [
        ("84_121_000001_000000", "Mister Hall, there.", "84", 0.75)
    ]
    assert "normalized.txt" in rejects.found[0].reason
    assert rejects.found[0].file.endswith("84_121_000002_000000.flac")


def test_librispeech(tmp_path: Path) -> None:
    tree = tmp_path / "dev" / "84" / "121"
    put(tree / "84-121-0000.flac", sound())
    put(tree / "84-121-0001.flac", b"fLaC is not all there is")
    put(tree / "84-121.trans.txt", "84-121-0000 GO DO\n84-121-0001 YOU\n84-121-0002 HEAR\n")
    rows, rejects = read("librispeech", tmp_path, tmp_path, split="dev")
    assert [(r.id, r.text, r.speaker) for r in rows] == [("84-121-0000", "go do", "84")]
    assert [bad.line for bad in rejects.found] == [2, 3]
    assert "cannot be read" in rejects.found[0].reason and "not exist" in rejects.found[1].reason


def test_ljspeech(tmp_path: Path) -> None:
    put(tmp_path / "wavs" / "LJ001-0001.wav", sound())
    put(
        tmp_path / "metadata.csv",
        "LJ001-0001|In 1455|in fourteen fifty-five\nLJ001-0001|twice|twice\nonly one field\n",
    )
    rows, rejects = read("ljspeech", tmp_path, tmp_path)
    assert [(r.id, r.text, r.speaker) for r in rows] == [
        ("LJ001-0001", "in fourteen fifty-five", "lj")
    ]
    assert "already that of" in rejects.found[0].reason and "metadata.csv:1" in str(
        rejects.found[0]
    )
    assert rejects.found[1].line == 3


def test_gpt_sovits(tmp_path: Path) -> None:
    put(tmp_path / "vocal" / "a.wav", sound())
    put(tmp_path / "x.list", "vocal\\a.wav|ann|EN|Hello | there.\nvocal/a.wav|ben|EN|\nbad\n")
    rows, rejects = read("gpt-sovits", tmp_path / "x.list", tmp_path)
    assert [(r.id, r.text, r.speaker, r.extra) for r in rows] == [
        ("ann/a", "Hello | there.", "ann", {"language": "en"})
    ]
    assert [(bad.line, bad.reason) for bad in rejects.found] == [
        (2, "'text' is empty."),
        (3, "expected path|speaker|language|text, found 1 fields."),
    ]


def test_webdataset(tmp_path: Path) -> None:
    shard = tmp_path / "shards" / "0.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as archive:
        for name, content in (
            ("sub/one.flac", sound()),
            ("sub/one.json", b'{"text": "one", "speaker": "ann", "language": "en"}'),
            ("two.flac", sound()),
            ("two.txt", b"two"),
            ("three.flac", sound()),
            ("three.json", b"{"),
            ("four.flac", sound()),
            ("four.json", b'["no", "object"]'),
            ("five.flac", sound()),
            ("five.json", b"[" * 100_000),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    put(tmp_path / "shards" / "1.tar", shard.read_bytes()[:700])
    rows, rejects = read("webdataset", tmp_path / "shards", tmp_path)
    assert [(r.id, r.text, r.speaker) for r in rows] == [
        ("sub/one", "one", "ann"),
        ("two", "two", "unknown"),
    ]
    assert rows[0].audio.read_bytes() == sound() and rows[0].audio.name.startswith("sub_one-")
    assert [Path(bad.file).name for bad in rejects.found] == ["0.tar", "0.tar", "0.tar", "1.tar"]
    assert all("not a JSON object" in bad.reason for bad in rejects.found[:3])
    assert "cannot be read" in rejects.found[3].reason


def test_ids_that_would_share_a_file_and_lengths_that_are_wrong(tmp_path: Path) -> None:
    mp3 = io.BytesIO()
    soundfile.write(mp3, np.zeros(16_000), 16_000, format="MP3")
    bare = mp3.getvalue()
    assert bare[0] == 0xFF, "an mp3 without a tag"
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name, content in (
            ("a/b.flac", sound(0.5)),
            ("a/b.txt", b"one"),
            ("a_b.flac", sound(0.7)),
            ("a_b.txt", b"two"),
            ("bare.mp3", bare),
            ("bare.txt", b"three"),
            ("torn.flac", sound(0.5)),
            ("torn.json", b'{"text": "four", "duration": 3.2}'),
            ("latin.flac", sound(0.5)),
            ("latin.txt", b"caf\xe9"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    rows, rejects = read("webdataset", tmp_path / "0.tar", tmp_path)
    assert [row.id for row in rows] == ["a/b", "a_b", "bare"]
    assert [soundfile.info(row.audio).duration for row in rows[:2]] == [0.5, 0.7]
    assert rows[2].duration == pytest.approx(1.0, abs=0.1)
    assert [bad.line for bad in rejects.found] == [4, 5]
    assert "'duration' is 3.20 s, the audio has 0.50 s" in rejects.found[0].reason
    assert "not UTF-8" in rejects.found[1].reason


def test_letters_that_are_lost_and_splits_that_are_not_there(tmp_path: Path) -> None:
    put(tmp_path / "wavs" / "a.wav", sound())
    put(tmp_path / "metadata.csv", b"a|caf\xe9|caf\xe9\na|coffee|coffee\n")
    rows, rejects = read("ljspeech", tmp_path, tmp_path)
    assert [row.text for row in rows] == ["coffee"]
    assert [(bad.line, "not UTF-8" in bad.reason) for bad in rejects.found] == [(1, True)]
    for name in ("libritts", "librispeech"):
        with pytest.raises(ValueError, match="no split 'dev-claen'"):
            read(name, tmp_path, tmp_path, split="dev-claen")


@pytest.mark.parametrize("name", ["ljspeech", "gpt-sovits", "webdataset"])
def test_a_split_of_a_format_that_has_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} has no splits: leave out --split dev; .*libri"):
        read(name, tmp_path, tmp_path, split="dev")


def test_hf_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {
        "id": ["a", "b"],
        "audio": [{"bytes": sound(), "path": None}, {"bytes": b"nothing", "path": None}],
        "sentence": ["one two", "three"],
        "speaker_id": [7, 8],
    }
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "data"))
    found, rejects = read("hf-dataset", tmp_path / "data", tmp_path)
    assert [(r.id, r.text, r.speaker, r.duration) for r in found] == [("a", "one two", "7", 0.5)]
    assert rejects.found == [
        Reject(
            str(tmp_path / "data"),
            2,
            "the sound is in none of the formats wav, flac, ogg, mp3, aiff, au, m4a, webm.",
        )
    ]


def test_the_verb_writes_manifest_and_rejects(tmp_path: Path, capsys: Any) -> None:
    put(tmp_path / "wavs" / "a.wav", sound())
    put(tmp_path / "metadata.csv", "a|one|one\nb|two|two\n")
    output = tmp_path / "data" / "train.jsonl"
    import_data("ljspeech", str(tmp_path), output, max_rejects=0.5)
    assert [row.id for row in read_manifest(output, strict=True).utterances] == ["a"]
    kept = read_rejects(tmp_path / "data" / "train.rejects.jsonl")
    assert [(bad.line, bad.file) for bad in kept] == [(2, str(tmp_path / "metadata.csv"))]
    assert "1 of 2 rows are good" in capsys.readouterr().out
    with pytest.raises(TooManyRejects, match=r"1 of 2 rows .* share of 0\.4"):
        import_data("ljspeech", str(tmp_path), tmp_path / "other.jsonl", max_rejects=0.4)
    assert not (tmp_path / "other.jsonl").exists()
    assert json.loads((tmp_path / "other.rejects.jsonl").read_text())["line"] == 2


def test_too_many_rejects_stop_early_but_not_at_once() -> None:
    rejects = Rejects(None, 0.1)
    for _ in range(EARLIEST_STOP - 1):
        rejects.reject(Reject("x", 1, "bad."))
    with pytest.raises(TooManyRejects, match=f"{EARLIEST_STOP} of {EARLIEST_STOP}"):
        rejects.reject(Reject("x", 1, "bad."))


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="valid are: libritts"):
        read("kaldi", tmp_path, tmp_path)
    assert tuple(IMPORTERS) == FORMATS
    for name in FORMATS:
        if name != "hf-dataset":
            with pytest.raises(ValueError, match="nowhere"):
                read(name, tmp_path / "nowhere", tmp_path)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Rejects(None, 1.5)
