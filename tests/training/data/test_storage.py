"""Manifests, sound and shards at addresses."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from toy_shards import make_work

from training.data.manifest import ManifestError, read_manifest
from training.data.precompute import build_shards, write_tokens
from training.data.rejects import read_rejects
from training.data.shards import ShardDataset
from training.data.storage import Folder, fetch_manifest, is_address


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An object store in memory."""
    monkeypatch.setenv("TOKENLM_CACHE", str(tmp_path / "cache"))
    found = fsspec.filesystem("memory")
    yield found
    found.rm("/", recursive=True)


def small_work(**changes: object) -> Any:
    return make_work(speaker_encoder=None, mel=None, **changes)


def test_addresses_are_told_from_paths() -> None:
    assert is_address("s3://bucket/x") and is_address("simplecache::s3://bucket/x")
    assert not any(map(is_address, ("a/b", "/a/b", "C:\\a", "a:b", Path("s3:/bucket"))))


def test_from_a_store_into_a_store(
    store: Any, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of a disk, and rejects that name addresses, whatever is fetched to where."""
    build_shards(read_manifest(recordings / "rows.jsonl"), tmp_path / "disk", small_work())
    for path in recordings.iterdir():
        store.put_file(str(path), f"/corpus/{path.name}")
    manifest = fetch_manifest("memory://corpus/rows.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(store, "exists", None)  # one listing, and no question for each shard
        build_shards(manifest, "memory://out/shards", small_work())
    for path in (tmp_path / "disk").iterdir():
        found = store.cat_file(f"/out/shards/{path.name}")
        if "rejects" not in path.name:
            assert found == path.read_bytes(), path.name
    assert len(store.ls("/out/shards")) == len(list((tmp_path / "disk").iterdir()))
    (tmp_path / "rejects").write_bytes(store.cat_file("/out/shards/rejects.jsonl"))
    rejects = read_rejects(tmp_path / "rejects")
    assert {one.file for one in rejects} == {"memory://corpus/rows.jsonl"}
    assert sorted(one.line or 0 for one in rejects) == [2, 5, 9]
    reasons = " ".join(one.reason for one in rejects)
    assert "memory://corpus/3.wav" in reasons and "memory://corpus/7.wav has 0.50 s" in reasons
    assert len(ShardDataset("memory://out/shards", 16_000, max_reject_share=0.5)) == 10
    changed = {path["name"]: path["created"] for path in store.ls("/out/shards", detail=True)}
    build_shards(manifest, "memory://out/shards", small_work())
    again = {path["name"]: path["created"] for path in store.ls("/out/shards", detail=True)}
    assert {k: v for k, v in again.items() if "/shard-" in k} == {
        k: v for k, v in changed.items() if "/shard-" in k
    }


def test_an_upload_that_fails_leaves_no_shard(
    store: Any, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(recordings / "rows.jsonl")
    put_file = store.put_file

    def full(path: str, target: str, **options: Any) -> None:
        if "shard-00001.rejects" in target:
            raise OSError("quota")
        put_file(path, target, **options)

    monkeypatch.setattr(store, "put_file", full)
    with pytest.raises(OSError, match="quota"):
        build_shards(manifest, "memory://out", small_work())
    names = Folder("memory://out").names()
    assert "shard-00000.jsonl" in names and "shard-00001.jsonl" not in names
    monkeypatch.setattr(store, "put_file", put_file)
    build_shards(manifest, "memory://out", small_work())
    assert "shard-00001.jsonl" in Folder("memory://out").names()


def test_sound_at_addresses_of_its_own(store: Any, recordings: Path, tmp_path: Path) -> None:
    store.put_file(str(recordings / "0.wav"), "/sounds/far/0.wav")
    rows = [
        {"id": "far", "audio": "memory://sounds/far/0.wav", "duration": 0.3},
        {"id": "near", "audio": f"{recordings}/1.wav", "duration": 0.4},
        {"id": "gone", "audio": "memory://sounds/far/none.wav", "duration": 0.4},
    ]
    lines = [json.dumps({**row, "text": "a", "speaker": "s"}) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    rejects = build_shards(read_manifest(tmp_path / "rows.jsonl"), tmp_path / "out", small_work())
    assert [one.line for one in rejects.found] == [3]
    assert "memory://sounds/far/none.wav" in rejects.found[0].reason
    found = ShardDataset(str(tmp_path / "out"), 16_000)
    assert [(row.id, row.audio.name) for row in found.utterances] == [
        ("far", "0.wav"), ("near", "1.wav")
    ]  # fmt: skip


def test_mistakes_are_sentences(store: Any, recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"memory://corpus/no\.jsonl: the manifest cannot be"):
        fetch_manifest("memory://corpus/no.jsonl")
    manifest = read_manifest(recordings / "rows.jsonl")
    work = small_work(audio_rate=0)
    with pytest.raises(ValueError, match="written from one on a disk, and to a disk"):
        write_tokens(manifest, "memory://out/rows.jsonl", work)


def test_a_full_disk_leaves_nothing_behind(recordings: Path, tmp_path: Path) -> None:
    """Files cannot grow beyond a size that the first shard exceeds when it is nearly done."""
    manifest = read_manifest(recordings / "rows.jsonl")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            build_shards(manifest, tmp_path / "out", small_work())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["shards.json"]
    build_shards(manifest, tmp_path / "out", small_work())
    build_shards(manifest, tmp_path / "other", small_work())
    for path in (tmp_path / "other").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
