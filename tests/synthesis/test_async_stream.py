"""Streams on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tokenlm.synthesis import Synthesizer, Voice

TEXT = "Is it so? Yes, it is."


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


@pytest.fixture(scope="module")
def voice(synthesizer: Synthesizer) -> Voice:
    return replace(synthesizer.voice("ann"), prompt_text="")


async def arriving(text: str) -> AsyncIterator[str]:
    for start in range(0, len(text), 4):
        await asyncio.sleep(0)
        yield text[start : start + 4]


def test_async_equals_sync(synthesizer: Synthesizer, voice: Voice) -> None:
    async def listen(layout: str) -> None:
        options = {"seed": 2, "voice": voice, "layout": layout}
        expected = torch.cat(list(synthesizer.stream(TEXT, **options)))  # type: ignore[arg-type]
        for text in (TEXT, arriving(TEXT), iter(TEXT)):
            stream = synthesizer.astream(text, **options)  # type: ignore[arg-type]
            assert torch.equal(torch.cat([chunk async for chunk in stream]), expected)
            assert stream.speech_tokens and stream.num_text_tokens > 0 and stream.pauses[0] == 0.0

    asyncio.run(listen("one_shot"))
    asyncio.run(listen("interleaved"))


def test_closing_frees(synthesizer: Synthesizer) -> None:
    async def leave() -> None:
        async with synthesizer.astream(TEXT) as stream:
            await anext(stream)
            assert not stream._session.is_closed
        assert stream._session.is_closed
        assert [chunk async for chunk in stream] == []

    asyncio.run(leave())


def test_a_cancelled_reader_frees(synthesizer: Synthesizer, voice: Voice) -> None:
    async def leave() -> None:
        asked = asyncio.Event()

        async def silent() -> AsyncIterator[str]:
            yield "the quick brown fox jumps over it and so on "
            asked.set()
            await asyncio.sleep(3600)
            yield "never"

        stream = synthesizer.astream(silent(), voice=voice)

        async def read() -> None:
            async for _ in stream:
                pass

        reader = asyncio.create_task(read())
        await asked.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert stream._session.is_closed and stream._session.num_bytes == 0

    asyncio.run(leave())


def test_mistakes_come_where_they_are_found(synthesizer: Synthesizer) -> None:
    with pytest.raises(ValueError, match="nothing that can be said"):
        synthesizer.astream("")

    async def listen() -> None:
        async for _ in synthesizer.astream(arriving("  ")):
            pass

    with pytest.raises(ValueError, match="nothing that can be said"):
        asyncio.run(listen())
