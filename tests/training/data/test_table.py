"""Conversion to Arrow: once, whole or not at all, by one of several processes; columns beside."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from training.data import table as tables
from training.data.manifest import Rows, Speakers, read_manifest
from training.data.table import Columns, Table, cache_folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything is cached, here."""
    monkeypatch.setenv("TOKENLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tables, "MAX_BYTES_IN_MEMORY", 0)
    return tmp_path / "cache"


def write_rows(path: Path, count: int = 30, **changes: Any) -> Path:
    rows = []
    for number in range(count):
        row: dict[str, Any] = {
            "id": f"i{number}",
            "audio": f"{number}.wav",
            "text": f"Text {number}.",
            "speaker": "zoe" if number % 3 else "ann",
            "duration": 1.0 + number % 7,
        }
        if number % 2:
            row |= {"speech_tokens": [number, 1], "tokenizer": "t", "page": number}
            row["phones"] = [["a", 0.5], [f"b{number % 4}", 0.9]]
        rows.append(json.dumps({**row, **changes}))
    rows.insert(4, "{broken")
    path.write_text("\n".join(rows) + "\n")
    return path


def read_in_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    with monkeypatch.context() as patch:
        patch.setattr(tables, "MAX_BYTES_IN_MEMORY", 2**30)
        return list(read_manifest(path).utterances)


def test_rows_of_a_file_are_those_of_memory(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "m.jsonl")
    manifest = read_manifest(path)
    rows = manifest.utterances
    expected = read_in_memory(path, monkeypatch)
    assert list(rows) == expected and [rows[i] for i in range(len(rows))] == expected
    assert rows[-1] == expected[-1] and list(rows[5:9]) == expected[5:9]
    assert [bad.line for bad in manifest.bad_rows] == [5]
    assert manifest.lines.tolist() == [1, 2, 3, 4, *range(6, 32)]
    assert len(list(cache.glob("*.arrow"))) == 1
    # Workers that do not share this process's memory open the file themselves.
    sent = pickle.dumps(rows)
    assert list(pickle.loads(sent)) == expected and b"Text" not in sent


def test_a_file_is_converted_once_until_it_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "m.jsonl")
    read_manifest(path)
    with monkeypatch.context() as patch:
        patch.setattr("training.data.manifest._read_rows", lambda path: 1 / 0)
        assert len(read_manifest(path).utterances) == 30
    write_rows(path, 31)
    assert len(read_manifest(path).utterances) == 31
    read_manifest(path).utterances.table.forget()
    assert len(list(cache.glob("*.arrow"))) == 1


PROGRAM = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from training.data import manifest, table
table.MAX_BYTES_IN_MEMORY, table.ROWS_PER_BATCH = 0, 4
read = manifest._read_rows
def slow(path):
    Path(sys.argv[2]).open("a").write("converted\\n")
    for number, part in enumerate(read(path)):
        yield part
        if number == 2 and len(sys.argv) > 3:
            print("half", flush=True)
            time.sleep(60)
        time.sleep(0.05)
manifest._read_rows = slow
print(len(manifest.read_manifest(sys.argv[1]).utterances), flush=True)
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_process_that_is_killed_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, cache: Path
) -> None:
    path = write_rows(tmp_path / "m.jsonl")
    process = start(path, tmp_path / "log", "wait")
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [file.suffixes[-2] for file in cache.glob("*.arrow")] == [".partial"]
    assert len(read_manifest(path).utterances) == 30
    assert [file.suffixes for file in cache.glob("*.arrow")] == [[".arrow"]], (
        "what is left is whole"
    )


def test_a_conversion_that_fails_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "m.jsonl")

    def failing(path: Path) -> Any:
        yield {name: [] for name in ("id",)}
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("training.data.manifest._read_rows", failing)
        with pytest.raises((RuntimeError, KeyError)):
            read_manifest(path)
    assert {file.suffix for file in cache.iterdir()} == {".lock"}


@pytest.mark.slow
def test_of_two_processes_one_converts(tmp_path: Path, cache: Path) -> None:
    path = write_rows(tmp_path / "m.jsonl")
    both = [start(path, tmp_path / "log") for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["30\n", "30\n"]
    assert (tmp_path / "log").read_text() == "converted\n"
    assert len(list(cache.glob("*.arrow"))) == 1


def count_words(rows: Columns) -> Columns:
    return {"count": [len((text or "").split()) for text in rows["text"]]}


COUNT = pa.schema({"count": pa.int32()})


@pytest.mark.parametrize("num_processes", [1, 2])
def test_derived_columns_stand_beside_their_rows(
    num_processes: int, tmp_path: Path, cache: Path
) -> None:
    rows = read_manifest(write_rows(tmp_path / "m.jsonl")).utterances
    some = rows.select(np.arange(3, 20, 4)).table
    options = {"num_processes": num_processes}
    counts = some.derive("count words", count_words, COUNT, ["text"], **options)
    assert counts.column("count").tolist() == [2] * len(some)

    def fail(rows: Columns) -> Columns:
        raise AssertionError("computed again")

    again = some.derive("count words", fail, COUNT, ["text"], **options)
    assert again[2] == counts[2] == {"count": 2}
    with pytest.raises(AssertionError, match="computed again"):
        some.derive("count others", fail, COUNT, ["text"])


def test_columns_by_hand() -> None:
    schema = pa.schema({"name": pa.string(), "items": pa.list_(pa.string())})
    parts = [
        {"name": ["b", "a", None], "items": [["x"], None, ["y", "x"]]},
        {"name": ["c", "a"], "items": [["z"], []]},
    ]
    table = Table.convert("", 0, schema, lambda: parts)
    assert table.coded("name")[0] == [None, "a", "b", "c"]
    some = table.select(np.array([0, 1, 4]))
    names, codes = some.coded("name")
    assert names == ["a", "b"] and codes.tolist() == [1, 0, 0]
    assert some.distinct_items("items") == {"x"} and table.distinct_items("items") == set("xyz")
    assert table.is_null("name").tolist() == [False, False, True, False, False]
    assert [row["name"] for row in some[1:]] == ["a", "a"]
    with pytest.raises(IndexError):
        some[3]


def test_rows_of_a_speaker(tmp_path: Path) -> None:
    rows = read_manifest(write_rows(tmp_path / "m.jsonl")).utterances.select(np.arange(10))
    assert isinstance(rows, Rows)
    speakers = Speakers(rows)
    assert speakers.same(3).tolist() == speakers.same(0).tolist() == [0, 3, 6, 9]
    assert speakers.same(4).tolist() == [1, 2, 4, 5, 7, 8]


def test_rows_of_a_speaker_that_are_alike(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    facts = [("ann", 1), ("ann", 0.8), ("bob", 1), ("ann", 1), ("ann", None), ("ann", None)]
    lines = []
    for index, (speaker, rate) in enumerate(facts):
        row = {"id": f"u{index}", "audio": "a.wav", "text": "hi", "speaker": speaker}
        lines.append({**row, "duration": 1.0, "style": "calm", **({"rate": rate} if rate else {})})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = read_manifest(path).utterances
    assert Speakers(rows, ["style"]).same(0).tolist() == [0, 1, 3, 4, 5]
    speakers = Speakers(rows, ["rate", "style"])
    groups = [speakers.same(index).tolist() for index in range(6)]
    assert groups == [[0, 3], [1], [2], [0, 3], [4, 5], [4, 5]]


def test_the_cache_is_where_it_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENLM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/tokenlm")
