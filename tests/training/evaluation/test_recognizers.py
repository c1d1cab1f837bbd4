"""Plug-in recognisers: real ones as far as weights can be made here, errors for the rest."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_recognizer import tiny_recognizer

from training.evaluation import judges
from training.evaluation.judges import (
    JudgeError,
    WordJudge,
    load_naturalness,
    load_recognizer,
    recognizer_version,
    samples_of,
)

PCM = (np.sin(np.arange(16_000) / 20) * 8000).astype("<i2").tobytes()


def test_a_recogniser_of_transformers_is_loaded_from_a_folder(tmp_path: Path) -> None:
    hear = load_recognizer(f"transformers:{tiny_recognizer(tmp_path / 'asr')}")
    assert hear(PCM) == "a"


def test_weights_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="transformers:.* cannot be loaded"):
        load_recognizer(f"transformers:{tmp_path}")
    with pytest.raises(JudgeError, match="there is no judge of words 'whisper'; there are pocket"):
        load_recognizer("whisper")


def test_paraformer_needs_its_package_and_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "find_spec", lambda name: None)
    with pytest.raises(JudgeError, match="pip install sherpa-onnx"):
        load_recognizer(f"paraformer:{tmp_path}")
    monkeypatch.setattr(judges, "find_spec", lambda name: name)
    with pytest.raises(JudgeError, match="holds no Paraformer"):
        load_recognizer(f"paraformer:{tmp_path}")


def test_paraformer_is_given_samples_and_their_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is large and not needed here: what it is asked is checked on a stand-in."""
    (tmp_path / "model.onnx").touch()
    (tmp_path / "tokens.txt").touch()
    asked: dict[str, Any] = {}

    class Recognizer:
        @classmethod
        def from_paraformer(cls, **options: Any) -> Any:
            asked.update(options)
            return cls()

        def create_stream(self) -> Any:
            return SimpleNamespace(
                accept_waveform=lambda rate, samples: asked.update(rate=rate, samples=samples),
                result=SimpleNamespace(text=" hello "),
            )

        def decode_stream(self, stream: Any) -> None:
            asked["decoded"] = stream

    monkeypatch.setitem(sys.modules, "sherpa_onnx", SimpleNamespace(OfflineRecognizer=Recognizer))
    monkeypatch.setattr(judges, "find_spec", lambda name: name)
    assert load_recognizer(f"paraformer:{tmp_path}")(PCM) == "hello"
    assert asked["paraformer"] == str(tmp_path / "model.onnx")
    assert asked["rate"] == 16_000 and np.array_equal(asked["samples"], samples_of(PCM))
    assert 0.2 < np.abs(asked["samples"]).max() < 0.3


def test_naturalness_is_pluggable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JudgeError, match="no judge of naturalness 'ear'"):
        load_naturalness("ear")
    monkeypatch.setattr(judges, "find_spec", lambda name: None)
    with pytest.raises(JudgeError, match="pip install speechmos"):
        load_naturalness("speechmos")
    monkeypatch.setattr(judges, "find_spec", lambda name: name)
    dnsmos = SimpleNamespace(run=lambda samples, sr: {"ovrl_mos": float(samples.max()) + sr})
    monkeypatch.setitem(sys.modules, "speechmos", SimpleNamespace(dnsmos=dnsmos))
    assert load_naturalness("speechmos")(np.array([0.5, 3.0])) == 16_001.0


def test_a_named_plug_in_is_remembered_apart_from_others(tmp_path: Path) -> None:
    calls: list[int] = []

    def hear(pcm: bytes) -> str:
        calls.append(len(pcm))
        return "yes"

    memory = tmp_path / "memory.jsonl"
    for _ in range(2):
        judge = WordJudge(1, memory, hear, name="mine 1")
        assert judge.submit(samples_of(PCM)).result() == "yes"
    assert len(calls) == 1
    assert WordJudge(1, memory, hear, name="mine 2").submit(samples_of(PCM)).result() == "yes"
    assert len(calls) == 2
    assert WordJudge(1, memory, hear).submit(samples_of(PCM)).result() == "yes"
    assert len(calls) == 3


def test_the_name_of_a_recogniser_tells_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "judge_versions", lambda names: dict.fromkeys(names, "5.1"))
    assert recognizer_version("paraformer:FOLDER") == "paraformer:FOLDER 5.1"
    assert recognizer_version("pocketsphinx") == "pocketsphinx 5.1"
