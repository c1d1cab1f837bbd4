"""Speech as it is made, for programs that run on an event loop.

Shapes: S samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor

from tokenlm.synthesis.session import Session
from tokenlm.synthesis.stream import advance

ResultT = TypeVar("ResultT")


class AsyncSynthesisStream(AsyncIterator[Tensor]):
    """Chunks of a waveform, float32 (S,) on the CPU, made in a thread while they are awaited.

    The pieces of the text may come from an async iterator, too. A stream that is closed, or whose
    reader is cancelled, is freed as soon as the step that is being computed ends.
    """

    def __init__(
        self, session: Session, sample_rate: int, pieces: Iterable[str] | AsyncIterable[str] = ()
    ) -> None:
        """Takes a session, and the pieces of its text that have not come in yet."""
        self.sample_rate = sample_rate
        self._session = session
        self._pieces: AsyncIterator[str] | Iterator[str] = (
            aiter(pieces) if isinstance(pieces, AsyncIterable) else iter(pieces)
        )
        self._work: asyncio.Future[Any] | None = None
        self._is_closing = False

    @property
    def seed(self) -> int:
        """Seed of its draws, also one that was drawn."""
        return self._session.settings.seed

    @property
    def speech_tokens(self) -> list[list[int]]:
        """Speech tokens of each segment so far."""
        return [list(tokens) for tokens in self._session.speech_tokens]

    @property
    def pauses(self) -> list[float]:
        """Seconds of silence before each segment; with the tokens enough to render it again."""
        return list(self._session.pauses)

    @property
    def num_text_tokens(self) -> int:
        """Text tokens so far."""
        return self._session.script.num_text_tokens

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
                chunk = await self._in_thread(self._next_chunk)
                if chunk is not None:
                    return chunk
                if not (self._session.is_done or self._is_closing):
                    await self._next_piece()
        except BaseException:
            self._abandon()
            raise
        await self.aclose()
        raise StopAsyncIteration

    def _next_chunk(self) -> Tensor | None:
        """The next chunk; None where the text, or the speech, has come to an end."""
        session = self._session
        while not self._is_closing and (session.can_step() or session.can_render):
            chunk = advance(session)
            if chunk is not None:
                return chunk
        return None

    async def _next_piece(self) -> None:
        script, pieces = self._session.script, self._pieces
        if isinstance(pieces, AsyncIterator):
            piece = await anext(pieces, None)
        else:
            piece = await asyncio.to_thread(next, pieces, None)
        # Reading a long piece takes its time, which is not the event loop's.
        if piece is None:
            await self._in_thread(script.finish)
        else:
            await self._in_thread(lambda: script.feed(piece))

    async def _in_thread(self, function: Callable[[], ResultT]) -> ResultT:
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(None, function)
        self._work = work
        return await asyncio.shield(work)

    def _abandon(self) -> None:
        """Closes after an error or a cancellation, when no thread computes any more."""
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
