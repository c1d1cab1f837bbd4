"""Recognisers that can judge words, by name: what is installed, or whose weights are there.

`pocketsphinx` brings its weights along. `transformers:NAME` is any speech recogniser that the
pipeline of `transformers` loads (Whisper, wav2vec 2.0 …), by folder or hub id.
`paraformer:FOLDER` is a Paraformer exported to ONNX (`model.onnx` or `model.int8.onnx`, and
`tokens.txt`), run by sherpa-onnx. Each is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.judges import SAMPLE_RATE, JudgeError, hear_words, judge_versions, require

DEFAULT = "pocketsphinx"
KINDS = ("pocketsphinx", "transformers:NAME", "paraformer:FOLDER")

Hear = Callable[[bytes], str]
"""16-bit samples at 16 kHz to text."""


def load_recognizer(name: str, device: str = "cpu") -> Hear:
    """Load a recogniser.

    Args:
        name: one of `KINDS`.
        device: where models of `transformers` run.

    Raises:
        JudgeError: there is no such kind, or its package or weights are missing.
    """
    kind, _, rest = name.partition(":")
    if name == DEFAULT:
        require("pocketsphinx")
        return hear_words
    if kind == "transformers" and rest:
        return _load_transformers(rest, device)
    if kind == "paraformer" and rest:
        return _load_paraformer(Path(rest))
    raise JudgeError(f"there is no judge of words {name!r}; there are {', '.join(KINDS)}.")


def recognizer_version(name: str) -> str:
    """Name and version of a recogniser, for reports."""
    package = {"paraformer": "sherpa-onnx"}.get(name.partition(":")[0], name.partition(":")[0])
    return f"{name} {judge_versions((package,)).get(package, '')}".strip()


def _load_transformers(name: str, device: str) -> Hear:
    from transformers import pipeline

    try:
        model = pipeline("automatic-speech-recognition", model=name, device=device)
    except (OSError, ValueError) as error:
        raise JudgeError(f"transformers:{name} cannot be loaded: {error}") from error

    def hear(pcm: bytes) -> str:
        # A dict, not an array: the pipeline then knows the rate and resamples where it must.
        found: Any = model({"raw": samples_of(pcm), "sampling_rate": SAMPLE_RATE})
        return str(found["text"]).strip()

    return hear


def _load_paraformer(folder: Path) -> Hear:
    require("sherpa_onnx")
    weights = [folder / "model.int8.onnx", folder / "model.onnx"]
    model = next((path for path in weights if path.is_file()), None)
    tokens = folder / "tokens.txt"
    if model is None or not tokens.is_file():
        raise JudgeError(f"{folder} holds no Paraformer: model.onnx and tokens.txt are needed.")
    import sherpa_onnx  # pyright: ignore[reportMissingImports]

    recognizer = sherpa_onnx.OfflineRecognizer.from_paraformer(
        paraformer=str(model), tokens=str(tokens), num_threads=1
    )

    def hear(pcm: bytes) -> str:
        stream = recognizer.create_stream()
        stream.accept_waveform(SAMPLE_RATE, samples_of(pcm))
        recognizer.decode_stream(stream)
        return str(stream.result.text).strip()

    return hear


def samples_of(pcm: bytes) -> np.ndarray:
    """Samples (S,) in -1 .. 1 of 16-bit ones."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768.0


def load_naturalness(name: str) -> Callable[[np.ndarray], float]:
    """Load a judge of naturalness: samples (S,) at 16 kHz to a mean opinion score, 1 to 5.

    Args:
        name: `speechmos`, whose DNSMOS (Reddy et al., 2022) comes with its package.

    Raises:
        JudgeError: there is no such judge, or it is not installed.
    """
    if name != "speechmos":
        raise JudgeError(f"there is no judge of naturalness {name!r}; there is speechmos.")
    require("speechmos")
    from speechmos import dnsmos  # pyright: ignore[reportMissingImports]

    def score(samples: np.ndarray) -> float:
        scores: Any = dnsmos.run(np.clip(samples, -1.0, 1.0), sr=SAMPLE_RATE)
        return float(scores["ovrl_mos"])

    return score
