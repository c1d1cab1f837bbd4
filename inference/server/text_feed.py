"""The text of an utterance while it is being written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from inference.server.messages import SessionConfig


class TextFeed:
    """Pieces of text, put in by the reader of a socket and taken out by the engine."""

    def __init__(self, number: int, settings: SessionConfig) -> None:
        self.number = number
        """Of the utterance in its session, from 0."""
        self.settings = settings
        """Those that held when it began."""
        self.num_characters = 0
        """Characters put in so far."""
        self.is_complete = False
        """Whether nothing more will come."""
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def put(self, piece: str) -> None:
        """Adds a piece."""
        assert not self.is_complete
        self.num_characters += len(piece)
        self._pieces.put_nowait(piece)

    def complete(self) -> None:
        """Says that nothing more will come; may be said again."""
        if not self.is_complete:
            self.is_complete = True
            self._pieces.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        """The next piece."""
        piece = await self._pieces.get()
        if piece is None:
            self._pieces.put_nowait(None)  # whoever asks again hears the same
            raise StopAsyncIteration
        return piece
