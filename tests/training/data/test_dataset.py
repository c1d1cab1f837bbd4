"""The dataset of utterances: filters, resampling, augmentation on draw only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from training.data.augment import AugmentConfig
from training.data.dataset import UtteranceDataset
from training.data.manifest import ManifestError, Utterance, write_manifest


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
    assert dataset.durations == [1.0, 2.0] and len(dataset) == 2
    item = dataset[0]
    assert item.utterance.id == "1" and item.waveform.shape == (16000,)
    only = UtteranceDataset(manifest, 8000, keep=lambda row: row.speaker == "s0")
    assert only.durations == [0.5]


def test_nothing_left_is_an_error(manifest: Path) -> None:
    with pytest.raises(ManifestError, match="no utterance is left"):
        UtteranceDataset(manifest, 8000, min_seconds=3.0)


def test_bad_rows_are_printed(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with manifest.open("a") as file:
        file.write("{broken\n")
    assert len(UtteranceDataset(manifest, 8000)) == 3
    assert f"{manifest}:4: not JSON" in capsys.readouterr().out


def test_draw_augments_and_keeps_the_clean_waveform(manifest: Path) -> None:
    config = AugmentConfig(noise=1.0, noises=("babble",), reverb=0.0)
    dataset = UtteranceDataset(manifest, 8000, augmentation=config)
    one = dataset.draw(1, torch.Generator().manual_seed(3))
    again = dataset.draw(1, torch.Generator().manual_seed(3))
    assert torch.equal(one.waveform, again.waveform)
    assert torch.equal(one.clean, dataset[1].waveform)
    assert not torch.equal(one.waveform, one.clean)
