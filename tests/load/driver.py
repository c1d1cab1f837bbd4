"""Puts a server under load, and checks what every client received.

    scripts/load_test [--clients 16] [--seconds 120] [--bundle NAME] [--output FOLDER]

Clients send requests without pause, in every format and over WebSockets; some leave early, some
read slowly. Afterwards the tokens of every request are rendered again alone and compared with what
its client received; no admitted request may have failed, and memory and sessions must be back to
where they were.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import re
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from load.replay import Comparison, Request, Result, compare, load_synthesizer
from running_server import running_server
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from inference.server.monitoring import read_token_log

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
"""A format of the body, `sse` with samples in it, or a WebSocket."""
SMALL_BUFFER = 16_384
"""Bytes that the system keeps for a slow reader."""
MEMORY_SHARE = 0.1
"""Share of its memory that a server may have grown by in the end."""
REST_SECONDS = 60.0
"""Time for sessions to be freed after the last request."""
WARM_ROUNDS = 2
"""Requests of every client before memory is read: libraries keep what they once needed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the test; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/load_test",
        description="Put a server under load and check what clients receive.",
    )
    parser.add_argument("--bundle", default="mini-en", help="name of a bundle or its folder")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--streams", type=int, default=16, help="utterances spoken at once")
    parser.add_argument("--seed", type=int, default=0, help="of the requests")
    parser.add_argument("--output", type=Path, default=Path("load_test"), help="for the report")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "tokens.jsonl"
        with running_server(
            folder, "--bundle", options.bundle, "--set", f"token_log={log}",
            "--set", f"limits.max_streams={options.streams}",
        ) as (url, _):  # fmt: skip
            measured = asyncio.run(put_under_load(url, options))
        results: list[Result] = measured.pop("results")
        comparisons, missing = replay(options.bundle, results, read_token_log(log))
        server_log = (folder / "server.log").read_text(encoding="utf-8", errors="replace")
    report = summarise(results, comparisons, missing, measured, "Traceback" in server_log)
    (options.output / "server.log").write_text(server_log, encoding="utf-8")
    path = options.output / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: report[key] for key in report if key != "comparisons"}, indent=2))
    print(f"{'passed' if not report['problems'] else 'FAILED'}; the report is {path}")
    return 1 if report["problems"] else 0


async def put_under_load(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs clients for a while; metrics of the server before and after."""
    async with httpx.AsyncClient(base_url=url, timeout=60.0) as client:
        listed = (await client.get("/v1/audio/voices")).json()["data"]
    voices = [voice["id"] for voice in listed]
    warm = [_several(number, url, voices, options.seed) for number in range(options.clients)]
    warmed = [result for several in await asyncio.gather(*warm) for result in several]
    before = await _rest(url)
    start = time.perf_counter()
    end = start + options.seconds
    clients = [_client(number, url, voices, end, options) for number in range(options.clients)]
    groups = await asyncio.gather(*clients)
    seconds = time.perf_counter() - start
    after = await _rest(url)
    results = [result for group in groups for result in group]
    return {"results": [*warmed, *results], "before": before, "after": after,
            "num_warm": len(warmed), "seconds": seconds}  # fmt: skip


async def _several(number: int, url: str, voices: list[str], seed: int) -> list[Result]:
    draws = random.Random(f"warm {seed} {number}")
    results = []
    for turn in range(WARM_ROUNDS):
        audio_format = FORMATS[(number + turn) % len(FORMATS)]
        request = draw_request(draws, voices)
        request = replace(request, audio_format=audio_format, behaviour="patient")
        results.append(await send_request(request, url, draws))
    return results


async def _client(
    number: int, url: str, voices: list[str], end: float, options: argparse.Namespace
) -> list[Result]:
    draws = random.Random(f"{options.seed} {number}")
    results = []
    while time.perf_counter() < end:
        results.append(await send_request(draw_request(draws, voices), url, draws))
        if results[-1].status == 429:
            await asyncio.sleep(1.0)
    return results


async def _rest(url: str) -> dict[str, float]:
    """Metrics of a server once it is idle, or after `REST_SECONDS`."""
    end = time.monotonic() + REST_SECONDS
    async with httpx.AsyncClient(base_url=url, timeout=60.0) as client:
        while True:
            text = (await client.get("/metrics")).text
            figures = {
                match[1]: float(match[2])
                for match in re.finditer(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
            }
            names = ("tokenlm_live_streams", "tokenlm_engine_sessions", "tokenlm_queue_length",
                     "tokenlm_sockets")  # fmt: skip
            if not any(figures[name] for name in names) or time.monotonic() > end:
                return {
                    **{name: figures[name] for name in names},
                    "resident_bytes": figures["process_resident_memory_bytes"],
                    "open_files": figures["process_open_fds"],
                    "failed": figures['tokenlm_utterances_total{end="failed"}'],
                }
            await asyncio.sleep(0.5)


def draw_request(draws: random.Random, voices: list[str]) -> Request:
    """Draws a request: of any format, one in five leaves, one in five is slow."""
    return Request(
        audio_format=draws.choice(FORMATS),
        behaviour=draws.choices(("patient", "leaves", "slow"), (3, 1, 1))[0],
        text=draws.choice(TEXTS),
        voice=draws.choice(voices),
        seed=draws.randrange(1_000_000),
        speed=draws.choice((1.0, 1.0, 1.0, 1.25)),
    )


async def send_request(request: Request, url: str, draws: random.Random) -> Result:
    """Sends a request, and behaves as it says. Never raises for what the server does."""
    result = Result(request)
    start = time.perf_counter()
    # A client leaves after some of the audio, or before the first of it.
    leave_after = draws.choice((0, 1, 10_000, 60_000)) if request.behaviour == "leaves" else None
    pieces = _socket_pieces if request.audio_format == "socket" else _http_pieces
    try:
        async for piece in pieces(request, url, result):
            if piece and result.first_audio_seconds is None:
                result.first_audio_seconds = time.perf_counter() - start
            result.data += piece
            if leave_after is not None and len(result.data) >= leave_after:
                break
            if request.behaviour == "slow":
                # Slower than the speech itself: 48,000 bytes of samples are a second of it.
                await asyncio.sleep(min(1.0, 1.5 * len(piece) / 48_000) + 0.05)
        else:
            result.is_whole = result.status in (101, 200)
    except (httpx.HTTPError, WebSocketException, OSError, TimeoutError, ValueError) as error:
        result.problem = f"{type(error).__name__}: {error}"
    result.seconds = time.perf_counter() - start
    return result


async def _http_pieces(request: Request, url: str, result: Result) -> AsyncIterator[bytes]:
    is_sse = request.audio_format == "sse"
    body: dict[str, Any] = {
        "input": request.text,
        "voice": request.voice,
        "seed": request.seed,
        "speed": request.speed,
        "response_format": "pcm" if is_sse else request.audio_format,
        "stream_format": "sse" if is_sse else "audio",
    }
    options = None
    if request.behaviour == "slow":
        options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)]
    transport = httpx.AsyncHTTPTransport(socket_options=options)
    async with (
        httpx.AsyncClient(transport=transport, timeout=120.0) as client,
        client.stream("POST", f"{url}/v1/audio/speech", json=body) as response,
    ):
        result.status = response.status_code
        if response.status_code != 200:
            result.problem = (await response.aread()).decode(errors="replace")
            return
        result.request_id = response.headers["x-request-id"]
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


async def _socket_pieces(request: Request, url: str, result: Result) -> AsyncIterator[bytes]:
    address = url.replace("http", "ws", 1) + "/v1/audio/speech/stream"
    settings = {"voice": request.voice, "seed": request.seed, "speed": request.speed}
    # Answers to pings wait behind the sound that a slow client has not read: none are asked for.
    async with connect(address, max_queue=2, open_timeout=120, ping_interval=None) as connection:
        await connection.send(json.dumps({"type": "session.config", **settings}))
        # As a language model writes: some letters at a time.
        for start in range(0, len(request.text), 7):
            piece = request.text[start : start + 7]
            await connection.send(json.dumps({"type": "input.text", "text": piece}))
        await connection.send(json.dumps({"type": "input.done"}))
        async for message in connection:
            if isinstance(message, bytes):
                yield message
                continue
            event = json.loads(message)
            if event["type"] == "audio.start":
                result.status = 101
                result.request_id = event["provenance"]["request_id"]
            elif event["type"] == "audio.done":
                return
            else:
                kind = event["error"]["type"]
                result.status = 429 if kind == "rate_limit_error" else 500
                raise ValueError(event["error"]["message"])
        raise ValueError("the connection ended before the speech")


def replay(
    bundle: str, results: list[Result], logged: dict[str, dict[str, Any]]
) -> tuple[list[Comparison], list[str]]:
    """Compares every request whose client received audio; and ids that the log does not have."""
    synthesizer = load_synthesizer(bundle)
    comparisons, missing = [], []
    for result in results:
        if not result.request_id or not result.data:
            continue
        if result.request_id not in logged:
            missing.append(result.request_id)
        else:
            comparisons.append(compare(synthesizer, result, logged[result.request_id]))
    return comparisons, missing


def summarise(
    results: list[Result],
    comparisons: list[Comparison],
    missing: list[str],
    measured: dict[str, Any],
    has_traceback: bool,
) -> dict[str, Any]:
    """Makes the report; `problems` is empty if the test has passed."""
    before, after = measured["before"], measured["after"]
    admitted = [result for result in results if result.status != 429]
    failed = [
        f"{result.request.audio_format} {result.request.behaviour}: {result.problem or 'cut off'}"
        for result in admitted
        if result.problem or (not result.is_whole and result.request.behaviour != "leaves")
    ]
    growth = after["resident_bytes"] / before["resident_bytes"] - 1
    problems = [f"failed: {reason}" for reason in failed]
    problems += [f"other audio: {item.request_id}: {item.audio_format}: {item.problem}"
                 for item in comparisons if item.problem]  # fmt: skip
    problems += [f"not in the log: {name}" for name in missing]
    for name in ("live_streams", "engine_sessions", "queue_length", "sockets"):
        if after[f"tokenlm_{name}"]:
            problems.append(f"{name} is {after[f'tokenlm_{name}']:g} in the end")
    if growth > MEMORY_SHARE:
        problems.append(f"memory grew by {100 * growth:.1f} %")
    if after["failed"]:
        problems.append(f"the server counts {after['failed']:g} failed utterances")
    if has_traceback:
        problems.append("the log of the server has a traceback")
    firsts = [r.first_audio_seconds for r in results if r.first_audio_seconds is not None]
    exact = [item for item in comparisons if item.audio_format not in ("mp3", "opus")]
    lossy = [item for item in comparisons if item.audio_format in ("mp3", "opus")]
    return {
        "requests": len(results),
        "of_them_to_warm_up": measured["num_warm"],
        "refused_with_429": len(results) - len(admitted),
        "by_format": dict(Counter(result.request.audio_format for result in results)),
        "by_behaviour": dict(Counter(result.request.behaviour for result in results)),
        "seconds_of_load": measured["seconds"],
        "seconds_of_speech_received": sum(item.num_samples for item in comparisons) / 24_000,
        "first_audio_seconds": {
            f"p{share}": float(np.percentile(firsts, share)) for share in (50, 95) if firsts
        },
        "compared": len(comparisons),
        "largest_difference": max((item.difference for item in exact), default=None),
        "largest_loss_db_of_lossy": max((item.loss_db for item in lossy), default=None),
        "memory_growth": growth,
        "before": before,
        "after": after,
        "problems": problems,
        "comparisons": [asdict(item) for item in comparisons],
    }
