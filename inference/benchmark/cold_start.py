"""Cold starts: time from the start of a process to its end, of speech, help and mistakes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SENTENCE = "Hello there, this is one sentence."


@dataclass(frozen=True)
class Command:
    """A command line that is run in a new process."""

    name: str
    """As the report names it."""
    words: tuple[str, ...]
    """Arguments of `tokenlm`."""
    status: int
    """Exit status that is expected."""
    floor: float
    """Most wall seconds, on two idle cores."""
    aim: float
    """Wall seconds that should not be exceeded."""


@dataclass(frozen=True)
class Runs:
    """Times of the runs of a command."""

    command: Command
    wall_seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    """Processor time of the process and its children."""

    @property
    def cpu_median(self) -> float:
        """Median processor seconds."""
        return statistics.median(self.cpu_seconds)


def commands(bundle: Path, output: Path) -> list[Command]:
    """The commands that are measured with a bundle; speech is written to `output`."""
    own, gone = ("--bundle", str(bundle)), str(output.with_name("gone.wav"))
    return [
        Command("a sentence in a file", ("say", SENTENCE, "-o", str(output), *own), 0, 4.0, 2.8),
        Command("help", ("--help",), 0, 0.5, 0.5),
        Command("an unknown option", ("say", "Hello.", "--loud"), 2, 0.5, 0.5),
        Command("an unknown voice", ("say", "Hello.", "--voice", "nobody", *own), 2, 0.5, 0.5),
        Command(
            "a missing recording",
            ("transcribe", gone, *own),
            2,
            0.5,
            0.5,
        ),
        Command("an empty text", ("say", " ", *own), 2, 0.5, 0.5),
    ]


def measure_cold_starts(bundle: Path, num_runs: int) -> list[Runs]:
    """Runs every command `num_runs` times, in turns; a run before them reads the files into memory.

    Raises:
        ValueError: a command ends with another status than it should.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked = commands(bundle, Path(folder) / "out.wav")
        _run(asked[0].words, asked[0].status)
        times: list[list[tuple[float, float]]] = [[] for _ in asked]
        for _ in range(num_runs):
            for command, taken in zip(asked, times, strict=True):
                taken.append(_run(command.words, command.status))
    return [
        Runs(command, tuple(wall for wall, _ in taken), tuple(cpu for _, cpu in taken))
        for command, taken in zip(asked, times, strict=True)
    ]


def _run(words: Sequence[str], status: int) -> tuple[float, float]:
    """Seconds of one run, by the clock and of the processor."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tokenlm", *words], capture_output=True, text=True, check=False
    )
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode != status:
        raise ValueError(
            f"tokenlm {' '.join(words)} ended with status {done.returncode}, not {status}: "
            + done.stderr.strip()
        )
    cpu = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    return seconds, cpu
