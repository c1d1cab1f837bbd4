"""Many streams at once, on tiny random models."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from inference.engine import EngineError, EngineStream, StreamEngine
from tokenlm.synthesis import Synthesizer

TEXTS = ["Is it so?", "Yes, it is! The quick brown fox.", "well; one: two, three."]
LONG = [[3, 5, 7] * 100]


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


@pytest.fixture
def with_engine(
    synthesizer: Synthesizer,
) -> Iterator[Callable[[Callable[[StreamEngine], Awaitable[None]]], None]]:
    """Runs a coroutine with an engine of three streams, and checks that nothing is left."""

    def run(work: Callable[[StreamEngine], Awaitable[None]]) -> None:
        async def main() -> None:
            engine = StreamEngine(synthesizer, max_streams=3)
            try:
                await asyncio.wait_for(work(engine), 120)
            finally:
                await engine.close(0)
            assert engine.num_live == 0 and engine._cache.num_bytes == 0
            assert not engine._worker.is_alive()

        asyncio.run(main())

    yield run


async def listen(stream: EngineStream) -> Tensor:
    return torch.cat([chunk async for chunk in stream])


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def test_streams_are_what_render_gives(synthesizer: Synthesizer, with_engine) -> None:
    async def work(engine: StreamEngine) -> None:
        assert engine.sample_rate == 24_000
        options = [{"voice": "ann"}, {"voice": "bob", "speed": 1.3}, {"seed": 9}]
        streams = [
            await engine.open(text, **option) for text, option in zip(TEXTS, options, strict=True)
        ]
        heard = await asyncio.gather(*map(listen, streams))
        for waveform, stream, option in zip(heard, streams, options, strict=True):
            assert waveform.dtype == torch.float32 and stream.num_text_tokens > 0
            again = synthesizer.render(stream.speech_tokens, pauses=stream.pauses, **option)
            torch.testing.assert_close(waveform, again, atol=1e-4, rtol=0)
        assert engine.num_live == 0

    with_engine(work)


def test_text_in_pieces(synthesizer: Synthesizer, with_engine) -> None:
    async def pieces(text: str) -> AsyncIterator[str]:
        for sign in text:
            await asyncio.sleep(0)
            yield sign

    async def work(engine: StreamEngine) -> None:
        stream = await engine.open(pieces(TEXTS[1]), seed=4)
        waveform = await listen(stream)
        expected = torch.cat(list(synthesizer.stream(iter([TEXTS[1]]), seed=4)))
        torch.testing.assert_close(waveform, expected, atol=1e-4, rtol=0)

    with_engine(work)


def test_a_slow_reader_pauses_its_own_stream(with_engine) -> None:
    async def work(engine: StreamEngine) -> None:
        slow = await engine.open("so.", max_buffer_seconds=1.0, forced_tokens=LONG)
        await until(lambda: slow.buffered_seconds >= 1.0)
        held = slow.buffered_seconds
        fast = await engine.open("so.", seed=1, forced_tokens=[LONG[0][:100]])
        assert (await listen(fast)).shape[0] == 100 * 960
        assert slow.buffered_seconds == held < 3.0 and engine.num_live == 1
        rest = await listen(slow)
        assert rest.shape[0] == 300 * 960

    with_engine(work)


def test_who_leaves_is_freed(with_engine) -> None:
    async def work(engine: StreamEngine) -> None:
        first = await engine.open("so.", forced_tokens=LONG)
        other = await engine.open("so.", seed=1, forced_tokens=[LONG[0][:150]])
        await anext(first)
        await first.aclose()
        assert first._live.session.is_closed and engine.num_live <= 1
        assert [chunk async for chunk in first] == []
        await first.aclose()
        cancelled = await engine.open("so.", seed=2, max_buffer_seconds=0.1, forced_tokens=LONG)
        reader = asyncio.create_task(listen(cancelled))
        await asyncio.sleep(0.05)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await until(lambda: cancelled._live.session.is_closed)
        dropped = await engine.open("so.", seed=3, max_buffer_seconds=0.1, forced_tokens=LONG)
        session = dropped._live.session
        del dropped
        gc.collect()
        await until(lambda: session.is_closed)
        assert (await listen(other)).shape[0] == 150 * 960

    with_engine(work)


def test_errors_concern_their_own_stream(with_engine) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "the quick brown fox "
        raise OSError("the line went dead")

    async def nothing() -> AsyncIterator[str]:
        yield "  "

    async def work(engine: StreamEngine) -> None:
        for text, options in (("", {}), ("so.", {"speed": 9.0}), ("so.", {"voice": "eve"})):
            with pytest.raises(ValueError):
                await engine.open(text, **options)
        with pytest.raises(ValueError, match="max_buffer_seconds must be positive"):
            await engine.open("so.", max_buffer_seconds=0)
        good = await engine.open(TEXTS[1])
        bad, silent = await engine.open(broken()), await engine.open(nothing())
        with pytest.raises(OSError, match="went dead"):
            await listen(bad)
        with pytest.raises(ValueError, match="nothing that can be said"):
            await listen(silent)
        assert (await listen(good)).shape[0] > 0

    with_engine(work)


def test_there_are_no_more_streams_than_allowed(with_engine) -> None:
    async def work(engine: StreamEngine) -> None:
        options = {"max_buffer_seconds": 0.1, "forced_tokens": LONG}
        streams = [await engine.open("so.", **options) for _ in range(3)]
        assert engine.num_live == 3
        with pytest.raises(EngineError, match="3 streams already"):
            await engine.open("so.")
        await streams[0].aclose()
        streams.append(await engine.open("so.", **options))
        assert engine.num_live == 3

    with_engine(work)


def test_closing_lets_streams_end(synthesizer: Synthesizer) -> None:
    async def work() -> None:
        engine = StreamEngine(synthesizer)
        stream = await engine.open("so.", forced_tokens=[LONG[0][:100]])
        reader = asyncio.create_task(listen(stream))
        closing = asyncio.create_task(engine.close(None))
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match="closing"):
            await engine.open("so.")
        assert (await reader).shape[0] == 100 * 960
        await closing
        engine = StreamEngine(synthesizer)
        stuck = await engine.open("so.", max_buffer_seconds=0.1, forced_tokens=LONG)
        await engine.close(0.05)
        with pytest.raises(EngineError, match="was closed"):
            await listen(stuck)
        assert stuck._live.session.is_closed

    asyncio.run(work())


def test_impossible_sizes(synthesizer: Synthesizer) -> None:
    with pytest.raises(ValueError, match="max_streams must be at least 1"):
        StreamEngine(synthesizer, max_streams=0)
