"""Judging a system on a script: it speaks every line, and the judges say how it went.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenlm.audio.io import save_audio
from tokenlm.audio.level import trim_silence
from tokenlm.audio.resample import resample
from tokenlm.modules.noise import mix
from training.evaluation.error_rate import char_errors, is_catastrophic, word_errors
from training.evaluation.faults import find_faults
from training.evaluation.frozen import Frozen
from training.evaluation.judges import SAMPLE_RATE, VoiceJudge
from training.evaluation.script import Line, Script
from training.evaluation.speaker_score import similarity

Track = Callable[[Iterable[Any]], Iterator[Any]]

MIN_SECONDS = 0.1
"""Shorter speech is filled up with silence, so that the judges take it."""


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """What a system made of a line."""

    waveform: Tensor
    """(S,)"""
    work_seconds: float
    """By the clock."""
    processor_seconds: float | None = None
    """Of all cores; None where something else than they did the work."""
    first_audio_seconds: float | None = None
    """Until the first sound, where the system streams."""


@dataclass(frozen=True, kw_only=True)
class PromptFacts:
    """What the judges know of the prompt of a line."""

    name: str
    text: str
    embedding: np.ndarray | None
    """(E,) None where nothing of it can be heard."""


class System:
    """Speaks lines. Anything with these three can be judged; `CloningSystem` is ours."""

    sample_rate: int
    """Of its waveforms, in hertz."""

    def speak(self, number: int, line: Line, seed: int) -> Spoken:
        """Line `number` of its script; the same seed gives the same speech."""
        raise NotImplementedError

    def prompt(self, number: int, line: Line) -> PromptFacts:
        """The prompt that the line is spoken after."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The judges of a script."""

    submit: Callable[[np.ndarray], Future[str]]
    """Words."""
    embed: VoiceJudge
    """Speakers."""
    naturalness: Callable[[np.ndarray], float] | None = None


def judge_script(
    system: System,
    script: Script,
    panel: Panel,
    *,
    frozen: Frozen | None = None,
    seeds: Sequence[int] = (0,),
    limit: int | None = None,
    audio_folder: Path | None = None,
    track: Track = iter,
) -> list[dict[str, Any]]:
    """Let a system speak a script, and the judges hear it.

    Args:
        system: what is judged.
        script: the lines.
        panel: the judges.
        frozen: leaves out lines, and says how engines read the others.
        seeds: every line is spoken once with each.
        limit: lines that are spoken, spread evenly over the script; None takes all.
        audio_folder: keeps the speech as `<line>-<seed>.wav`; None keeps nothing.
        track: shows how far it is.

    Returns:
        One row for each line and seed.
    """
    lines = chosen_lines(script, frozen, limit)
    jobs = [(seed, number, line) for seed in seeds for number, line in lines]
    waiting = []
    for seed, number, line in track(jobs):
        spoken = system.speak(number, line, mix(seed, number))
        rate = system.sample_rate
        path = None
        if audio_folder is not None:
            audio_folder.mkdir(parents=True, exist_ok=True)
            path = audio_folder / f"{line.id}-{seed}.wav"
            save_audio(path, spoken.waveform, rate)
        samples = audible(spoken.waveform, rate)
        natural = None if panel.naturalness is None else panel.naturalness(samples)
        row = {
            "section": "script",
            "group": script.name,
            "item": line.id,
            "seed": seed,
            "category": line.category,
            "text": line.text,
            "spoken": line.spoken,
            "seconds": round(spoken.waveform.shape[0] / rate, 3),
            "work_seconds": round(spoken.work_seconds, 4),
            "audio": None if path is None else str(path),
        }
        if spoken.processor_seconds is not None:
            row["processor_seconds"] = round(spoken.processor_seconds, 4)
        if spoken.first_audio_seconds is not None:
            row["first_audio_seconds"] = round(spoken.first_audio_seconds, 4)
        if natural is not None:
            row["naturalness"] = round(natural, 4)
        embedding = panel.embed(samples)
        speech_seconds = len(trim_silence(torch.from_numpy(samples), SAMPLE_RATE)) / SAMPLE_RATE
        row["speaking_rate"] = round(len(line.spoken) / max(speech_seconds, MIN_SECONDS), 3)
        waiting.append((row, line, system.prompt(number, line), embedding, panel.submit(samples)))
    return [
        _finish(row, line, prompt, embedding, future.result(), frozen)
        for row, line, prompt, embedding, future in waiting
    ]


def chosen_lines(
    script: Script, frozen: Frozen | None, limit: int | None = None
) -> list[tuple[int, Line]]:
    """Lines that are judged, with their number in the script."""
    excluded = set() if frozen is None else frozen.excluded
    kept = [(n, line) for n, line in enumerate(script.lines) if line.id not in excluded]
    if limit is None or limit >= len(kept):
        return kept
    return [kept[index * len(kept) // limit] for index in range(limit)]


def audible(waveform: Tensor, sample_rate: int) -> np.ndarray:
    """Samples (S,) at the rate of the judges, never too few for them."""
    samples = resample(waveform, sample_rate, SAMPLE_RATE).numpy()
    missing = int(MIN_SECONDS * SAMPLE_RATE) - len(samples)
    return np.pad(samples, (0, missing)) if missing > 0 else samples


def _finish(
    row: dict[str, Any],
    line: Line,
    prompt: PromptFacts,
    embedding: np.ndarray,
    heard: str,
    frozen: Frozen | None,
) -> dict[str, Any]:
    words, characters = word_errors(line.spoken, heard), char_errors(line.spoken, heard)
    reading = None if frozen is None else frozen.readings.get(line.id)
    row |= {
        "prompt": prompt.name,
        "heard": heard,
        "errors": words.errors,
        "words": words.length,
        "char_errors": characters.errors,
        "characters": characters.length,
        "word_error_rate": round(words.rate, 4),
        "catastrophic": is_catastrophic(words, None if reading is None else reading.count),
        "faults": find_faults(line.spoken, heard, prompt.text),
    }
    if prompt.embedding is not None:
        row["similarity"] = round(similarity(embedding, prompt.embedding), 4)
    if reading is not None:
        row["engine_errors"] = reading.errors
    return row


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._processor_start = time.process_time()

    def __call__(self) -> float:
        """Seconds so far, by the clock."""
        return time.perf_counter() - self._start

    def processor(self) -> float:
        """Seconds of all cores that this process took so far: the load of the machine is not in."""
        return time.process_time() - self._processor_start
