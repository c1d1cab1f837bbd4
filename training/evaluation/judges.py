"""The judges of words and of speakers. Neither takes part in any training.

Words are judged by pocketsphinx with its own English model, in processes of their own; speakers by
the voice encoder of resemblyzer. Both bring their weights along in their packages.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tokenlm.installation import install_command
from training.loop.workers import end_with_parent

SAMPLE_RATE = 16_000
"""What both judges listen to, in hertz."""

INSTALL = {
    "jiwer": install_command("eval"),
    "pocketsphinx": install_command("eval"),
    # Its declared dependencies do not build everywhere, and only its weights are used.
    "resemblyzer": "pip install --no-deps resemblyzer",
    "sherpa_onnx": "pip install sherpa-onnx",
    "speechmos": "pip install speechmos",
}
"""The command that installs each judge."""

VoiceJudge = Callable[[np.ndarray], np.ndarray]
"""Samples (S,) in -1 .. 1 at 16 kHz to an embedding (E,)."""


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
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


class WordJudge:
    """Writes down what it hears, several recordings at a time.

    A recording that was heard before is looked up in `memory`, so that the engine's own readings
    are transcribed once, not at every check.
    """

    def __init__(
        self,
        num_processes: int = 2,
        memory: Path | None = None,
        hear: Callable[[bytes], str] | None = None,
        name: str = "",
    ) -> None:
        """Start the processes.

        Args:
            num_processes: recordings judged at the same time.
            memory: file of earlier transcripts, made where there is none; None remembers nothing.
            hear: 16-bit samples to text; None takes pocketsphinx. Anything else is called in this
                process.
            name: what `hear` is, for the memory; without one nothing of it is remembered.

        Raises:
            JudgeError: pocketsphinx is not installed.
        """
        if hear is None:
            require("pocketsphinx")
        self._hear = hear
        self._memory = memory
        self._known = _read_memory(memory)
        own = "pocketsphinx " + judge_versions().get("pocketsphinx", "")
        self.name = own if hear is None else name
        self._num_processes = num_processes
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, samples: np.ndarray) -> Future[str]:
        """Judge a recording (S,) in -1 .. 1 at 16 kHz; the text comes when it is done."""
        pcm = (np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
        if self._hear is not None and not self.name:
            return _done(self._hear(pcm))
        key = hashlib.sha256(self.name.encode() + pcm).hexdigest()[:32]
        if key in self._known:
            return _done(self._known[key])
        if self._hear is not None:
            heard = _done(self._hear(pcm))
            self._remember(key, heard)
            return heard
        future = self._open_pool().submit(hear_words, pcm)
        future.add_done_callback(lambda done: self._remember(key, done))
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

    def _remember(self, key: str, done: Future[str]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        self._known[key] = done.result()
        if self._memory is not None:
            with self._memory.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "heard": done.result()}) + "\n")


def hear_words(pcm: bytes) -> str:
    """What pocketsphinx hears in 16-bit samples at 16 kHz; one decoder per process."""
    decoder = _decoder()
    decoder.start_utt()
    decoder.process_raw(pcm, no_search=False, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return "" if found is None else found.hypstr


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
    known: dict[str, str] = {}
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                known[row["key"]] = row["heard"]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # A line that was cut off: the recording is heard again.
    return known
