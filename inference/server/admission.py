"""Admission: which requests are served now, which wait, and which are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inference.server.errors import ApiError
from inference.server.settings import Limits

RETRY_SECONDS = 2
"""Value of `Retry-After` for a client that is refused."""


class Admission:
    """Slots for speech streams, given in the order of requests. For one event loop."""

    def __init__(self, limits: Limits) -> None:
        """Creates free slots.

        Args:
            limits: how many slots there are, how many requests may wait for one, and how long.
        """
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.max_streams)
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self.num_live = 0
        """Streams with a slot."""
        self.num_waiting = 0
        """Requests in the queue."""
        self.is_draining = False
        """Whether new requests are refused because the server stops."""

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds a slot while the block runs.

        Raises:
            ApiError: 429, the queue is full or the wait was too long; 503, the server stops.
        """
        await self._acquire()
        try:
            yield
        finally:
            self.num_live -= 1
            self._slots.release()
            self._update_idle()

    async def _acquire(self) -> None:
        self.check_open()
        if self._slots.locked() and self.num_waiting >= self._limits.max_queue:
            raise _busy(
                f"{self.num_live} utterances are spoken and {self.num_waiting} requests wait, "
                "which is all that this server takes."
            )
        self.num_waiting += 1
        self._update_idle()
        try:
            async with asyncio.timeout(self._limits.queue_timeout_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise _busy(
                f"no other utterance ended for {self._limits.queue_timeout_seconds:g} s."
            ) from None
        finally:
            self.num_waiting -= 1
            self._update_idle()
        self.num_live += 1
        self._update_idle()

    def check_open(self) -> None:
        """Raises an ApiError with status 503 if the server is about to stop."""
        if self.is_draining:
            raise ApiError(
                503,
                "The server is about to stop and takes no new requests.",
                code="stopping",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )

    async def drain(self, seconds: float) -> bool:
        """Refuses new requests and waits for those that are served or in the queue.

        Returns:
            Whether all ended within the time.
        """
        self.is_draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._is_idle.wait()
        except TimeoutError:
            return False
        return True

    def _update_idle(self) -> None:
        if self.num_live or self.num_waiting:
            self._is_idle.clear()
        else:
            self._is_idle.set()


def _busy(reason: str) -> ApiError:
    return ApiError(
        429,
        f"The server has too much to do: {reason} Try again later.",
        code="busy",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


__all__ = ["Admission"]
