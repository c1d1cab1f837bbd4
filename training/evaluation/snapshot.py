"""The frozen list of a script: how engines read its lines, and which lines are left out.

A judge that misses the words of a line even in the plain reading of a classic engine says nothing
about a model on that line. Such lines are left out, and the list is written once, before any model
is judged: `tokenlm evaluate --set hard --freeze`. It lies beside the script, holds the digest of
its texts, and is never overwritten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenlm.atomic import write_text
from tokenlm.audio.resample import resample
from training.corpus.engines import EngineError, Request, Speech, check_voice, speak
from training.evaluation.error_rate import ErrorCount, word_errors
from training.evaluation.judges import SAMPLE_RATE
from training.evaluation.script import Line, Script, ScriptError

EXCLUDED_RATE = 0.2
"""A line is left out when more of its words than this are heard wrongly, whichever engine reads."""
ENGINES = (("flite", "rms"), ("festival", "cmu_us_slt_arctic_hts"))
"""Engines and voices that read: the two that the judge understands best."""

Submit = Callable[[np.ndarray], Future[str]]
Track = Callable[[Iterable[Any]], Iterator[Any]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The best of the engines' readings of a line."""

    voice: str
    heard: str
    errors: int
    words: int
    seconds: float

    @property
    def count(self) -> ErrorCount:
        """Its word errors."""
        return ErrorCount(self.errors, self.words)

    @property
    def is_excluded(self) -> bool:
        """Whether its line is left out."""
        return self.count.rate > EXCLUDED_RATE


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What is fixed about a script before anything is judged on it."""

    digest: str
    """Of the script."""
    judge: str
    readings: dict[str, Reading]
    """By id of the line."""
    voices: tuple[str, ...] = ()
    """Voices of a corpus to which the lines were dealt (`training.evaluation.dealt`); none where
    the engines read in their own."""

    @property
    def excluded(self) -> set[str]:
        """Ids of the lines that are left out."""
        return {name for name, reading in self.readings.items() if reading.is_excluded}

    @property
    def num_remaining(self) -> int:
        """Lines that are judged."""
        return len(self.readings) - len(self.excluded)


def frozen_path(script: Script, dealt: bool = False) -> Path:
    """Where the list of a script lies, or that of its lines dealt to voices."""
    return script.path.with_name(f"{script.path.stem}.{'voices' if dealt else 'frozen'}.json")


def read_frozen(script: Script, dealt: bool = False) -> Frozen | None:
    """The list of a script; None where it was never frozen.

    Raises:
        ScriptError: the list is not one, or belongs to other texts.
    """
    path = frozen_path(script, dealt)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        frozen = Frozen(
            digest=data["digest"],
            judge=data["judge"],
            readings={name: Reading(**row) for name, row in data["readings"].items()},
            voices=tuple(data.get("voices", ())),
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ScriptError(f"{path} is not the frozen list of a test set: {error}") from error
    if frozen.digest != script.digest:
        raise ScriptError(
            f"{path} was frozen for other texts than {script.path} holds now. Figures of both "
            "cannot be compared: undo the change, or remove the list and freeze it again."
        )
    return frozen


def write_frozen(script: Script, frozen: Frozen) -> Path:
    """Write the list beside its script.

    Raises:
        ScriptError: there is one already.
    """
    path = frozen_path(script, bool(frozen.voices))
    if path.exists():
        raise ScriptError(f"{script.path} is frozen already, in {path}.")
    rows = {name: asdict(reading) for name, reading in frozen.readings.items()}
    voices = {"voices": frozen.voices} if frozen.voices else {}
    head = {
        "digest": frozen.digest,
        "judge": frozen.judge,
        **voices,
        "excluded": sorted(frozen.excluded),
    }
    # One line for each reading, so that a change can be read.
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    text = json.dumps(head, indent=1)[:-2] + ',\n "readings": {\n' + lines + "\n }\n}\n"
    write_text(path, text)
    return path


def freeze(
    script: Script,
    submit: Submit,
    judge: str,
    track: Track = iter,
    engines: Sequence[tuple[str, str]] = ENGINES,
) -> Frozen:
    """Let engines read a script and the judge hear it.

    Args:
        script: to be frozen.
        submit: the judge of words.
        judge: its name and version.
        track: shows how far it is.
        engines: engines and voices that read; each is asked for the lines that those before it
            did not make clear, and the best reading counts.

    Raises:
        EngineError: an engine is not installed, or cannot say a line.
    """
    for engine, voice in engines:
        check_voice(engine, voice)
    readings: dict[str, Reading] = {}
    for engine, voice in engines:
        # A line that one engine made clear needs no other.
        left = [
            line
            for line in script.lines
            if line.id not in readings or readings[line.id].is_excluded
        ]
        waiting = [(line, *_submit(line, submit, engine, voice)) for line in track(left)]
        for line, seconds, future in waiting:
            heard = future.result()
            count = word_errors(line.spoken, heard)
            reading = Reading(
                voice=f"{engine} {voice}",
                heard=heard,
                errors=count.errors,
                words=count.length,
                seconds=round(seconds, 3),
            )
            best = readings.get(line.id)
            if best is None or reading.errors < best.errors:
                readings[line.id] = reading
    ordered = {line.id: readings[line.id] for line in script.lines}
    return Frozen(digest=script.digest, judge=judge, readings=ordered)


def _submit(line: Line, submit: Submit, engine: str, voice: str) -> tuple[float, Future[str]]:
    spoken = speak(engine, [Request(text=readable(line), voice=voice)])[0]
    if isinstance(spoken, EngineError):
        raise spoken
    samples = as_heard(spoken)
    return len(samples) / SAMPLE_RATE, submit(samples)


def readable(line: Line) -> str:
    """The text with its marks, or the spoken form: how an engine reads figures is not judged."""
    bare = re.sub(r"[^\w\s',.?!;:]", " ", line.text)
    is_plain = " ".join(re.sub(r"[^\w\s']", " ", line.text).lower().split()) == line.spoken
    return bare if is_plain else line.spoken


def as_heard(spoken: Speech) -> np.ndarray:
    """Samples (S,) at the rate of the judge."""
    waveform = torch.from_numpy(spoken.waveform.copy())
    return resample(waveform, spoken.sample_rate, SAMPLE_RATE).numpy()
