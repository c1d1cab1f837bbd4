"""The text of an utterance while it is being written."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable

from inference.server.messages import SessionConfig
from tokenlm.text.incremental import PARAGRAPH_END

_SENTENCE_END = re.compile(r"[.?!…。？！][\"'”’»)\]」』*_]*\s*\Z")
_TAIL_CHARACTERS = 240
"""Of the text, what is looked at to know whether a sentence has ended."""
_PROBES = (" The", " Smith")
"""What might follow: where it would change what has been read, no sentence has ended."""


class TextFeed:
    """Pieces of text, put in by the reader of a socket and taken out by the engine.

    Where the writer pauses behind a whole sentence, `PARAGRAPH_END` is given out: the sentence is
    then spoken, and what may still come begins a paragraph.
    """

    def __init__(
        self,
        number: int,
        settings: SessionConfig,
        pause_seconds: float | None,
        words: Callable[[str], list[str]],
    ) -> None:
        """Takes what belongs to the utterance, and how its text is read.

        Args:
            number: of the utterance in its session, from 0.
            settings: those that held when it began.
            pause_seconds: the pause that ends a paragraph; None is never.
            words: the words of a text as they are spoken.
        """
        self.number = number
        self.settings = settings
        self.num_characters = 0
        """Characters put in so far."""
        self.is_complete = False
        """Whether nothing more will come."""
        self._pause_seconds = pause_seconds
        self._words = words
        self._tail = ""
        """The last of what was taken out, as far as it may belong to a sentence."""
        self._pieces: deque[str] = deque()
        self._news = asyncio.Event()

    def put(self, piece: str) -> None:
        """Adds a piece."""
        assert not self.is_complete
        self.num_characters += len(piece)
        self._pieces.append(piece)
        self._news.set()

    def complete(self) -> None:
        """Says that nothing more will come; may be said again."""
        self.is_complete = True
        self._news.set()

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        """The next piece, or `PARAGRAPH_END` where none comes for a while."""
        if await self._is_paused():
            self._tail = ""
            return PARAGRAPH_END
        await self._until_news()
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.popleft()
        self._tail = (self._tail + piece)[-_TAIL_CHARACTERS:]
        return piece

    async def _is_paused(self) -> bool:
        """Whether nothing comes for a while behind a whole sentence."""
        if self._pause_seconds is None or not _SENTENCE_END.search(self._tail):
            return False
        try:
            async with asyncio.timeout(self._pause_seconds):
                await self._until_news()
        except TimeoutError:
            # Asked no more often than there are pauses: it takes some time.
            is_whole = await asyncio.to_thread(ends_sentence, self._tail, self._words)
            return is_whole and not self._pieces and not self.is_complete
        return False

    async def _until_news(self) -> None:
        while not self._pieces and not self.is_complete:
            self._news.clear()
            await self._news.wait()


def ends_sentence(text: str, words: Callable[[str], list[str]]) -> bool:
    """Whether a text ends with a sentence that is whole, as far as one can tell.

    "I saw Dr." does not: with a name behind it, another word would be read than without. Nor does a
    number alone, which may be that of an item, or have a fraction.

    Args:
        text: the last of what was written.
        words: the words of a text as they are spoken.
    """
    if not _SENTENCE_END.search(text):
        return False
    # A cut word in front is read the same every time.
    spoken = words(text.strip())
    if not spoken or not spoken[-1].rstrip("\"'”’»)]」』").endswith(tuple(".?!…。？！")):
        return False
    if not any(character.isalpha() for character in re.split(r"[.?!…。？！]\s", text.strip())[-1]):
        return False
    return all(words(text.rstrip() + probe)[: len(spoken)] == spoken for probe in _PROBES)


__all__ = ["TextFeed", "ends_sentence"]
