"""What a command shows beside its results, on the error stream: log lines and progress."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

DELAY_SECONDS = 2.0

Item = TypeVar("Item")


def show_logs() -> None:
    """Show what training logs from INFO on, and everything else from WARNING on."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)


def show_details() -> None:
    """Log all that the project does, with times and modules."""
    logging.basicConfig(format="%(message)s")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter("%(relativeCreated)d ms %(name)s: %(message)s"))
    for name in ("tokenlm", "inference", "training"):
        logging.getLogger(name).setLevel(logging.DEBUG)


def track(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Yield the items, and show how many of them are done."""
    with ProgressBar(description) as progress:
        for number, item in enumerate(items):
            progress.update(number / len(items))
            yield item


class ProgressBar:
    """A progress bar on the error stream, from the third second on, where that is a terminal.

    `update` takes the share that is done; without any call the bar only moves.
    """

    def __init__(
        self,
        description: str,
        *,
        delay_seconds: float = DELAY_SECONDS,
        console: Console | None = None,
    ) -> None:
        self._console = console
        self._state: dict[str, Any] = {"description": description, "total": None}
        self._progress: Progress | None = None
        self._timer = threading.Timer(delay_seconds, self._show)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._ended = False

    def update(self, share: float) -> None:
        """Moves the bar.

        Args:
            share: what is done, from 0 to 1.
        """
        self._change(total=1.0, completed=share)

    def describe(self, description: str) -> None:
        """Says what is being done now."""
        self._change(description=description)

    @property
    def is_shown(self) -> bool:
        """Whether the bar is on the screen."""
        return self._progress is not None

    def _change(self, **facts: Any) -> None:
        with self._lock:
            self._state.update(facts)
            if self._progress is not None:
                self._progress.update(self._progress.task_ids[0], **facts)

    def _show(self) -> None:
        if self._console is None and not sys.stderr.isatty():
            return
        # Imported by those who wait alone.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = self._console or Console(stderr=True)
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        with self._lock:
            if not self._ended and console.is_terminal:
                bar.add_task(**self._state)
                bar.start()
                self._progress = bar

    def __enter__(self) -> ProgressBar:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._ended = True
            bar, self._progress = self._progress, None
        if bar is not None:
            bar.stop()
