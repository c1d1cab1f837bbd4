"""Many streams at once: all live sessions are decoded together on one thread.

Shapes: S samples.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from inference.live import EngineError, Live, notifier
from tokenlm.models.lm.cache import KeyValueCache
from tokenlm.models.lm.decoding import PREFILL_POSITIONS, decode_step
from tokenlm.models.lm.sampling import SamplingConfig
from tokenlm.synthesis import Synthesizer, Voice
from tokenlm.synthesis.session import Session, render_sessions

FEED_CHARACTERS = 64
"""Text that a request reads at once; then others have a turn."""

_log = logging.getLogger(__name__)


class EngineStream(AsyncIterator[Tensor]):
    """Chunks of a waveform, float32 (S,) on the CPU, of one request of a `StreamEngine`.

    What has been made and not been taken is bounded; beyond it the request waits. A stream that is
    closed, whose reader is cancelled, or that nobody has any more is freed before the next step.
    """

    def __init__(self, engine: StreamEngine, live: Live, ready: asyncio.Event) -> None:
        self.sample_rate = engine.sample_rate
        self._engine, self._live, self._ready = engine, live, ready
        self._finalizer = weakref.finalize(self, engine._cancel, live)

    @property
    def speech_tokens(self) -> list[list[int]]:
        """Speech tokens of each segment so far; with `pauses` enough for `Synthesizer.render`."""
        return [list(tokens) for tokens in self._live.session.speech_tokens]

    @property
    def pauses(self) -> list[float]:
        """Seconds of silence before each segment so far."""
        return list(self._live.session.pauses)

    @property
    def num_text_tokens(self) -> int:
        """Text tokens so far."""
        return self._live.session.script.num_text_tokens

    @property
    def foreign_words(self) -> list[str]:
        """Words of the text so far that are left out; see `Script.foreign_words`."""
        return list(self._live.session.script.foreign_words)

    @property
    def buffered_seconds(self) -> float:
        """Sound that has been made and not been taken."""
        return self._live.buffered_seconds

    def __aiter__(self) -> EngineStream:
        return self

    async def __anext__(self) -> Tensor:
        live = self._live
        try:
            while True:
                self._ready.clear()
                chunk = self._engine._take(live)
                if chunk is not None:
                    return chunk
                if live.error is not None:
                    raise live.error
                if live.is_finished or live.is_cancelled:
                    raise StopAsyncIteration
                await self._ready.wait()
        except BaseException:  # the end, an error, or a reader that is cancelled
            self._stop()
            raise

    async def aclose(self) -> None:
        """Ends the stream; returns when everything of it is freed. May be called again."""
        self._stop()
        while not self._live.is_finished:
            self._ready.clear()
            if not self._live.is_finished:
                await self._ready.wait()

    def _stop(self) -> None:
        self._live.stop_feeding()
        self._engine._cancel(self._live)


class StreamEngine:
    """Decodes all live streams together.

    One worker thread moves all sessions. In each round it writes the next speech token of every
    session that may go on, in one batch, and renders the chunks that are due. A session joins and
    leaves between any two rounds; one whose reader is slow is left out until there is room again.

    What may take long is no part of a round: text and prompts are read in a thread of their
    request, and a round prefills at most `PREFILL_POSITIONS` positions. Where a batch fails,
    its sessions are moved one by one, and those alone end that fail alone.
    """

    def __init__(self, synthesizer: Synthesizer, *, max_streams: int = 16) -> None:
        """Starts the worker.

        Args:
            synthesizer: what speaks.
            max_streams: most streams at once.
        """
        if max_streams < 1:
            raise ValueError(f"max_streams must be at least 1, got {max_streams}")
        self.synthesizer = synthesizer
        self.max_streams = max_streams
        self._cache = KeyValueCache(synthesizer.components.speech_lm)
        self._live: list[Live] = []
        self._num_opening = 0
        self._wake = threading.Condition()
        self._has_news = False
        """Whether something has come in that the round that runs may not have seen."""
        self._is_closing = self._is_stopped = False
        # A request has one thing to be read at a time, so nobody waits for another one's.
        self._readers = ThreadPoolExecutor(max_streams, thread_name_prefix="tokenlm-reader")
        self._worker = threading.Thread(target=self._work, name="tokenlm-engine", daemon=True)
        self._worker.start()

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in hertz."""
        return self.synthesizer.sample_rate

    @property
    def num_live(self) -> int:
        """Streams that are being spoken."""
        return len(self._live)

    async def open(
        self,
        text: str | AsyncIterable[str],
        *,
        voice: Voice | str | None = None,
        seed: int = 0,
        speed: float = 1.0,
        max_buffer_seconds: float = 10.0,
        sampling: SamplingConfig | None = None,
        forced_tokens: Sequence[Sequence[int]] | None = None,
    ) -> EngineStream:
        """Begins to speak.

        Args:
            text: a text, or its pieces as they are written.
            voice, seed, speed, sampling: as for `Synthesizer.stream`.
            max_buffer_seconds: sound that is made ahead of the reader, at most; one chunk more.
            forced_tokens: speech tokens of each segment, to be said in place of those drawn.

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

            def open_session() -> Session:
                session = self.synthesizer.open_session(
                    text if isinstance(text, str) else None,
                    voice=voice,
                    seed=seed,
                    speed=speed,
                    sampling=sampling,
                    cache=self._cache,
                    forced_tokens=forced_tokens,
                )
                session.prepare()
                return session

            session = await loop.run_in_executor(self._readers, open_session)
            live = Live(session, max_buffer_seconds, notifier(loop, ready))
            stream = EngineStream(self, live, ready)
            with self._wake:
                if self._is_stopped:
                    raise EngineError("the engine has been closed.")
                if not isinstance(text, str):
                    live.feeder = loop.create_task(self._feed(live, text))
                self._live.append(live)
                self._tell_worker()
        finally:
            with self._wake:
                self._num_opening -= 1
        return stream

    async def close(self, drain_seconds: float | None = None) -> None:
        """Takes no more streams, lets the live ones end, then stops.

        Args:
            drain_seconds: how long they may take; None is as long as they need. What is left then
                ends with an `EngineError`.
        """
        with self._wake:
            self._is_closing = True
        end = None if drain_seconds is None else time.monotonic() + drain_seconds
        while (self._live or self._num_opening) and (end is None or time.monotonic() < end):
            await asyncio.sleep(0.02)
        with self._wake:
            self._is_stopped = True
            self._tell_worker()
        await asyncio.to_thread(self._worker.join)
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def _feed(self, live: Live, pieces: AsyncIterable[str]) -> None:
        """Reads text as it comes, a little at a time, in a thread of the request."""
        script = live.session.script
        try:
            async for piece in pieces:
                for start in range(0, len(piece), FEED_CHARACTERS):
                    part = piece[start : start + FEED_CHARACTERS]
                    await self._read(script.feed, part)
            await self._read(script.finish)
        except Exception as error:  # whatever the source of the text raises is the reader's to see
            with self._wake:
                live.error = live.error or error
                self._tell_worker()
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    async def _read(self, read: Callable[..., None], *text: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._readers, read, *text)
        with self._wake:
            self._tell_worker()

    def _take(self, live: Live) -> Tensor | None:
        with self._wake:
            if not live.chunks:
                return None
            chunk = live.chunks.popleft()
            was_paused = live.is_paused
            live.buffered_seconds -= chunk.shape[0] / self.sample_rate
            if not live.chunks:
                live.buffered_seconds = 0.0
            if was_paused:
                self._tell_worker()
            return chunk

    def _cancel(self, live: Live) -> None:
        with self._wake:
            live.is_cancelled = True
            self._tell_worker()

    def _tell_worker(self) -> None:
        """Something has come in; called with the lock held."""
        self._has_news = True
        self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                if self._is_stopped:
                    break
                live = list(self._live)
                self._has_news = False
            self._drop(live)
            if not self._round([item for item in live if not item.is_finished]):
                with self._wake:
                    self._wake.wait_for(lambda: self._has_news)
        for item in list(self._live):
            item.error = item.error or EngineError("the engine was closed.")
            self._finish(item)

    def _drop(self, live: Sequence[Live]) -> None:
        """Frees what has ended, failed or been given up."""
        for item in live:
            if item.is_cancelled or item.error is not None or item.session.is_done:
                self._finish(item)

    def _finish(self, item: Live) -> None:
        self._guarded([item], item.session.close)
        with self._wake:
            if item.is_cancelled:
                item.chunks.clear()
                item.buffered_seconds = 0.0
            item.is_finished = True
            if item in self._live:
                self._live.remove(item)
        item.notify()
        item.stop_feeding()

    def _round(self, live: Sequence[Live]) -> bool:
        """One token of every session that may go on, and the chunks that are due."""
        moving = [item for item in live if not item.is_paused]
        stepping = [item for item in moving if self._can_step(item)]
        rendering = [item for item in moving if item.error is None and item.session.can_render]
        if rendering and self._is_due(rendering, stepping):
            self._together(rendering, self._render)
            return True
        if stepping:
            self._together(stepping, self._step)
        return bool(stepping)

    def _together(self, items: Sequence[Live], work: Callable[[Sequence[Live]], None]) -> None:
        """Does work for all at once; where that fails, for each alone."""
        if len(items) > 1:
            try:
                with torch.inference_mode(False):
                    work(items)
                return
            except Exception:
                _log.exception("a batch of %d streams failed; now one by one", len(items))
        for item in items:
            self._guarded([item], work, [item])

    def _can_step(self, item: Live) -> bool:
        if item.error is not None:
            return False
        found: list[bool] = []
        self._guarded([item], lambda: found.append(item.session.can_step()))
        return found == [True]

    def _is_due(self, rendering: Sequence[Live], stepping: Sequence[Live]) -> bool:
        """Whether to render now: somebody is in need, or nobody is left to wait for."""
        waited_for = [item for item in stepping if item not in rendering]
        return not waited_for or any(item.is_urgent for item in rendering)

    def _step(self, items: Sequence[Live]) -> None:
        # Whoever got a token from a batch that failed later has nothing to do but settle.
        sessions = [item.session for item in items if item.session.is_settled]
        decodings = [session.decoding for session in sessions]
        decode_step(
            self.synthesizer.components.speech_lm,
            [item for item in decodings if item is not None],
            max_positions=PREFILL_POSITIONS,
        )
        for item in items:
            self._guarded([item], item.session.settle)

    def _render(self, items: Sequence[Live]) -> None:
        components = self.synthesizer.components
        chunks = render_sessions(components, [item.session for item in items])
        for item, chunk in zip(items, chunks, strict=True):
            self._deliver(item, chunk)

    def _deliver(self, item: Live, chunk: Tensor) -> None:
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

    def _guarded(self, items: Sequence[Live], work: Callable[..., Any], *arguments: Any) -> None:
        """Does work for some sessions; if it fails, it fails for them and for no others."""
        try:
            with torch.inference_mode(False):
                work(*arguments)
        except Exception as error:
            if not isinstance(error, ValueError):
                _log.exception("a stream failed")
            for item in items:
                item.error = item.error or error


__all__ = ["EngineError", "EngineStream", "StreamEngine"]
