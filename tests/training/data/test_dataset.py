"""The dataset of utterances: filters, resampling, augmentation on draw only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tokenlm.config import ConfigError, load_config
from training.data.augment import AugmentConfig
from training.data.dataset import UtteranceDataset
from training.data.exclusion import Exclusion
from training.data.manifest import ManifestError, Utterance, read_manifest, write_manifest
from training.data.precompute import Precompute, build_shards
from training.data.split import DataConfig, open_split


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = []
    for index, seconds in enumerate((0.5, 1.0, 2.0)):
        path = tmp_path / f"{index}.wav"
        time = np.arange(int(seconds * 8000)) / 8000
        soundfile.write(path, 0.3 * np.sin(time * 2000 * (index + 1)), 8000)
        rows.append(
            Utterance(id=str(index), audio=path, text="a", speaker=f"s{index}", duration=seconds)
        )
    write_manifest(tmp_path / "m.jsonl", rows)
    return tmp_path / "m.jsonl"


def test_filters_and_resamples(manifest: Path) -> None:
    dataset = UtteranceDataset(manifest, 16000, min_seconds=0.6)
    assert dataset.durations.tolist() == [1.0, 2.0] and len(dataset) == 2
    item = dataset[0]
    assert item.utterance.id == "1" and item.waveform.shape == (16000,)
    rows = [row for row in read_manifest(manifest).utterances if row.speaker == "s0"]
    assert UtteranceDataset(rows, 8000).durations.tolist() == [0.5]


def test_nothing_left_is_an_error(manifest: Path) -> None:
    with pytest.raises(ManifestError, match="no utterance is left"):
        UtteranceDataset(manifest, 8000, min_seconds=3.0)


def test_bad_rows_are_logged(manifest: Path, caplog: pytest.LogCaptureFixture) -> None:
    with manifest.open("a") as file:
        file.write("{broken\n")
    assert len(UtteranceDataset(manifest, 8000)) == 3
    assert f"{manifest}:4: not JSON" in caplog.text


def test_draw_augments_and_keeps_the_clean_waveform(manifest: Path) -> None:
    config = AugmentConfig(noise=1.0, noises=("babble",), reverb=0.0)
    dataset = UtteranceDataset(manifest, 8000, augmentation=config)
    one = dataset.draw(1, torch.Generator().manual_seed(3))
    again = dataset.draw(1, torch.Generator().manual_seed(3))
    assert torch.equal(one.waveform, again.waveform)
    assert torch.equal(one.clean, dataset[1].waveform)
    assert not torch.equal(one.waveform, one.clean)


def texts_of(manifest: Path, *texts: str) -> Path:
    rows = read_manifest(manifest).utterances
    changed = [replace(row, text=text) for row, text in zip(rows, texts, strict=True)]
    write_manifest(manifest, changed)
    return manifest


def test_excluded_texts_are_left_out_and_told(
    manifest: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts_of(manifest, "It is 5.", "nothing of the sort", "it is five, he said")
    dataset = UtteranceDataset(manifest, 8000, exclusion=Exclusion(["It is five"]))
    assert [row.id for row in dataset.utterances] == ["1", "2"]
    assert dataset.durations.tolist() == [1.0, 2.0] and dataset.num_excluded == 1
    [reject] = dataset.rejects
    assert reject.reason == "the text of '0' is or holds one of a test set: 'it is five'."
    told = caplog.text
    assert f"{manifest}: 1 of 3 utterances have texts of test sets and are left out" in told
    with pytest.raises(ManifestError, match="1 of them have texts of test sets"):
        UtteranceDataset(manifest, 8000, max_seconds=0.6, exclusion=Exclusion(["It is five"]))


def test_no_stage_reads_a_text_of_a_test_set(manifest: Path, tmp_path: Path) -> None:
    texts_of(
        manifest, "Yes!", "A text of our own.", "Oh, please leave your shoes by the front door"
    )
    build_shards(read_manifest(manifest), tmp_path / "shards", Precompute(audio_rate=8000))
    rejects = tmp_path / "rejects.jsonl"
    own = tmp_path / "own.txt"
    own.write_text("A text of our own.\n")
    for data in (DataConfig(train=manifest), DataConfig(shards=str(tmp_path / "shards"))):
        found = open_split(data, "train", 8000, rejects=rejects)
        assert found is not None and [row.text for row in found.utterances] == [
            "A text of our own."
        ]
        with pytest.raises(ManifestError, match="3 of them have texts of test sets"):
            open_split(replace(data, test_sets=(own,)), "train", 8000)
    assert len(rejects.read_text().splitlines()) == 4
    # Nothing is chosen by them either.
    valid = open_split(DataConfig(train=manifest, valid=manifest), "valid", 8000)
    assert valid is not None and len(valid) == 1


def test_the_message_says_how_shards_take_the_place_of_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("train: m.jsonl\n")
    with pytest.raises(ConfigError, match=r"either .* shards.*; data\.train= \(empty\) clears"):
        load_config(DataConfig, path, ["shards=folder"])
    found = load_config(DataConfig, path, ["shards=folder", "train="])
    assert found.train is None and found.shards == "folder"
    with pytest.raises(ConfigError, match="give either train, a manifest, or shards") as caught:
        DataConfig()
    assert "data.train=" not in str(caught.value)
