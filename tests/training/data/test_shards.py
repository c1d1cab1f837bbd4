"""Shards read back: from a disk and an address, edited, damaged; in the order of the sampler."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from toy_shards import RATE, make_work

from tokenlm.audio.io import load_audio
from tokenlm.audio.mel import MelConfig, MelSpectrogram
from tokenlm.config import ConfigError
from training.config import BatchConfig
from training.data import table
from training.data.dataset import ShardError
from training.data.importers import import_rows
from training.data.manifest import Utterance, read_manifest
from training.data.precompute import build_shards
from training.data.rejects import Rejects, TooManyRejects
from training.data.sampler import DurationSampler, Position
from training.data.shards import ShardDataset, ShardStore, ShardTokens
from training.data.split import DataConfig, open_split, require_tokens


@pytest.fixture(scope="session")
def shards(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed: copy it first."""
    folder = tmp_path_factory.mktemp("shards")
    build_shards(read_manifest(recordings / "rows.jsonl"), folder, make_work())
    return folder


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def test_what_was_computed_comes_back(shards: Path, recordings: Path) -> None:
    data = ShardDataset(str(shards), RATE)
    work = make_work()
    assert work.tokenizer is not None and work.speaker_encoder is not None
    assert [row.id for row in data.utterances][:4] == ["i0", "i1", "i2", "i4"]
    for index, row in enumerate(data.utterances):
        waveform = load_audio(recordings / row.audio.name, RATE)
        assert torch.equal(data.waveform(index), waveform), "16 bits survive flac"
        tokens = work.tokenizer.encode(waveform[None])[0][0]
        assert row.speech_tokens is not None and list(row.speech_tokens) == tokens.tolist()
        assert len(row.speech_tokens) == len(tokens)
        vector = work.speaker_encoder(waveform[None], torch.tensor([len(waveform)]))[0]
        np.testing.assert_allclose(data.array(index, "embedding"), vector.numpy(), atol=1e-6)
        mel = MelSpectrogram(MelConfig())(load_audio(recordings / row.audio.name, 24_000)[None])
        np.testing.assert_array_equal(data.array(index, "mel"), mel[0].half().numpy())


def test_an_address_is_as_good_as_a_folder(shards: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    here, there = ShardDataset(str(shards), RATE), ShardDataset("memory://bucket", RATE)
    assert here.durations.tolist() == there.durations.tolist()
    for index in (0, 5):
        assert torch.equal(here.waveform(index), there.waveform(index))
        assert list(here.utterances[index].speech_tokens or ()) == list(
            there.utterances[index].speech_tokens or ()
        )


def test_order_is_that_of_seed_and_position_alone(shards: Path) -> None:
    data = ShardDataset(str(shards), RATE)
    config = BatchConfig(max_seconds_per_batch=1.5, max_items=2)

    def order(num_ranks: int, num_steps: int, start: Position = Position()) -> list[str]:  # noqa: B008
        sampler = DurationSampler(data.durations, config, 3)
        plans = islice(sampler.plans(start, num_ranks), num_steps)
        return [
            data.utterances[item].id
            for plan in plans
            for part in plan.micro_batches
            for item in part.items
        ]

    alone = order(1, 24)
    assert alone == order(2, 12) == order(4, 6)
    assert alone != sorted(alone) and len(set(alone)) == len(data)
    sampler = DurationSampler(data.durations, config, 3)
    middle = list(islice(sampler.plans(Position(), 1), 4))[-1].after
    assert middle.index > 0, "in the middle of an epoch"
    assert order(4, 5, middle) == order(1, 20, middle) == alone[-len(order(1, 20, middle)) :]


def test_metadata_is_edited_without_unpacking(copied: Path) -> None:
    path = copied / "shard-00000.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["text"] = "corrected"
    path.write_text("\n".join(json.dumps(row) for row in (rows[1], rows[2])))
    data = ShardDataset(str(copied), RATE)
    assert [row.id for row in data.utterances][:3] == ["i1", "i2", "i4"]
    assert data.utterances[0].text == "corrected"
    assert len(data.utterances[0].speech_tokens or ()) == 10


def test_bad_rows_and_shards_are_set_aside(copied: Path) -> None:
    path = copied / "shard-00000.jsonl"
    first = path.read_text().splitlines()
    empty = json.loads(first[1])
    empty["text"] = " "
    path.write_text("\n".join([first[0], json.dumps(empty), "{", first[0]]) + "\n")
    tar = copied / "shard-00001.tar"
    last = json.loads((copied / "shard-00001.jsonl").read_text().splitlines()[2])
    tar.write_bytes(tar.read_bytes()[: last["members"]["audio"][0] + 600])
    (copied / "shard-00002.tar").unlink()
    rejects = Rejects(None, 0.9)
    rows = ShardStore(str(copied)).rows(rejects)
    assert [row.id for row in rows] == ["i0", "i4", "i5"]
    told = {(Path(bad.file).name, bad.line): bad.reason for bad in rejects.found}
    assert told[("shard-00000.jsonl", 2)] == "'text' is empty."
    assert "not a row" in told[("shard-00000.jsonl", 3)]
    assert "already that of" in told[("shard-00000.jsonl", 4)]
    assert "it is damaged" in told[("shard-00001.jsonl", 3)]
    assert "the shard cannot be read" in told[("shard-00002.jsonl", None)]
    assert rejects.num_bad == 3 + 1 + 4, "a shard that is gone counts as all of its items"
    with pytest.raises(TooManyRejects):
        ShardStore(str(copied)).rows(Rejects(None, 0.5))


def test_a_lost_shard_is_a_share_of_all_rows_not_of_those_before_it(
    shards: Path, tmp_path: Path
) -> None:
    """Of 1,000 rows in five shards the first 200 are gone: a fifth, not everything so far."""
    info = json.loads((shards / "shards.json").read_text())
    info |= {"num_items": 1000, "items_per_shard": 200}
    (tmp_path / "shards.json").write_text(json.dumps(info))
    row = json.loads((shards / "shard-00000.jsonl").read_text().splitlines()[0])
    for shard in range(1, 5):
        rows = (json.dumps({**row, "id": f"{shard}-{number}"}) for number in range(200))
        (tmp_path / f"shard-{shard:05d}.jsonl").write_text("\n".join(rows))
        shutil.copy(shards / "shard-00000.tar", tmp_path / f"shard-{shard:05d}.tar")
    assert len(ShardDataset(str(tmp_path), RATE, max_reject_share=0.25).utterances) == 800
    with pytest.raises(TooManyRejects, match="200 of 1000 rows"):
        ShardDataset(str(tmp_path), RATE, max_reject_share=0.1)


def test_a_tar_that_is_not_that_of_the_rows_is_seen(copied: Path) -> None:
    shutil.copy(copied / "shard-00002.tar", copied / "shard-00000.tar")
    row = ShardDataset(str(copied), RATE, max_reject_share=1.0).utterances[1]
    assert isinstance(row.speech_tokens, ShardTokens)
    with pytest.raises(ShardError, match=r"shard-00000.tar"):
        list(row.speech_tokens)


def test_stages_open_shards_by_config(shards: Path, tmp_path: Path) -> None:
    config = DataConfig(shards=str(shards), min_seconds=0.35)
    data = open_split(config, "train", RATE)
    assert data is not None and min(data.durations) >= 0.35
    assert require_tokens([data], 9) == ShardStore(str(shards)).info.tokenizer
    with pytest.raises(ConfigError, match="token 8, but the codebook has 5"):
        require_tokens([data], 5)
    with pytest.raises(ConfigError, match="either train"):
        DataConfig()
    with pytest.raises(ShardError, match="no folder of shards"):
        ShardStore(str(tmp_path))


def test_rows_are_converted_once_until_they_are_edited(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(ShardStore(str(copied)).rows(Rejects(None, 0.0)))
    monkeypatch.setenv("TOKENLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(table, "MAX_BYTES_IN_MEMORY", 0)

    def rows(share: float = 0.0) -> list[Utterance]:
        return list(ShardStore(str(copied)).rows(Rejects(None, share)))

    def plain(rows: Sequence[Utterance]) -> list[Utterance]:
        return [replace(row, speech_tokens=tuple(row.speech_tokens or ())) for row in rows]

    assert plain(rows()) == plain(expected)
    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "_parse_rows", lambda store, sizes: iter([1 / 0]))
        assert plain(rows()) == plain(expected)
    path = copied / "shard-00000.jsonl"
    path.write_text(path.read_text().replace('"text 0"', '"another"'))
    assert [row.text for row in rows()][:2] == ["another", "text 1"]
    # A shard that is not there is looked for again at the next start.
    (copied / "shard-00001.tar").rename(copied / "away")
    assert len(rows(0.5)) == len(expected) - 3, "of its four items one was bad"
    (copied / "away").rename(copied / "shard-00001.tar")
    assert len(rows()) == len(expected)


def test_a_cached_address(shards: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe_file(f"/cached/{path.name}", path.read_bytes())
    there = ShardDataset("simplecache::memory://cached", RATE)
    here = ShardDataset(str(shards), RATE)
    assert [row.id for row in there.utterances] == [row.id for row in here.utterances]
    assert torch.equal(here.waveform(3), there.waveform(3))


def test_the_tars_are_a_webdataset(shards: Path, recordings: Path, tmp_path: Path) -> None:
    rejects = Rejects(None, 0.0)
    rows = list(import_rows("webdataset", f"{shards}/*.tar", tmp_path / "m.jsonl", rejects))
    data = ShardDataset(str(shards), RATE)
    assert [(row.id, row.text, row.speaker) for row in rows] == [
        (row.id, row.text, row.speaker) for row in data.utterances
    ]
    assert torch.equal(load_audio(rows[4].audio, RATE), data.waveform(4))
