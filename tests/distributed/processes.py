"""Launches that leave nothing behind: neither when their time is over nor when we are told to stop.

A launcher is killed with its ranks, which lead sessions of their own: neither a closed terminal nor
Ctrl-C reaches them, and a launcher that is killed alone leaves them running.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

STOPPING = ("SIGTERM", "SIGHUP")
"""Signals that end a program without a chance to tidy up, beside Ctrl-C, which raises."""


class Stopped(SystemExit):
    """A signal has asked the program to end; the exit status is 128 and its number."""


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let `STOPPING` raise `Stopped` within the block, so that `finally` blocks are run."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(128 + number)

    numbers = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_command(
    command: Sequence[str], *, limit: float, environment: Mapping[str, str], folder: Path
) -> tuple[int, str]:
    """Run a command, and end it with all that it has started, however this is left.

    Args:
        command: Program and arguments.
        limit: Seconds that it may take.
        environment: Added to that of this process.
        folder: Where it runs.

    Returns:
        Exit status, and what was written to both outputs.

    Raises:
        subprocess.TimeoutExpired: If it took longer.
    """
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        # Ctrl-C in a terminal is for this process, which ends the others in an order of its own.
        start_new_session=True,
    ) as started:
        try:
            texts = started.communicate(timeout=limit)
        finally:
            if started.poll() is None:
                end_with_children(started.pid)
    return started.returncode, "".join(texts)


def end_with_children(pid: int) -> None:
    """Kill a process and all that it has started."""
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        found.append(psutil.Process(pid))
    for process in found:  # which grows
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()  # it starts no more children while they are counted
            found += process.children()
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
