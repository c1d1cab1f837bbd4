"""Monitoring: metrics for Prometheus, the health check, and the log of speech tokens."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from inference.engine import EngineError
from inference.server.errors import ApiError

RETRY_SECONDS = 5.0
"""After a failure, how long `HealthCheck.retry` waits for another stream to succeed."""
_SECONDS = (0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_FACTORS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0)

logger = logging.getLogger(__name__)


class Metrics:
    """Metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        """Creates all metrics, each at zero."""
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "tokenlm_requests",
            "Requests by route, method and status of the answer.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.utterances = Counter(
            "tokenlm_utterances",
            "Utterances by how they ended: done, left (the client went), failed.",
            ("end",),
            registry=registry,
        )
        self.first_audio = Histogram(
            "tokenlm_first_audio_seconds",
            "From a request to its first audio, time in the queue included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.real_time_factor = Histogram(
            "tokenlm_real_time_factor",
            "Time that a client waits for the models per second of speech, once per utterance.",
            buckets=_FACTORS,
            registry=registry,
        )
        self.audio_seconds = Counter(
            "tokenlm_audio_seconds", "Seconds of speech that were made.", registry=registry
        )
        self.live_streams = Gauge(
            "tokenlm_live_streams", "Utterances that are being spoken.", registry=registry
        )
        self.engine_sessions = Gauge(
            "tokenlm_engine_sessions", "Sessions that the engine holds.", registry=registry
        )
        self.queue_length = Gauge(
            "tokenlm_queue_length", "Requests that wait for their turn.", registry=registry
        )
        self.sockets = Gauge("tokenlm_sockets", "Open WebSockets.", registry=registry)
        # Every label is there from the start, with the value 0.
        for end in ("done", "left", "failed"):
            self.utterances.labels(end=end)

    def render(self) -> bytes:
        """Returns the metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class HealthCheck:
    """Whether the models work, by the last speech stream and by a trial. For one event loop."""

    def __init__(self, speak: Callable[[], Awaitable[None]], timeout_seconds: float) -> None:
        """Takes a function that speaks a short text, and how long that may take."""
        self.reason: str | None = None
        """Why the server cannot speak; None if it can."""
        self._speak = speak
        self._timeout_seconds = timeout_seconds
        self._failed_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def record(self, error: BaseException | None) -> None:
        """Records how a speech stream ended: well (None) or with an error.

        Errors that the client caused, or too many clients, do not count.
        """
        if error is None:
            if self.reason is not None:
                logger.info("the models speak again")
            self.reason = None
        elif is_internal(error):
            reason = error.message if isinstance(error, ApiError) else type(error).__name__
            self.reason = f"the last utterance failed: {reason}"
            self._failed_at = time.monotonic()

    async def run(self) -> None:
        """Speaks, and records how that ended."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._speak()
        except TimeoutError:
            self.record(ApiError(500, f"nothing came for {self._timeout_seconds:g} s."))
            logger.error("the server cannot speak: %s", self.reason)
        except Exception as error:
            self.record(error)
            if is_internal(error):
                logger.exception("the server cannot speak")
        else:
            self.record(None)

    def retry(self) -> None:
        """Runs in the background if the last failure is at least `RETRY_SECONDS` old."""
        is_running = self._task is not None and not self._task.done()
        if self.reason is None or is_running:
            return
        if time.monotonic() - self._failed_at >= RETRY_SECONDS:
            self._task = asyncio.get_running_loop().create_task(self.run())

    async def close(self) -> None:
        """Ends what runs in the background."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


def is_internal(error: BaseException) -> bool:
    """Whether an error means that the models fail, not that a request asks too much."""
    if isinstance(error, ApiError):
        return error.status == 500
    return isinstance(error, Exception) and not isinstance(
        error, (ValueError, EngineError, TimeoutError)
    )


class TokenLog:
    """A JSON lines file with the tokens of every speech stream, whole or cut short."""

    def __init__(self, path: Path | None) -> None:
        """Takes the file; None is no log."""
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **fields: Any) -> None:
        """Appends a line. A full disk is logged and stops no stream."""
        if self._path is None:
            return
        line = json.dumps(fields, ensure_ascii=False) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            logger.error("the tokens of an utterance are not logged: %s", error)


def read_token_log(path: Path) -> dict[str, dict[str, Any]]:
    """Reads the lines of a token log by request id.

    Raises:
        ValueError: a line is not what `TokenLog` writes; it is named.
    """
    lines: dict[str, dict[str, Any]] = {}
    # Only a line feed ends a line: a text may hold the other characters that `splitlines` takes.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            fields = json.loads(line)
            lines[fields["request_id"]] = fields
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number} is no line of a token log: {error}") from error
    return lines


__all__ = ["HealthCheck", "Metrics", "TokenLog", "is_internal", "read_token_log"]
