"""Plug-in recognisers: real ones as far as weights can be made here, errors for the rest."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_recognizer import tiny_recognizer

from training.evaluation import judges
from training.evaluation.error_rate import find_cleaner, spoken_words
from training.evaluation.judges import (
    JudgeError,
    WordJudge,
    load_recognizer,
    recognizer_version,
    samples_of,
)
from training.refine.recognisers import make_recogniser

PCM = (np.sin(np.arange(16_000) / 20) * 8000).astype("<i2").tobytes()


def test_a_recogniser_of_transformers_is_loaded_from_a_folder(tmp_path: Path) -> None:
    hear = load_recognizer(f"transformers:{tiny_recognizer(tmp_path / 'asr')}")
    assert hear(PCM) == "a"


def test_weights_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JudgeError, match="transformers:.* cannot be loaded"):
        load_recognizer(f"transformers:{tmp_path}")
    with pytest.raises(JudgeError, match="there is no judge of words 'whisper'; there are pocket"):
        load_recognizer("whisper")
    with pytest.raises(JudgeError, match="holds no Whisper .* model.bin, config.json, tokenizer"):
        monkeypatch.setattr(judges, "find_spec", lambda name: name)
        load_recognizer(f"whisper:{tmp_path}")


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


@pytest.fixture
def whisper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """A folder of weights, and what the package is asked: it is no part of the tests here."""
    asked: dict[str, Any] = {}

    class Model:
        def __init__(self, folder: str, **options: Any) -> None:
            asked.update(folder=folder, **options)

        def transcribe(self, samples: np.ndarray, **options: Any) -> Any:
            asked.update(samples=samples, **options)
            return iter([SimpleNamespace(text=" One, two."), SimpleNamespace(text=" 3.")]), None

    folder = tmp_path / "whisper-base"
    folder.mkdir()
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (folder / name).write_text(name)
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Model))
    monkeypatch.setattr(judges, "find_spec", lambda name: name)
    return folder, asked


def test_whisper_is_given_samples_and_draws_nothing(whisper: tuple[Path, dict[str, Any]]) -> None:
    folder, asked = whisper
    assert load_recognizer(f"whisper:{folder}")(PCM) == "One, two. 3."
    assert asked["folder"] == str(folder) and asked["temperature"] == 0.0
    assert np.array_equal(asked["samples"], samples_of(PCM))
    # The name in reports and of cached transcripts is that of the weights, wherever they lie.
    name = recognizer_version(f"whisper:{folder}")
    assert name.startswith("whisper:whisper-base ") and str(folder.parent) not in name
    (folder / "model.bin").write_text("other weights")
    assert recognizer_version(f"whisper:{folder}") != name
    # That there are none is told where they are loaded.
    assert recognizer_version(f"whisper:{folder}/none").startswith("whisper:")


def test_refinement_takes_the_recognisers_of_the_evaluation(
    whisper: tuple[Path, dict[str, Any]],
) -> None:
    folder, asked = whisper
    waveform = torch.from_numpy(np.concatenate([samples_of(PCM), [2.0, -2.0]]).astype(np.float32))
    assert make_recogniser(f"whisper:{folder}")(waveform) == "One, two. 3."
    assert np.abs(asked["samples"]).max() <= 1.0 and len(asked["samples"]) == len(waveform)
    with pytest.raises(ValueError, match="there is no recogniser 'ear'; valid are: ours:BUNDLE"):
        make_recogniser("ear")


def test_texts_of_other_judges_are_cleaned_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cleaner("pocketsphinx")("x") is spoken_words
    assert find_cleaner("transformers:whisper")("x") is spoken_words
    monkeypatch.setattr(judges, "find_spec", lambda name: None)
    with pytest.raises(JudgeError, match="whisper_normalizer, which is not installed"):
        find_cleaner("whisper:FOLDER")


@pytest.mark.skipif(
    find_spec("faster_whisper") is None, reason="faster-whisper is not installed: extra eval"
)
def test_what_faster_whisper_cannot_load_is_an_error(tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(JudgeError, match="cannot be loaded"):
        load_recognizer(f"whisper:{tmp_path}")


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
