from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.recipes.corpus.engines import EngineError, Request, check_voice, speak


def test_flite_is_asked_and_heard(fake_flite: Path) -> None:
    [speech] = speak("flite", [Request(text="hello", voice="slt", pitch=150.0, stretch=0.9)])
    assert not isinstance(speech, EngineError)
    assert speech.sample_rate == 16000
    assert speech.waveform.shape == (16000,)
    assert speech.phones == [("pau", 0.2), ("ah", 0.7), ("pau", 1.0)]
    call = (fake_flite / "calls").read_text()
    assert "-voice slt" in call
    assert "duration_stretch=0.9000" in call
    assert "int_f0_target_mean=150.00" in call


def test_failed_request_does_not_stop_the_others(fake_flite: Path) -> None:
    spoken = speak("flite", [Request(text=text, voice="slt") for text in ("hi", "crash", "ho")])
    assert [isinstance(speech, EngineError) for speech in spoken] == [False, True, False]
    assert "no such thing" in str(spoken[1])


@pytest.mark.parametrize("engine", ["flite", "festival", "espeak-ng"])
def test_missing_engine_names_its_package(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=f"apt-get install {engine}"):
        speak(engine, [Request(text="hello", voice="any")])


@pytest.mark.usefixtures("fake_flite")
def test_missing_voice_is_named() -> None:
    check_voice("flite", "kal16")
    with pytest.raises(EngineError, match="no voice rms; it has slt, kal16, awb"):
        check_voice("flite", "rms")


def test_missing_festival_voice_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "festival"
    program.write_text("#!/bin/sh\necho absent\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EngineError, match="apt-get install festvox-kdlpc16k"):
        check_voice("festival", "ked_diphone")


def test_festival_goes_on_behind_a_text_that_it_dies_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "speech.wav", np.full(160, 0.1), 16000)
    program = tmp_path / "festival"
    # Does what the script asks for, line by line, and dies of the word "poison".
    program.write_text(
        f"""#!{sys.executable}
import os, re, shutil, sys
for line in open(sys.argv[2]):
    if "poison" in line:
        os.abort()
    for path in re.findall(r'"(/[^"]*)"', line):
        if path.endswith(".wav"):
            shutil.copy({str(tmp_path / "speech.wav")!r}, path)
        else:
            open(path, "w").write("pau 0.01\\n")
""",
        encoding="utf-8",
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    texts = ["one", "poison", "two", "three", "poison"]
    requests = [Request(text=text, voice="ked_diphone", pitch=None, stretch=1.0) for text in texts]
    spoken = speak("festival", requests)
    assert [isinstance(one, EngineError) for one in spoken] == [False, True, False, False, True]
    assert "status -6" in str(spoken[1])
