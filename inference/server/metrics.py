"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_FACTORS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
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
        # A reader sees every way of ending, also those that did not happen yet.
        for end in ("done", "left", "failed"):
            self.utterances.labels(end=end)

    def render(self) -> bytes:
        """In the text format of Prometheus."""
        return generate_latest(self.registry)
