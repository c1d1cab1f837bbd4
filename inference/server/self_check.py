"""Whether the models speak: what the last utterance showed, and an own try where it failed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from inference.engine import EngineError
from inference.server.errors import ApiError

RETRY_SECONDS = 5.0
"""After a failure, how long `look_again` waits for somebody else's utterance to succeed."""

_log = logging.getLogger("uvicorn.error")


class SelfCheck:
    """What `/health` says of the models. For one event loop."""

    def __init__(self, speak: Callable[[], Awaitable[None]], timeout_seconds: float) -> None:
        """Takes what speaks a short sentence to its end, and how long that may take."""
        self.reason: str | None = None
        """Why the server is not fit to speak; None where it is."""
        self._speak = speak
        self._timeout_seconds = timeout_seconds
        self._looked_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def note(self, error: BaseException | None) -> None:
        """Takes notice of an utterance that has ended: well, or with an error.

        An error that is the client's, or that comes of too many clients, says nothing.
        """
        if error is None:
            if self.reason is not None:
                _log.info("the models speak again")
            self.reason = None
        elif is_internal(error):
            told = error.message if isinstance(error, ApiError) else type(error).__name__
            self.reason = f"the last utterance failed: {told}"
            self._looked_at = time.monotonic()

    async def run(self) -> None:
        """Speaks, and takes notice of how that ended."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._speak()
        except TimeoutError:
            self.note(ApiError(500, f"nothing came for {self._timeout_seconds:g} s."))
            _log.error("the server cannot speak: %s", self.reason)
        except Exception as error:
            self.note(error)
            if is_internal(error):
                _log.exception("the server cannot speak")
        else:
            self.note(None)

    def look_again(self) -> None:
        """Speaks in the background where the last utterance failed a while ago."""
        is_running = self._task is not None and not self._task.done()
        if self.reason is None or is_running:
            return
        if time.monotonic() - self._looked_at >= RETRY_SECONDS:
            self._task = asyncio.get_running_loop().create_task(self.run())

    async def close(self) -> None:
        """Ends what runs in the background."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


def is_internal(error: BaseException) -> bool:
    """Whether an error tells that the models fail, and not that a request asks too much."""
    if isinstance(error, ApiError):
        return error.status == 500
    return isinstance(error, Exception) and not isinstance(
        error, (ValueError, EngineError, TimeoutError)
    )


__all__ = ["SelfCheck", "is_internal"]
