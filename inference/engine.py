"""Many streams at once: all active sessions are moved on one thread, in one batch.

Shapes: S samples.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.remote.settings import Local, Remote
from tokenlm.models.lm.decoding import (
    PREFILL_POSITIONS,
    Decoding,
    KeyValueCache,
    SamplingConfig,
    by_model,
    decode_step,
)
from tokenlm.synthesis import Synthesizer, Voice
from tokenlm.synthesis.session import Session, SpeechCancelled, render_sessions
from tokenlm.synthesis.stream import SessionStream
from tokenlm.text.pronunciation import LexiconSource

if TYPE_CHECKING:
    from inference.remote.tokens import Connection

FEED_CHARACTERS = 64
"""Text that a request reads at once; then others have a turn."""
URGENT_SECONDS = 0.6
"""A stream with less sound ahead than this is rendered at once; others wait for a batch."""

_LOCAL = Local()

logger = logging.getLogger(__name__)


class EngineError(RuntimeError):
    """The engine cannot take or finish a stream: it is full, or has been closed."""


class _Request:
    """A request that is being spoken. It holds no reference to its stream."""

    def __init__(
        self,
        session: Session,
        limit_seconds: float,
        notify: Callable[[], None],
        cancelled: threading.Event,
    ) -> None:
        self.session = session
        self.cancelled = cancelled
        """Set when nobody waits for the speech any more; the session looks at it, too."""
        self.limit_seconds = limit_seconds
        self.notify = notify
        """Wakes the reader."""
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

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the speech any more."""
        return self.cancelled.is_set()

    def stop_feeding(self) -> None:
        """Cancels the feeder. May be called in any thread."""
        feeder = self.feeder
        if feeder is not None:
            try:
                feeder.get_loop().call_soon_threadsafe(feeder.cancel)
            except RuntimeError:  # the loop has been closed, and its tasks with it
                pass

    @property
    def is_paused(self) -> bool:
        """Whether enough sound waits for the reader."""
        return self.buffered_seconds >= self.limit_seconds

    @property
    def is_urgent(self) -> bool:
        """Whether a player that was started with the first sound would soon run dry."""
        if self.started_at is None:
            return True
        return self.made_seconds - (time.monotonic() - self.started_at) < URGENT_SECONDS


def _notifier(loop: asyncio.AbstractEventLoop, ready: asyncio.Event) -> Callable[[], None]:
    """A function that sets `ready` from any thread."""

    def notify() -> None:
        try:
            loop.call_soon_threadsafe(ready.set)
        except RuntimeError:  # the loop has been closed
            pass

    return notify


def _close_result(work: Future[Session]) -> None:
    """Closes a session that nobody waits for any more."""
    if not work.cancelled() and work.exception() is None:
        work.result().close()


class EngineStream(SessionStream, AsyncIterator[Tensor]):
    """Chunks of a waveform, float32 (S,) on the CPU, of one request of a `StreamEngine`.

    Chunks that wait for the reader are bounded; beyond that the request is paused. A stream that is
    closed, whose reader is cancelled, or that nothing refers to any more is freed before the next
    step.
    """

    def __init__(self, engine: StreamEngine, request: _Request, ready: asyncio.Event) -> None:
        """Creates the stream of a request that the engine has; see `StreamEngine.open`.

        Args:
            engine: speaks it.
            request: what it speaks.
            ready: is set from the engine's thread when there is news of the request.
        """
        super().__init__(request.session, engine.sample_rate)
        self._engine, self._request, self._ready = engine, request, ready
        self._finalizer = weakref.finalize(self, engine._cancel, request)

    @property
    def buffered_seconds(self) -> float:
        """Sound that has been made and not been taken."""
        return self._request.buffered_seconds

    def __aiter__(self) -> EngineStream:
        return self

    async def __anext__(self) -> Tensor:
        request = self._request
        try:
            while True:
                self._ready.clear()
                chunk = self._engine._take(request)
                if chunk is not None:
                    return chunk
                if request.error is not None:
                    raise request.error
                if request.is_finished or request.is_cancelled:
                    raise StopAsyncIteration
                await self._ready.wait()
        except BaseException:  # the end, an error, or a reader that is cancelled
            self._stop()
            raise

    async def aclose(self) -> None:
        """Ends the stream; returns when everything of it is freed. May be called again."""
        self._stop()
        while not self._request.is_finished:
            self._ready.clear()
            if not self._request.is_finished:
                await self._ready.wait()

    def _stop(self) -> None:
        self._request.stop_feeding()
        self._engine._cancel(self._request)


class StreamEngine:
    """Decodes all live streams in one batch.

    One worker thread moves all sessions. In each round it decodes the next speech token of every
    session that can step, in one batch, and renders the chunks that are due. Sessions join and
    leave between rounds; one whose reader is slow is paused until there is room again.

    What may take long is no part of a round: text and prompts are read in a thread of their
    request, and a round prefills at most `PREFILL_POSITIONS` positions. Where a batch fails, its
    sessions are moved one by one, and only those end that fail alone.

    With `Remote` tokens an LLM server decodes, and a round takes what has come; the rest is the
    same.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        *,
        tokens: Local | Remote = _LOCAL,
        max_streams: int = 16,
    ) -> None:
        """Starts the worker.

        Args:
            synthesizer: what speaks.
            tokens: where speech tokens are drawn.
            max_streams: most streams at once.
        """
        if max_streams < 1:
            raise ValueError(f"max_streams must be at least 1, got {max_streams}")
        self.synthesizer = synthesizer
        self.max_streams = max_streams
        self._cache = KeyValueCache(synthesizer.components.speech_lm)
        self._active: list[_Request] = []
        self._num_opening = 0
        self._wake = threading.Condition()
        self._has_news = False
        """Whether anything has changed since the round that runs began."""
        self._is_closing = self._is_stopped = False
        self._connection: Connection | None = None
        if isinstance(tokens, Remote):
            from inference.remote.tokens import Connection  # with httpx, of the extra serve

            self._connection = Connection(tokens, synthesizer.components, self._tokens_have_come)
        # A request reads one thing at a time, so none waits for another one's.
        self._readers = ThreadPoolExecutor(max_streams, thread_name_prefix="tokenlm-reader")
        self._worker = threading.Thread(target=self._work, name="tokenlm-engine", daemon=True)
        self._worker.start()

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in hertz."""
        return self.synthesizer.sample_rate

    @property
    def num_live(self) -> int:
        """Number of streams that are being spoken."""
        return len(self._active)

    async def open(
        self,
        text: str | AsyncIterable[str],
        *,
        voice: Voice | str | None = None,
        seed: int = 0,
        speed: float = 1.0,
        max_buffer_seconds: float = 10.0,
        sampling: SamplingConfig | None = None,
        lexicon: LexiconSource = None,
        markup: bool = True,
        sentence_gap: float | None = None,
        paragraph_gap: float | None = None,
        word_times: bool = False,
        duration: float | None = None,
        instruction: str = "",
        forced_tokens: Sequence[Sequence[int]] | None = None,
        find_voice: Callable[[str], Voice] | None = None,
    ) -> EngineStream:
        """Begins to speak.

        Args:
            text: a text, or its pieces as they are written.
            voice, seed, speed, sampling, lexicon, markup, sentence_gap, paragraph_gap, word_times,
                duration, instruction: as for `Synthesizer.stream`.
            max_buffer_seconds: sound that is made ahead of the reader, at most; one chunk more.
            forced_tokens: speech tokens of each segment that replace those that are drawn.
            find_voice: gives the voices that the markup names; default those of the synthesizer.

        Raises:
            ValueError: nothing can be said, or an argument is out of range.
            EngineError: there are `max_streams` already, or the engine is closing.
        """
        if max_buffer_seconds <= 0:
            raise ValueError(f"max_buffer_seconds must be positive, got {max_buffer_seconds}")
        with self._wake:
            if self._is_closing:
                raise EngineError("the engine is closing and takes no more streams.")
            if self.num_live + self._num_opening >= self.max_streams:
                raise EngineError(f"there are {self.max_streams} streams already.")
            self._num_opening += 1
        try:
            loop, ready = asyncio.get_running_loop(), asyncio.Event()
            cancelled = threading.Event()

            def open_session() -> Session:
                session = self.synthesizer.open_session(
                    text if isinstance(text, str) else None,
                    voice=voice,
                    seed=seed,
                    speed=speed,
                    sampling=sampling,
                    lexicon=lexicon,
                    markup=markup,
                    sentence_gap=sentence_gap,
                    paragraph_gap=paragraph_gap,
                    word_times=word_times,
                    duration=duration,
                    instruction=instruction,
                    cache=self._cache,
                    token_server=self._connection,
                    forced_tokens=forced_tokens,
                    find_voice=find_voice,
                    should_stop=cancelled.is_set,
                )
                try:
                    session.prepare()
                except BaseException:
                    session.close()
                    raise
                return session

            work = self._readers.submit(open_session)
            try:
                session = await asyncio.wrap_future(work)
            except asyncio.CancelledError:  # the thread stops at its next look at the event
                cancelled.set()
                work.add_done_callback(_close_result)
                raise
            request = _Request(session, max_buffer_seconds, _notifier(loop, ready), cancelled)
            stream = EngineStream(self, request, ready)
            with self._wake:
                if self._is_stopped:
                    raise EngineError("the engine has been closed.")
                if not isinstance(text, str):
                    request.feeder = loop.create_task(self._feed(request, text))
                self._active.append(request)
                self._wake_worker()
        finally:
            with self._wake:
                self._num_opening -= 1
        return stream

    async def close(self, drain_seconds: float | None = None) -> None:
        """Refuses new streams, lets the live ones end, then stops.

        Args:
            drain_seconds: how long they may take; None is as long as they need. What is left then
                ends with an `EngineError`.
        """
        with self._wake:
            self._is_closing = True
        end = None if drain_seconds is None else time.monotonic() + drain_seconds
        while (self._active or self._num_opening) and (end is None or time.monotonic() < end):
            await asyncio.sleep(0.02)
        with self._wake:
            self._is_stopped = True
            self._wake_worker()
        await asyncio.to_thread(self._worker.join)
        if self._connection is not None:
            await asyncio.to_thread(self._connection.close)
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def _feed(self, request: _Request, pieces: AsyncIterable[str]) -> None:
        """Reads text as it comes, a little at a time, in a thread of the request."""
        session, session_text = request.session, request.session.text

        def feed(part: str) -> None:
            session_text.feed(part)
            session.prepare()  # the voices that its markup names

        try:
            async for piece in pieces:
                for start in range(0, len(piece), FEED_CHARACTERS):
                    await self._read(feed, piece[start : start + FEED_CHARACTERS])
            await self._read(session_text.finish)
        except Exception as error:  # an error of the text's source is raised to the reader
            with self._wake:
                request.error = request.error or error
                self._wake_worker()
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    async def _read(self, read: Callable[..., None], *text: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._readers, read, *text)
        with self._wake:
            self._wake_worker()

    def _take(self, request: _Request) -> Tensor | None:
        with self._wake:
            if not request.chunks:
                return None
            chunk = request.chunks.popleft()
            was_paused = request.is_paused
            request.buffered_seconds -= chunk.shape[0] / self.sample_rate
            if not request.chunks:
                request.buffered_seconds = 0.0
            if was_paused:
                self._wake_worker()
            return chunk

    def _cancel(self, request: _Request) -> None:
        with self._wake:
            request.cancelled.set()
            self._wake_worker()

    def _tokens_have_come(self) -> None:
        with self._wake:
            self._wake_worker()

    def _wake_worker(self) -> None:
        """Starts a round; called with the lock held."""
        self._has_news = True
        self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                if self._is_stopped:
                    break
                active = list(self._active)
                self._has_news = False
            self._drop(active)
            if not self._round([item for item in active if not item.is_finished]):
                with self._wake:
                    self._wake.wait_for(lambda: self._has_news)
        for item in list(self._active):
            item.error = item.error or EngineError("the engine was closed.")
            self._finish(item)

    def _drop(self, active: Sequence[_Request]) -> None:
        """Frees what has ended, failed or been cancelled."""
        for item in active:
            if item.is_cancelled or item.error is not None or item.session.is_done:
                self._finish(item)

    def _finish(self, item: _Request) -> None:
        self._isolated(item, item.session.close)
        with self._wake:
            if item.is_cancelled:
                item.chunks.clear()
                item.buffered_seconds = 0.0
            item.is_finished = True
            if item in self._active:
                self._active.remove(item)
        item.notify()
        item.stop_feeding()

    def _round(self, active: Sequence[_Request]) -> bool:
        """Renders the chunks that are due, or decodes one token of every session that can step."""
        moving = [item for item in active if not item.is_paused]
        stepping = [item for item in moving if self._can_step(item)]
        rendering = [item for item in moving if item.error is None and item.session.can_render]
        if rendering and self._is_due(rendering, stepping):
            self._batched(rendering, self._render)
            return True
        if stepping:
            self._batched(stepping, self._step)
        return bool(stepping)

    def _batched(
        self, items: Sequence[_Request], work: Callable[[Sequence[_Request]], None]
    ) -> None:
        """Does work for all in one batch; where that fails, for each alone."""
        if len(items) > 1:
            try:
                with torch.inference_mode(False):
                    work(items)
                return
            except Exception:
                logger.exception("a batch of %d streams failed; now one by one", len(items))
        for item in items:
            self._isolated(item, work, [item])

    def _can_step(self, item: _Request) -> bool:
        if item.error is not None:
            return False
        answer: list[bool] = []
        self._isolated(item, lambda: answer.append(item.session.can_step()))
        return answer == [True]

    def _is_due(self, rendering: Sequence[_Request], stepping: Sequence[_Request]) -> bool:
        """Whether to render now: a stream is urgent, or no other one will join the batch."""
        expected = [item for item in stepping if item not in rendering]
        return not expected or any(item.is_urgent for item in rendering)

    def _step(self, items: Sequence[_Request]) -> None:
        # Those that got a token from a batch that failed afterwards need only collect it.
        decodings = [item.session.decoding for item in items if item.session.is_collected]
        local = [decoding for decoding in decodings if isinstance(decoding, Decoding)]
        if local:
            for model, group in by_model(local).items():
                decode_step(model, group, max_positions=PREFILL_POSITIONS)
        elif self._connection is not None:
            for item in items:
                if item.session.decoding is not None:
                    self._isolated(item, self._connection.step, item.session.decoding)
        for item in items:
            self._isolated(item, item.session.collect)

    def _render(self, items: Sequence[_Request]) -> None:
        chunks = render_sessions([item.session for item in items])
        for item, chunk in zip(items, chunks, strict=True):
            self._deliver(item, chunk)

    def _deliver(self, item: _Request, chunk: Tensor) -> None:
        if chunk.shape[0] == 0:
            return
        seconds = chunk.shape[0] / self.sample_rate
        with self._wake:
            item.chunks.append(chunk)
            item.buffered_seconds += seconds
            item.made_seconds += seconds
            if item.started_at is None:
                item.started_at = time.monotonic()
        item.notify()

    def _isolated(self, item: _Request, work: Callable[..., Any], *arguments: Any) -> None:
        """Does work for one request; an error ends it and no other one."""
        try:
            with torch.inference_mode(False):
                work(*arguments)
        except Exception as error:
            if not isinstance(error, ValueError | SpeechCancelled):
                logger.exception("a stream failed")
            with self._wake:  # it is dropped in the next round
                item.error = item.error or error
                self._wake_worker()


__all__ = ["EngineError", "EngineStream", "Local", "Remote", "StreamEngine"]
