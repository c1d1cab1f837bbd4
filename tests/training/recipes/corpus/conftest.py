from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

FLITE = """#!/bin/sh
echo "$*" >> "{folder}/calls"
[ "$1" = -lv ] && echo "Voices available: slt kal16 awb" && exit 0
while [ $# -gt 0 ]; do
  case "$1" in
    -o) out="$2" ;;
    -t) text="$2" ;;
  esac
  shift
done
case "$text" in *crash*) echo "no such thing" >&2; exit 3 ;; esac
cp "{folder}/speech.wav" "$out"
echo "pau:0.200 ah:0.700 pau:1.000"
"""


@pytest.fixture
def fake_flite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of flite: a tone from 0.2 to 0.7 s in one second at 16 kHz.

    Returns its folder, where `calls` lists how it was called.
    """
    folder = tmp_path / "engine"
    folder.mkdir()
    time = np.arange(16000) / 16000
    tone = 0.3 * np.sin(2 * np.pi * 200 * time) * ((time >= 0.2) & (time < 0.7)) + 0.01
    soundfile.write(folder / "speech.wav", tone, 16000, subtype="PCM_16")
    program = folder / "flite"
    program.write_text(FLITE.format(folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder
