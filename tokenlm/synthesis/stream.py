"""Streams: speech as it is made, for loops and for event loops.

Shapes: S samples.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor

from tokenlm.synthesis.session import Session
from tokenlm.synthesis.words import TimedWord
from tokenlm.text.markup import Style

ResultT = TypeVar("ResultT")


class SessionStream:
    """Properties of every stream of a session."""

    def __init__(self, session: Session, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._session = session

    @property
    def seed(self) -> int:
        """Seed of its draws, also one that was drawn."""
        return self._session.settings.seed

    @property
    def speech_tokens(self) -> list[list[int]]:
        """Speech tokens of each segment so far.

        With `pauses` and `styles` they are all that `Synthesizer.render` needs.
        """
        return [list(tokens) for tokens in self._session.speech_tokens]

    @property
    def pauses(self) -> list[float]:
        """Seconds of silence before each segment so far, and behind them those at the end."""
        return list(self._session.pauses)

    @property
    def styles(self) -> list[Style]:
        """Styles of each segment so far, as the markup asks for."""
        return list(self._session.styles)

    @property
    def words(self) -> list[TimedWord]:
        """Words so far with their times, if the request asks for them; none ever changes."""
        return self._session.words

    @property
    def num_text_tokens(self) -> int:
        """Text tokens so far."""
        return self._session.text.num_text_tokens

    @property
    def foreign_words(self) -> list[str]:
        """Words so far that are left out; see `SegmentedText.foreign_words`."""
        return list(self._session.text.foreign_words)

    @property
    def unlisted_words(self) -> list[str]:
        """Words so far that no lexicon lists, so that they are said by rule, each once."""
        return self._session.unlisted_words

    @property
    def num_state_bytes(self) -> int:
        """Memory of the session without the cache of the LM; it does not grow."""
        return self._session.num_bytes

    @property
    def num_cache_bytes(self) -> int:
        """Memory of the LM's cache, which grows with the segment."""
        return self._session.num_cache_bytes


class SynthesisStream(SessionStream, Iterator[Tensor]):
    """Chunks of a waveform, float32 (S,) on the CPU, made when they are asked for.

    The stream owns all that its request needs. It is freed when the speech ends, when the stream is
    closed or left by an error, or when nothing refers to it any more.
    """

    def __init__(self, session: Session, sample_rate: int, pieces: Iterable[str] = ()) -> None:
        """Streams a session.

        Args:
            session: of the request.
            sample_rate: in hertz.
            pieces: of the text that the session does not have yet.
        """
        super().__init__(session, sample_rate)
        self._pieces = iter(pieces)

    def close(self) -> None:
        """Ends the stream and frees everything. May be called again."""
        self._session.close()

    def __iter__(self) -> SynthesisStream:
        return self

    def __next__(self) -> Tensor:
        session = self._session
        try:
            while not session.is_done:
                chunk = session.next_chunk()
                if chunk is not None:
                    return chunk
                if not session.is_done:
                    piece = next(self._pieces, None)
                    if piece is None:
                        session.text.finish()
                    else:
                        session.text.feed(piece)
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def __enter__(self) -> SynthesisStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        session = getattr(self, "_session", None)
        if session is not None and not sys.is_finalizing():  # then torch is gone, too
            session.close()


class AsyncSynthesisStream(SessionStream, AsyncIterator[Tensor]):
    """Chunks of a waveform, float32 (S,) on the CPU, made in a thread while they are awaited.

    The pieces of the text may come from an async iterator, too. A stream that is closed, or whose
    reader is cancelled, is freed as soon as the step that is being computed ends.
    """

    def __init__(
        self, session: Session, sample_rate: int, pieces: Iterable[str] | AsyncIterable[str] = ()
    ) -> None:
        """Streams a session; arguments as for `SynthesisStream`."""
        super().__init__(session, sample_rate)
        self._pieces: AsyncIterator[str] | Iterator[str] = (
            aiter(pieces) if isinstance(pieces, AsyncIterable) else iter(pieces)
        )
        self._work: asyncio.Future[Any] | None = None
        self._is_closing = False

    async def aclose(self) -> None:
        """Ends the stream and frees everything. May be called again."""
        self._is_closing = True
        if self._work is not None and not self._work.done():
            await asyncio.wait([self._work])
        self._session.close()

    def __aiter__(self) -> AsyncSynthesisStream:
        return self

    async def __anext__(self) -> Tensor:
        try:
            while not (self._session.is_done or self._is_closing):
                chunk = await self._in_thread(
                    lambda: self._session.next_chunk(lambda: self._is_closing)
                )
                if chunk is not None:
                    return chunk
                if not (self._session.is_done or self._is_closing):
                    await self._next_piece()
        except BaseException:
            self._abandon()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def _next_piece(self) -> None:
        text, pieces = self._session.text, self._pieces
        if isinstance(pieces, AsyncIterator):
            piece = await anext(pieces, None)
        else:
            piece = await asyncio.to_thread(next, pieces, None)
        # In a thread, as a long piece would block the event loop.
        if piece is None:
            await self._in_thread(text.finish)
        else:
            await self._in_thread(lambda: text.feed(piece))

    async def _in_thread(self, function: Callable[[], ResultT]) -> ResultT:
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(None, function)
        self._work = work
        return await asyncio.shield(work)

    def _abandon(self) -> None:
        """Closes after an error or a cancellation, as soon as no thread computes any more."""
        self._is_closing = True
        if self._work is not None and not self._work.done():
            self._work.add_done_callback(lambda _: self._session.close())
        else:
            self._session.close()

    async def __aenter__(self) -> AsyncSynthesisStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        session = getattr(self, "_session", None)
        if session is not None and (self._work is None or self._work.done()):
            session.close()
