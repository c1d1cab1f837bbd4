"""Judges of words, speakers and naturalness. None of them takes part in any training.

By default words are judged by pocketsphinx with its own English model, in processes of its own, and
speakers by the voice encoder of resemblyzer; the packages of both contain their weights. Other
recognisers are named `whisper:FOLDER`, a Whisper in the format of CTranslate2 (`model.bin`), run by
faster-whisper; `transformers:NAME`, which is any speech recogniser that the pipeline of
`transformers` loads (Whisper, wav2vec 2.0 …), by folder or hub id; or `paraformer:FOLDER`, a
Paraformer exported to ONNX (`model.onnx` or `model.int8.onnx`, and `tokens.txt`), run by
sherpa-onnx. Each is imported when it is asked for.

Judges of naturalness give mean opinion scores, 1 to 5. `speechmos` is DNSMOS (Reddy et al., 2021
and 2022), two networks: P.808 was fitted to ratings of the speech as a whole, OVRL to those of
speech and background together. `distillmos` is Distill-MOS (Stahl and Gamper, 2025), a small
network that learned from a large one. Both packages hold their weights.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tokenlm.installation import install_command
from training.evaluation.config import DEFAULT, WHISPER
from training.loop.workers import end_with_parent

SAMPLE_RATE = 16_000
"""What both judges listen to, in hertz."""

INSTALL = {
    "jiwer": install_command("eval"),
    "pocketsphinx": install_command("eval"),
    "faster_whisper": install_command("eval"),
    "whisper_normalizer": install_command("eval"),
    # Their declared dependencies do not build everywhere, and are not needed.
    "resemblyzer": "pip install --no-deps resemblyzer",
    "distillmos": "pip install --no-deps distillmos xls-r-sqa",
    "xls_r_sqa": "pip install --no-deps distillmos xls-r-sqa",
    "sherpa_onnx": "pip install sherpa-onnx",
    "speechmos": install_command("eval"),
}
"""The command that installs each judge."""

WHISPER_FILES = ("model.bin", "config.json", "tokenizer.json")
"""What a Whisper in the format of CTranslate2 consists of, besides its vocabulary."""
KINDS = ("pocketsphinx", "whisper:FOLDER", "transformers:NAME", "paraformer:FOLDER")

Transcribe = Callable[[bytes], str]
"""16-bit samples at 16 kHz to text."""
Embed = Callable[[np.ndarray], np.ndarray]
"""Samples (S,) in -1 .. 1 at 16 kHz to a speaker embedding (E,)."""

Rate = Callable[[np.ndarray], dict[str, float]]
"""Samples (S,) in -1 .. 1 at 16 kHz to scores by their names."""

P808, OVRL, DISTILL = "dnsmos_p808", "dnsmos_ovrl", "distill_mos"
SCORES = {
    P808: "naturalness by DNSMOS P.808, 1 to 5",
    OVRL: "speech and background by DNSMOS, 1 to 5",
    DISTILL: "naturalness by Distill-MOS, 1 to 5",
}
"""The scores, and how they are read."""


class JudgeError(ValueError):
    """A judge that is not installed; the message has the command."""


def require(package: str) -> None:
    """Check that a judge is installed.

    Raises:
        JudgeError: with the command that installs it.
    """
    if find_spec(package) is None:
        raise JudgeError(f"Evaluation needs {package}, which is not installed: {INSTALL[package]}")


def judge_versions(packages: Iterable[str] = tuple(INSTALL)) -> dict[str, str]:
    """Versions of the judges that are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


class WordJudge:
    """Transcribes recordings, several at a time.

    Transcripts are cached in `memory`, so that the recordings of a test set are transcribed once,
    not at every evaluation.
    """

    def __init__(
        self,
        num_processes: int = 2,
        memory: Path | None = None,
        transcribe: Transcribe | None = None,
        name: str = "",
    ) -> None:
        """Start the processes.

        Args:
            num_processes: recordings transcribed at the same time.
            memory: file of earlier transcripts, created if missing; None caches nothing on disk.
            transcribe: default pocketsphinx. Anything else is called in this process.
            name: name and version of `transcribe`, the key of its cached transcripts; without one
                nothing is cached.

        Raises:
            JudgeError: pocketsphinx is not installed.
        """
        if transcribe is None:
            require("pocketsphinx")
        self._transcribe = transcribe
        self._memory = memory
        self._cache = _read_memory(memory)
        own = "pocketsphinx " + judge_versions().get("pocketsphinx", "")
        self.name = own if transcribe is None else name
        self._num_processes = num_processes
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, samples: np.ndarray) -> Future[str]:
        """Transcribe a recording (S,) in -1 .. 1 at 16 kHz; the future gives the text."""
        pcm = (np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
        if self._transcribe is not None and not self.name:
            return _done(self._transcribe(pcm))
        key = hashlib.sha256(self.name.encode() + pcm).hexdigest()[:32]
        if key in self._cache:
            return _done(self._cache[key])
        if self._transcribe is not None:
            transcript = _done(self._transcribe(pcm))
            self._store(key, transcript)
            return transcript
        future = self._open_pool().submit(transcribe_pocketsphinx, pcm)
        future.add_done_callback(lambda done: self._store(key, done))
        return future

    def close(self) -> None:
        """End the processes; what waits is dropped."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> WordJudge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Each process has one core; more threads in it would only get in the others' way.
            os.environ.setdefault("OMP_NUM_THREADS", "1")
            self._pool = ProcessPoolExecutor(
                self._num_processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=end_with_parent,
            )
        return self._pool

    def _store(self, key: str, done: Future[str]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        self._cache[key] = done.result()
        if self._memory is not None:
            with self._memory.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "heard": done.result()}) + "\n")


def transcribe_pocketsphinx(pcm: bytes) -> str:
    """Transcribe 16-bit samples at 16 kHz with pocketsphinx; one decoder per process."""
    decoder = _decoder()
    decoder.start_utt()
    decoder.process_raw(pcm, no_search=False, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return "" if hypothesis is None else hypothesis.hypstr


_DECODERS: list = []


def _decoder():  # noqa: ANN202 (an optional package's class)
    if not _DECODERS:
        from pocketsphinx import Decoder

        _DECODERS.append(Decoder(samprate=SAMPLE_RATE, loglevel="FATAL"))
    return _DECODERS[0]


def _done(text: str) -> Future[str]:
    future: Future[str] = Future()
    future.set_result(text)
    return future


def _read_memory(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    path.parent.mkdir(parents=True, exist_ok=True)
    cache: dict[str, str] = {}
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                cache[row["key"]] = row["heard"]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # A line that was cut off: the recording is transcribed again.
    return cache


def load_recognizer(name: str, device: str = "cpu") -> Transcribe:
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
        return transcribe_pocketsphinx
    if kind == WHISPER and rest:
        return _load_whisper(Path(rest))
    if kind == "transformers" and rest:
        return _load_transformers(rest, device)
    if kind == "paraformer" and rest:
        return _load_paraformer(Path(rest))
    raise JudgeError(f"there is no judge of words {name!r}; there are {', '.join(KINDS)}.")


def recognizer_version(name: str) -> str:
    """Name and version of a recogniser, for reports and the cache of transcripts.

    Weights in a folder are named by it and by the start of their digest, wherever it lies.
    """
    kind, _, rest = name.partition(":")
    package = {"paraformer": "sherpa-onnx", WHISPER: "faster-whisper"}.get(kind, kind)
    shown = name
    weights = Path(rest) / WHISPER_FILES[0]
    if kind == WHISPER and weights.is_file():
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        shown = f"{kind}:{Path(rest).resolve().name} {digest[:8]}"
    return f"{shown} {judge_versions((package,)).get(package, '')}".strip()


def _load_whisper(folder: Path) -> Transcribe:
    require("faster_whisper")
    missing = [name for name in WHISPER_FILES if not (folder / name).is_file()]
    if missing:
        raise JudgeError(
            f"{folder} holds no Whisper in the format of CTranslate2: {', '.join(missing)} "
            "not there. scripts/fetch_judges FOLDER puts Whisper base in place."
        )
    from faster_whisper import WhisperModel

    try:
        model = WhisperModel(str(folder), device="cpu", compute_type="int8")
    except Exception as error:  # of C++ and of Rust, of any kind
        raise JudgeError(f"whisper:{folder} cannot be loaded: {error}") from error

    def transcribe(pcm: bytes) -> str:
        # Without its retries at higher temperatures, which draw at random.
        pieces, _ = model.transcribe(
            samples_of(pcm),
            language="en",
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(piece.text.strip() for piece in pieces)

    return transcribe


def _load_transformers(name: str, device: str) -> Transcribe:
    from transformers import pipeline

    try:
        model = pipeline("automatic-speech-recognition", model=name, device=device)
    except (OSError, ValueError) as error:
        raise JudgeError(f"transformers:{name} cannot be loaded: {error}") from error

    def transcribe(pcm: bytes) -> str:
        # A dict, not an array: the pipeline then knows the rate and resamples where it must.
        result: Any = model({"raw": samples_of(pcm), "sampling_rate": SAMPLE_RATE})
        return str(result["text"]).strip()

    return transcribe


def _load_paraformer(folder: Path) -> Transcribe:
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

    def transcribe(pcm: bytes) -> str:
        stream = recognizer.create_stream()
        stream.accept_waveform(SAMPLE_RATE, samples_of(pcm))
        recognizer.decode_stream(stream)
        return str(stream.result.text).strip()

    return transcribe


def samples_of(pcm: bytes) -> np.ndarray:
    """Samples (S,) in -1 .. 1 of 16-bit ones."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768.0


def load_naturalness(names: str) -> Rate:
    """Load judges of naturalness.

    Args:
        names: `speechmos`, `distillmos`, or both with a comma between.

    Raises:
        JudgeError: there is no such judge, or it is not installed.
    """
    known = {"speechmos": _load_speechmos, "distillmos": _load_distillmos}
    asked = [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in known:
            raise JudgeError(
                f"there is no judge of naturalness {name!r}; there are {', '.join(known)}."
            )
    judges = [known[name]() for name in asked]
    return lambda samples: {name: s for judge in judges for name, s in judge(samples).items()}


def _load_speechmos() -> Rate:
    require("speechmos")
    try:
        import onnxruntime
        from speechmos import dnsmos  # pyright: ignore[reportMissingImports]
    except ImportError as error:  # it declares nothing of what it imports
        raise JudgeError(f"speechmos needs {error.name}: pip install {error.name}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    folder = Path(dnsmos.__file__).parent / "dnsmos_models"
    # Its own sessions take every core and wait in a loop, so that they stall where others work.
    model = dnsmos.DNSMOS.__new__(dnsmos.DNSMOS)
    model.onnx_sess = onnxruntime.InferenceSession(str(folder / "sig_bak_ovr.onnx"), options)
    model.p808_onnx_sess = onnxruntime.InferenceSession(str(folder / "model_v8.onnx"), options)

    def rate(samples: np.ndarray) -> dict[str, float]:
        scores: Any = model(np.clip(samples, -1.0, 1.0), SAMPLE_RATE, False)
        return {P808: float(scores["p808_mos"]), OVRL: float(scores["ovrl_mos"])}

    return rate


def _load_distillmos() -> Rate:
    for package in ("distillmos", "xls_r_sqa"):
        require(package)
    import torch

    with _stand_in("torchaudio"), contextlib.redirect_stdout(io.StringIO()):
        from distillmos import ConvTransformerSQAModel  # pyright: ignore[reportMissingImports]

        model = ConvTransformerSQAModel().eval()

    @torch.inference_mode()
    def rate(samples: np.ndarray) -> dict[str, float]:
        waveform = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        return {DISTILL: float(model(waveform[None]))}

    return rate


@contextlib.contextmanager
def _stand_in(name: str) -> Any:
    """An empty module, while something is imported that imports it and uses none of it here."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]
