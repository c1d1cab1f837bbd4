"""Who may speak now, who waits, who is sent away; and how long a text may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inference.server.errors import ApiError
from inference.server.settings import Limits

RETRY_SECONDS = 2
"""What a client that is sent away is told to wait."""


class Admission:
    """Slots for utterances, given in the order of asking. For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.max_streams)
        self._idle = asyncio.Event()
        self._idle.set()
        self.num_live = 0
        """Utterances with a slot."""
        self.num_waiting = 0
        """Requests that wait for one."""
        self.is_draining = False
        """Whether nobody is let in any more."""

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds a slot while the block runs.

        Raises:
            ApiError: 429, the queue is full or the wait was too long; 503, the server stops.
        """
        await self._enter()
        try:
            yield
        finally:
            self.num_live -= 1
            self._slots.release()
            self._mark()

    async def _enter(self) -> None:
        self.check_open()
        if self._slots.locked() and self.num_waiting >= self._limits.max_queue:
            raise _busy(
                f"{self.num_live} utterances are spoken and {self.num_waiting} requests wait, "
                "which is all that this server takes."
            )
        self.num_waiting += 1
        self._mark()
        try:
            async with asyncio.timeout(self._limits.queue_timeout_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise _busy(
                f"no other utterance ended for {self._limits.queue_timeout_seconds:g} s."
            ) from None
        finally:
            self.num_waiting -= 1
            self._mark()
        self.num_live += 1
        self._mark()

    def check_open(self) -> None:
        """Raises an ApiError with status 503 where the server is about to stop."""
        if self.is_draining:
            raise ApiError(
                503,
                "The server is about to stop and takes no new requests.",
                code="stopping",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )

    async def drain(self, seconds: float) -> bool:
        """Lets nobody in any more and waits for those inside, those in the queue included.

        Returns:
            Whether all ended within the time.
        """
        self.is_draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _mark(self) -> None:
        if self.num_live or self.num_waiting:
            self._idle.clear()
        else:
            self._idle.set()


def _busy(reason: str) -> ApiError:
    return ApiError(
        429,
        f"The server has too much to do: {reason} Try again later.",
        code="busy",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def check_length(num_characters: int, limits: Limits, param: str) -> None:
    """Checks the length of a text.

    Raises:
        ApiError: 413.
    """
    if num_characters > limits.max_text_characters:
        raise ApiError(
            413,
            f"The text has {num_characters} characters; at most {limits.max_text_characters} are "
            "taken at once. Cut it into several requests.",
            param=param,
            code="text_too_long",
        )


__all__ = ["Admission", "check_length"]
