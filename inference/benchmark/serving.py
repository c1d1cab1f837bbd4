"""Load on a running server: first audio, real-time factor and continuity by number of streams.

The names of the figures are those of the benchmarks of LLM engines that speak: `audio_ttfp` (time
to the first packet), `audio_rtf` (real-time factor) and `audio_underrun` (how long a player waits).
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from inference.benchmark.subject import SENTENCE
from tokenlm.atomic import atomic_path
from tokenlm.report import markdown_table

STREAMS = (1, 2, 4, 8, 16, 32, 64)
LONGEST_UNDERRUN_MS = 100.0
"""Of a stream that counts as continuous."""
_SAMPLE_BYTES = 2


@dataclass(frozen=True)
class StreamFigures:
    """One request as its client saw it."""

    audio_ttfp_ms: float
    """From the request to the first packet of sound."""
    audio_rtf: float
    """Seconds from the request to the last packet for a second of speech."""
    audio_underrun_ms: float
    """How long a player that starts with the first packet waits for later ones, altogether."""
    seconds: float
    """Length of the speech."""


@dataclass(frozen=True)
class Load:
    """Figures of a number of streams at once; medians and the 95th percentile."""

    streams: int
    requests: int
    failed: int
    """Refused, cut off or without sound."""
    audio_ttfp_ms: float
    audio_ttfp_ms_p95: float
    audio_rtf: float
    audio_underrun_ms_p95: float
    continuous: float
    """Share of the streams whose underrun is at most 100 ms; those that failed are not."""
    throughput: float
    """Seconds of speech for a second of the measurement."""


def underrun(packets: Sequence[tuple[float, float]]) -> float:
    """Seconds that a player waits which starts with the first packet.

    Args:
        packets: time of arrival and length in seconds of each, in order.
    """
    longest = played = 0.0
    for arrived, seconds in packets:
        longest = max(longest, arrived - packets[0][0] - played)
        played += seconds
    return longest


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that is not below a share of them; nan of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * share - 1e-9) - 1]


async def listen(
    client: httpx.AsyncClient, text: str, voice: str, seed: int
) -> StreamFigures | None:
    """Asks for speech and times its packets; None where there is no whole speech.

    Raises:
        ValueError: what answers is another kind of server.
    """
    body = {"input": text, "response_format": "pcm", "seed": seed}
    if voice:
        body["voice"] = voice
    start, packets, rest = time.perf_counter(), [], 0
    try:
        async with client.stream("POST", "/v1/audio/speech", json=body) as response:
            if response.status_code != 200:
                return None
            rate = response.headers.get("x-sample-rate", "")
            if not rate.isdecimal() or int(rate) < 1:
                raise ValueError(
                    f"{client.base_url} answers without X-Sample-Rate; is it the address of a "
                    "`tokenlm serve`?"
                )
            async for piece in response.aiter_raw():
                whole, rest = divmod(rest + len(piece), _SAMPLE_BYTES)
                if whole:
                    packets.append((time.perf_counter() - start, whole / int(rate)))
    except (httpx.HTTPError, OSError):
        return None
    if not packets:
        return None
    seconds = sum(length for _, length in packets)
    return StreamFigures(
        audio_ttfp_ms=1000 * packets[0][0],
        audio_rtf=packets[-1][0] / seconds,
        audio_underrun_ms=1000 * underrun(packets),
        seconds=seconds,
    )


def summarise(streams: int, results: Sequence[StreamFigures | None], seconds: float) -> Load:
    """The figures of one number of streams, which took `seconds` altogether."""
    heard = [result for result in results if result is not None]
    firsts = [result.audio_ttfp_ms for result in heard]
    underruns = [result.audio_underrun_ms for result in heard]
    return Load(
        streams=streams,
        requests=len(results),
        failed=len(results) - len(heard),
        audio_ttfp_ms=percentile(firsts, 0.5),
        audio_ttfp_ms_p95=percentile(firsts, 0.95),
        audio_rtf=statistics.median([r.audio_rtf for r in heard]) if heard else float("nan"),
        audio_underrun_ms_p95=percentile(underruns, 0.95),
        continuous=sum(value <= LONGEST_UNDERRUN_MS for value in underruns) / len(results),
        throughput=sum(result.seconds for result in heard) / seconds,
    )


async def measure_server(
    url: str,
    *,
    key: str = "",
    voice: str = "",
    text: str = SENTENCE,
    streams: Sequence[int] = STREAMS,
    runs: int = 3,
) -> list[Load]:
    """Puts each number of streams on a server, in turn.

    Every client asks `runs` times, one request after the other, so that the streams are at
    different places after a while, as those of listeners are.

    Args:
        url: of the server.
        key: one of its keys, where it has any.
        voice: default the server's.
        text: that is spoken.
        streams: numbers of clients.
        runs: requests of each client.

    Raises:
        ValueError: the server does not answer, refuses the first request, or is of another kind;
            the address is none; `runs` is below 1.
    """
    if runs < 1:
        raise ValueError(f"runs must be at least 1, got {runs}")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=max(streams) + 1)
    loads = []
    try:
        if (httpx.URL(url).port or 0) > 65535:
            raise httpx.InvalidURL("its port is above 65535")
        client = httpx.AsyncClient(base_url=url, headers=headers, timeout=600.0, limits=limits)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url} is no address of a server: {error}") from None
    async with client:
        if await listen(client, text, voice, 0) is None:  # the voice is read, the code is warm
            raise ValueError(f"{url} does not speak; is it the address of a `tokenlm serve`?")

        async def client_of(number: int) -> list[StreamFigures | None]:
            seeds = range(number * runs, (number + 1) * runs)
            return [await listen(client, text, voice, seed) for seed in seeds]

        for count in streams:
            start = time.perf_counter()
            several = await asyncio.gather(*(client_of(number) for number in range(count)))
            seconds = time.perf_counter() - start
            loads.append(summarise(count, [r for results in several for r in results], seconds))
    return loads


def table(loads: Sequence[Load]) -> str:
    """The figures as a table in Markdown."""
    heads = ["streams", "requests", "failed", "audio_ttfp ms", "p95", "audio_rtf"]
    heads += ["audio_underrun ms p95", "continuous", "speech s/s"]
    rows = [
        [
            str(load.streams),
            str(load.requests),
            str(load.failed),
            f"{load.audio_ttfp_ms:.0f}",
            f"{load.audio_ttfp_ms_p95:.0f}",
            f"{load.audio_rtf:.2f}",
            f"{load.audio_underrun_ms_p95:.0f}",
            f"{load.continuous:.0%}",
            f"{load.throughput:.2f}",
        ]
        for load in loads
    ]
    return markdown_table(heads, rows)


def write_loads(folder: Path, loads: Sequence[Load]) -> Path:
    """Writes `serving.json` and `serving.md`; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "serving.json": json.dumps([asdict(load) for load in loads], indent=2) + "\n",
        "serving.md": table(loads) + "\n",
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / "serving.md"
