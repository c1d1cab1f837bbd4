"""Text that is still being written."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from tokenlm.text.segmentation import PARAGRAPH_END

_SENTENCE_END = re.compile(r"[.?!…。？！][\"'”’»)\]」』*_]*\s*\Z")
_TAIL_CHARACTERS = 240
"""Length of the end of the text that is read to find out whether a sentence has ended."""
_PROBES = (" The", " Smith")
"""Possible continuations: if one changes how the text before it is read, no sentence has ended."""


class TextFeed(AsyncIterator[str]):
    """A queue of pieces of text, from the reader of a socket to the engine.

    After a pause behind a whole sentence it gives `PARAGRAPH_END`: the sentence is then spoken, and
    what follows begins a paragraph.
    """

    def __init__(
        self, pause_seconds: float | None, spoken_words: Callable[[str], list[str]]
    ) -> None:
        """Makes an empty feed.

        Args:
            pause_seconds: the pause that ends a paragraph; None is never.
            spoken_words: the words of a text as they are spoken.
        """
        self.num_characters = 0
        """Characters put in so far."""
        self.is_complete = False
        """Whether nothing more will come."""
        self._pause_seconds = pause_seconds
        self._spoken_words = spoken_words
        self._tail = ""
        """End of the text that was taken out since the last paragraph end."""
        self._pieces: deque[str] = deque()
        self._num_given = 0
        """Characters that were taken out, paragraph ends among them."""
        self._breaks: list[int] = []
        """Which of these are paragraph ends that no client wrote."""
        self._changed = asyncio.Event()

    def put(self, piece: str) -> None:
        """Adds a piece."""
        assert not self.is_complete
        self.num_characters += len(piece)
        self._pieces.append(piece)
        self._changed.set()

    def complete(self) -> None:
        """Marks the end of the text. May be called again."""
        self.is_complete = True
        self._changed.set()

    async def __anext__(self) -> str:
        """The next piece, or `PARAGRAPH_END` after a pause."""
        if await self._is_paused():
            self._tail = ""
            self._breaks.append(self._num_given)
            self._num_given += 1
            return PARAGRAPH_END
        await self._wait_for_piece()
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.popleft()
        self._num_given += len(piece)
        self._tail = (self._tail + piece)[-_TAIL_CHARACTERS:]
        return piece

    def as_written(self, word: dict[str, Any]) -> dict[str, Any]:
        """A timed word with its place in what the client wrote."""
        places = {
            name: word[name] - bisect_left(self._breaks, word[name])
            for name in ("text_start", "text_end")
        }
        return word | places

    async def _is_paused(self) -> bool:
        """Whether a pause follows a whole sentence."""
        if self._pause_seconds is None or not _SENTENCE_END.search(self._tail):
            return False
        try:
            async with asyncio.timeout(self._pause_seconds):
                await self._wait_for_piece()
        except TimeoutError:
            # Slow, so it runs once per pause.
            is_whole = await asyncio.to_thread(ends_sentence, self._tail, self._spoken_words)
            return is_whole and not self._pieces and not self.is_complete
        return False

    async def _wait_for_piece(self) -> None:
        while not self._pieces and not self.is_complete:
            self._changed.clear()
            await self._changed.wait()


def ends_sentence(text: str, spoken_words: Callable[[str], list[str]]) -> bool:
    """Whether a text ends with a whole sentence, as far as that can be decided.

    "I saw Dr." does not: a name behind it would change how it is read. Nor does a number alone,
    which may be that of a list item, or have a fraction.

    Args:
        text: the end of what was written.
        spoken_words: the words of a text as they are spoken.
    """
    if not _SENTENCE_END.search(text):
        return False
    # A word that is cut at the start is read the same every time.
    spoken = spoken_words(text.strip())
    if not spoken or not spoken[-1].rstrip("\"'”’»)]」』").endswith(tuple(".?!…。？！")):
        return False
    if not any(character.isalpha() for character in re.split(r"[.?!…。？！]\s", text.strip())[-1]):
        return False
    return all(spoken_words(text.rstrip() + probe)[: len(spoken)] == spoken for probe in _PROBES)


__all__ = ["TextFeed", "ends_sentence"]
