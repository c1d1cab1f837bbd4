"""Clients of the load test: what they ask, how they behave, and what they got."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

TEXTS = (
    "Yes.",
    "The quick brown fox jumps over the lazy dog.",
    "It was a bright day in April, and all the clocks of the town were a little late.",
    "Nobody knew where the river began. Some said in the hills; others said in the rain.",
    "Take the second road on the left, go past the mill, and ask for Mr. Brown at number 42.",
    "We have three questions: what was said, who said it, and how long did it take to say? The "
    "answers are in the log, and the log is read when everybody has gone home.",
)
FORMATS = ("pcm", "wav", "flac", "mp3", "opus", "sse", "socket")
"""What is asked for: a format of the body, `sse` with samples in it, or a WebSocket."""
Manner = Literal["plain", "leaves", "slow"]
SMALL_BUFFER = 16_384
"""Bytes that the system keeps for a slow reader."""


@dataclass(frozen=True)
class Wish:
    """A request."""

    audio_format: str
    manner: Manner
    text: str
    voice: str
    seed: int
    speed: float


@dataclass
class Outcome:
    """What came of it."""

    wish: Wish
    request_id: str = ""
    status: int = 0
    problem: str = ""
    """Why it failed, where it did."""
    is_whole: bool = False
    """Whether the end was heard; who leaves does not hear it."""
    first_audio_seconds: float | None = None
    seconds: float = 0.0
    """From the request to the end."""
    data: bytearray = field(default_factory=bytearray)
    """Bytes of the file, or samples."""


def make_wish(draws: random.Random, voices: list[str]) -> Wish:
    """A request that is drawn: every format, one in five leaves, one in five is slow."""
    return Wish(
        audio_format=draws.choice(FORMATS),
        manner=draws.choices(("plain", "leaves", "slow"), (3, 1, 1))[0],
        text=draws.choice(TEXTS),
        voice=draws.choice(voices),
        seed=draws.randrange(1_000_000),
        speed=draws.choice((1.0, 1.0, 1.0, 1.25)),
    )


async def fulfil(wish: Wish, url: str, draws: random.Random) -> Outcome:
    """Asks a server, in the manner of the wish. Never raises for what the server does."""
    outcome = Outcome(wish)
    start = time.perf_counter()
    # Who leaves does so after some of the sound, or before the first of it.
    leave_after = draws.choice((0, 1, 10_000, 60_000)) if wish.manner == "leaves" else None
    pieces = _socket_pieces if wish.audio_format == "socket" else _http_pieces
    try:
        async for piece in pieces(wish, url, outcome):
            if piece and outcome.first_audio_seconds is None:
                outcome.first_audio_seconds = time.perf_counter() - start
            outcome.data += piece
            if leave_after is not None and len(outcome.data) >= leave_after:
                break
            if wish.manner == "slow":
                # Slower than the speech itself: 48,000 bytes of samples are a second of it.
                await asyncio.sleep(min(1.0, 1.5 * len(piece) / 48_000) + 0.05)
        else:
            outcome.is_whole = outcome.status in (101, 200)
    except (httpx.HTTPError, WebSocketException, OSError, TimeoutError, ValueError) as error:
        outcome.problem = f"{type(error).__name__}: {error}"
    outcome.seconds = time.perf_counter() - start
    return outcome


async def _http_pieces(wish: Wish, url: str, outcome: Outcome) -> AsyncIterator[bytes]:
    is_sse = wish.audio_format == "sse"
    body: dict[str, Any] = {
        "input": wish.text,
        "voice": wish.voice,
        "seed": wish.seed,
        "speed": wish.speed,
        "response_format": "pcm" if is_sse else wish.audio_format,
        "stream_format": "sse" if is_sse else "audio",
    }
    options = None
    if wish.manner == "slow":
        options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)]
    transport = httpx.AsyncHTTPTransport(socket_options=options)
    async with (
        httpx.AsyncClient(transport=transport, timeout=120.0) as client,
        client.stream("POST", f"{url}/v1/audio/speech", json=body) as response,
    ):
        outcome.status = response.status_code
        if response.status_code != 200:
            outcome.problem = (await response.aread()).decode(errors="replace")
            return
        outcome.request_id = response.headers["x-request-id"]
        if not is_sse:
            async for piece in response.aiter_raw(4096):
                yield piece
            return
        last = ""
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                last = event["type"]
                if last == "speech.audio.delta":
                    yield base64.b64decode(event["audio"])
        if last != "speech.audio.done":
            raise ValueError(f"the last event is {last!r}")


async def _socket_pieces(wish: Wish, url: str, outcome: Outcome) -> AsyncIterator[bytes]:
    address = url.replace("http", "ws", 1) + "/v1/audio/speech/stream"
    settings = {"voice": wish.voice, "seed": wish.seed, "speed": wish.speed}
    # Answers to pings wait behind the sound that a slow client has not read: none are asked for.
    async with connect(address, max_queue=2, open_timeout=120, ping_interval=None) as connection:
        await connection.send(json.dumps({"type": "session.config", **settings}))
        # As a language model writes: some letters at a time.
        for start in range(0, len(wish.text), 7):
            piece = wish.text[start : start + 7]
            await connection.send(json.dumps({"type": "input.text", "text": piece}))
        await connection.send(json.dumps({"type": "input.done"}))
        async for message in connection:
            if isinstance(message, bytes):
                yield message
                continue
            event = json.loads(message)
            if event["type"] == "audio.start":
                outcome.status = 101
                outcome.request_id = event["provenance"]["request_id"]
            elif event["type"] == "audio.done":
                return
            else:
                kind = event["error"]["type"]
                outcome.status = 429 if kind == "rate_limit_error" else 500
                raise ValueError(event["error"]["message"])
        raise ValueError("the connection ended before the speech")
