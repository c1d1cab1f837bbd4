"""A progress bar that shows itself only when there is something to wait for."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

DELAY_SECONDS = 2.0


class DelayedProgress:
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
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(description, total=None)
        self._timer = threading.Timer(delay_seconds, self._show)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._ended = False

    def update(self, share: float) -> None:
        """Moves the bar.

        Args:
            share: what is done, from 0 to 1.
        """
        self._progress.update(self._task, total=1.0, completed=share)

    def describe(self, description: str) -> None:
        """Says what is being done now."""
        self._progress.update(self._task, description=description)

    @property
    def is_shown(self) -> bool:
        """Whether the bar is on the screen."""
        return self._progress.live.is_started

    def _show(self) -> None:
        with self._lock:
            if not self._ended and self._progress.console.is_terminal:
                self._progress.start()

    def __enter__(self) -> DelayedProgress:
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
        if self.is_shown:
            self._progress.stop()
