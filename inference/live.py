"""What an engine knows of a stream that is being spoken.

Shapes: S samples.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from torch import Tensor

from tokenlm.synthesis.session import Session

URGENT_SECONDS = 0.6
"""A stream with less sound in hand than this is rendered at once; others wait for company."""


class EngineError(RuntimeError):
    """The engine cannot take or finish a stream: it is full, or has been closed."""


class Live:
    """What the worker knows of a stream. It holds no reference to the stream itself."""

    def __init__(self, session: Session, limit_seconds: float, notify: Callable[[], None]) -> None:
        self.session = session
        self.limit_seconds = limit_seconds
        self.notify = notify
        """Tells the reader's event loop that there is something new."""
        self.feeder: asyncio.Task[None] | None = None
        """Reads the text while it comes in."""
        self.chunks: deque[Tensor] = deque()
        self.buffered_seconds = 0.0
        self.made_seconds = 0.0
        self.started_at: float | None = None
        """When the first sound was ready."""
        self.error: BaseException | None = None
        self.is_finished = False
        """Nothing more will come."""
        self.is_cancelled = False

    def stop_feeding(self) -> None:
        """Nothing more of the text is wanted. May be called in any thread."""
        feeder = self.feeder
        if feeder is not None:
            try:
                feeder.get_loop().call_soon_threadsafe(feeder.cancel)
            except RuntimeError:  # the loop has been closed, and its tasks with it
                pass

    @property
    def is_paused(self) -> bool:
        """Whether the reader is too slow to be given more."""
        return self.buffered_seconds >= self.limit_seconds

    @property
    def is_urgent(self) -> bool:
        """Whether a player that was started with the first sound would soon run dry."""
        if self.started_at is None:
            return True
        return self.made_seconds - (time.monotonic() - self.started_at) < URGENT_SECONDS


def notifier(loop: asyncio.AbstractEventLoop, ready: asyncio.Event) -> Callable[[], None]:
    """What sets `ready` from any thread."""

    def notify() -> None:
        try:
            loop.call_soon_threadsafe(ready.set)
        except RuntimeError:  # the loop has been closed: nobody listens
            pass

    return notify
