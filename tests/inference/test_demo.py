"""What `make demo` runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from inference import demo


def test_demo_writes_sound_and_picture(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    arguments = ["--bundle", str(tiny_bundle), "--output", str(folder), "--text", "yes it is"]
    assert demo.main(arguments) == 0
    told = capsys.readouterr().out
    assert str(folder / "out.wav") in told and str(folder / "mel.png") in told
    assert "real-time factor" in told and "demo_prompt.wav" in told
    assert soundfile.info(str(folder / "out.wav")).frames > 0
    assert (folder / "mel.png").read_bytes().startswith(b"\x89PNG")


def test_demo_tells_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--bundle", str(tmp_path), "--output", str(tmp_path / "demo")]) == 2
    assert "is not a bundle" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
