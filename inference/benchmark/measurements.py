"""Measurements of streaming: cold start, first audio, real-time factor, state, throughput.

Each row of the report is the median of several runs; what is compared is measured in one process.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.benchmark.cold_start import measure_cold_starts
from inference.benchmark.subject import SENTENCE, Subject
from inference.benchmark.timeline import Timeline, peak_memory_bytes, stage_clock, watch
from inference.engine import StreamEngine
from tokenlm.synthesis.stream import SynthesisStream

CONCURRENT = (1, 2, 4)
"""Numbers of concurrent sessions."""


@dataclass(frozen=True)
class Row:
    """One figure of the report."""

    name: str
    value: float
    """The median of the runs, in `unit`."""
    unit: str = ""
    """Empty for a ratio."""
    floor: float | None = None
    """The bound that must be met; None where there is none."""
    aim: float | None = None
    """The bound that should be met."""
    higher_is_better: bool = False
    """Whether the bounds are lower bounds."""
    values: tuple[float, ...] = ()
    """Of the single runs."""
    note: str = ""
    """How it was measured."""

    @property
    def verdict(self) -> str:
        """The best bound that is met: "aim", "floor" or "missed"; empty without bounds."""
        if self.floor is None or self.aim is None:
            return ""
        sign = -1.0 if self.higher_is_better else 1.0
        if sign * self.value <= sign * self.aim:
            return "aim"
        return "floor" if sign * self.value <= sign * self.floor else "missed"


@dataclass
class Measurements:
    """The rows of the report, and the data of its plots."""

    rows: list[Row] = field(default_factory=list)
    first: Timeline = field(default_factory=Timeline)
    """The last short session."""
    long: Timeline = field(default_factory=Timeline)
    """The last long session."""
    throughput: dict[int, float] = field(default_factory=dict)
    """Seconds of speech made in a second, by number of concurrent sessions."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Which parts are measured, and how long.

    Raises:
        ValueError: a part is not one of `PARTS`, or there is none.
    """

    num_runs: int = 5
    """Runs whose median is a row."""
    long_seconds: float = 60.0
    """Speech of the long session. The session of the real-time factor has half of it, concurrent
    sessions a quarter."""
    parts: tuple[str, ...] = ("cold", "first", "factor", "long", "shares", "concurrent")
    """Names of `PARTS`."""

    def __post_init__(self) -> None:
        if not self.parts or not set(self.parts) <= set(PARTS):
            raise ValueError(f"parts are {', '.join(PARTS)}; got {', '.join(self.parts) or 'none'}")


def measure(
    subject: Subject,
    config: BenchmarkConfig,
    on_part: Callable[[str], None],
    on_result: Callable[[Measurements], object] = lambda measurements: None,
) -> Measurements:
    """Measures the parts of the benchmark that need no judge.

    Args:
        subject: what is measured.
        config: which parts, and how long.
        on_part: called with the title of each part when it begins.
        on_result: called with the measurements so far after each part, so that those of a long
            benchmark that is interrupted are not lost.

    Returns:
        The measurements of all parts, with peak memory as the last row.
    """
    measurements = Measurements()
    stream_once(subject, subject.forced(20))  # the prompt is read, the code is warm
    for name in config.parts:
        title, part = PARTS[name]
        on_part(title)
        part(subject, config, measurements)
        on_result(measurements)
    measurements.rows.append(
        Row("peak memory", peak_memory_bytes() / 1e6, "MB", note="resident, of the whole benchmark")
    )
    return measurements


def stream_once(subject: Subject, forced: Sequence[Sequence[int]] | None = None) -> Timeline:
    """Speaks `SENTENCE` as one stream, as fast as it goes.

    Args:
        subject: what speaks.
        forced: speech tokens of each segment that replace those that the LM draws.

    Returns:
        The timeline, with bytes of state and of the cache of the LM after each chunk.
    """
    synthesizer = subject.synthesizer

    def open_stream() -> SynthesisStream:
        session = synthesizer.open_session(SENTENCE, voice=subject.voice, forced_tokens=forced)
        return SynthesisStream(session, synthesizer.sample_rate)

    def sizes(stream: Any) -> tuple[int, int]:
        return stream.num_state_bytes, stream.num_cache_bytes

    return watch(open_stream, synthesizer.sample_rate, sizes)


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def _first_audio(subject: Subject, config: BenchmarkConfig, measurements: Measurements) -> None:
    forced = None if subject.has_weights else subject.forced(75)
    lines = [stream_once(subject, forced) for _ in range(config.num_runs)]
    values = [line.time_to_first_audio for line in lines]
    measurements.first = lines[-1]
    row = Row(
        "time to first audio",
        1000 * _median(values),
        "ms",
        500.0,
        150.0,
        values=tuple(1000 * value for value in values),
        note="80 ms of sound are there, and a player started then never runs dry",
    )
    measurements.rows.append(row)


def _real_time_factor(
    subject: Subject, config: BenchmarkConfig, measurements: Measurements
) -> None:
    seconds = config.long_seconds / 2
    forced = subject.forced(subject.num_tokens(seconds))
    values = [stream_once(subject, forced).real_time_factor for _ in range(config.num_runs)]
    row = Row(
        "real-time factor",
        _median(values),
        "",
        0.6,
        0.25,
        values=tuple(values),
        note=f"one session of {seconds:g} s, in one segment, forced tokens",
    )
    measurements.rows.append(row)


def _stage_shares(subject: Subject, config: BenchmarkConfig, measurements: Measurements) -> None:
    components = subject.synthesizer.components
    seconds = config.long_seconds / 2
    forced = subject.forced(subject.num_tokens(seconds))
    stages = {
        "backbone of the LM": components.speech_lm.backbone,
        "encoder of the flow": components.flow.encoder,
        "estimator of the flow": components.flow.estimator,
        "vocoder": components.vocoder,
    }
    with stage_clock(stages) as spent:
        wall = stream_once(subject, forced).wall_seconds
    spent = spent | {"all else": wall - sum(spent.values())}
    note = f"of the wall time of a session of {seconds:g} s, one run; flushes are in all else"
    measurements.rows += [
        Row(f"share of {name}", 100 * value / wall, "%", note=note) for name, value in spent.items()
    ]


@dataclass(frozen=True)
class _WholeCost:
    """Cost of speech that is made whole."""

    wall_seconds: float
    cpu_seconds: float
    seconds: float
    """Length of the speech."""


def _make_whole(subject: Subject, forced: Sequence[Sequence[int]]) -> _WholeCost:
    """Makes the speech of `stream_once` whole, in the same context."""
    synthesizer = subject.synthesizer
    session = synthesizer.open_session(SENTENCE, voice=subject.voice, forced_tokens=forced)
    start, wall = time.process_time(), time.perf_counter()
    waveform = session.generate()
    return _WholeCost(
        wall_seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - start,
        seconds=waveform.shape[-1] / synthesizer.sample_rate,
    )


def _long_session(subject: Subject, config: BenchmarkConfig, measurements: Measurements) -> None:
    forced = subject.forced(subject.num_tokens(config.long_seconds))
    window = config.long_seconds / 6
    lines, ratios, factors = [], [], []
    for _ in range(config.num_runs):
        line = stream_once(subject, forced)
        whole = _make_whole(subject, forced)
        ratios.append(line.cpu_seconds / max(whole.cpu_seconds, 1e-9))
        factors.append(whole.wall_seconds / max(whole.seconds, 1e-9))
        lines.append(line)
    growth = [
        line.cpu_between(line.seconds - window, line.seconds) / line.cpu_between(0.0, window)
        for line in lines
    ]
    early, late = lines[-1].bytes_at(window), lines[-1].bytes_at(lines[-1].seconds - 2.0)
    length = f"{config.long_seconds:g} s"
    streamed = [line.real_time_factor for line in lines]
    measurements.long = lines[-1]
    measurements.rows += [
        Row(
            "real-time factor of the long session",
            _median(streamed),
            values=tuple(streamed),
            note=f"wall seconds for a second of speech, {length} streamed in one segment, forced "
            "tokens",
        ),
        Row(
            "real-time factor of a whole rendering",
            _median(factors),
            values=tuple(factors),
            note=f"wall seconds for a second of speech, {length} made whole in the default "
            "context, forced tokens",
        ),
        Row(
            "streamed over whole",
            _median(ratios),
            "",
            1.4,
            1.1,
            values=tuple(ratios),
            note=f"processor seconds of a session of {length} over the same made whole in the "
            "default context, forced tokens",
        ),
        Row(
            "cost at the end over cost at the start",
            _median(growth),
            "",
            1.15,
            1.05,
            values=tuple(growth),
            note=f"processor seconds for a second of speech, last {window:g} s over first, "
            f"in one segment of {length}",
        ),
        Row(
            "state at the end over state at the start",
            late[0] / max(early[0], 1),
            "",
            1.0,
            1.0,
            note=f"{late[0]:,} bytes at the end, {early[0]:,} after {window:g} s",
        ),
        Row(
            "cache of the LM at the end",
            late[1] / 1e6,
            "MB",
            note=f"{early[1] / 1e6:.2f} MB after {window:g} s; it ends with each segment",
        ),
    ]


def _concurrent(subject: Subject, config: BenchmarkConfig, measurements: Measurements) -> None:
    measurements.throughput, row = asyncio.run(_concurrent_sessions(subject, config))
    measurements.rows.append(row)


async def _concurrent_sessions(
    subject: Subject, config: BenchmarkConfig
) -> tuple[dict[int, float], Row]:
    seconds = config.long_seconds / 4
    forced = subject.forced(subject.num_tokens(seconds))
    engine = StreamEngine(subject.synthesizer, max_streams=max(CONCURRENT))
    speeds: dict[int, list[float]] = {number: [] for number in CONCURRENT}
    try:
        for _ in range(config.num_runs):
            for number in CONCURRENT:
                start = time.perf_counter()
                lengths = await asyncio.gather(
                    *(_listen(engine, subject, forced, seed) for seed in range(number))
                )
                speeds[number].append(sum(lengths) / (time.perf_counter() - start))
    finally:
        await engine.close(0)
    most = max(CONCURRENT)
    gains = [many / one for many, one in zip(speeds[most], speeds[1], strict=True)]
    row = Row(
        f"throughput of {most} sessions over one",
        _median(gains),
        "",
        1.5,
        2.5,
        higher_is_better=True,
        values=tuple(gains),
        note=f"seconds of speech in a second, sessions of {seconds:g} s",
    )
    return {number: _median(values) for number, values in speeds.items()}, row


async def _listen(
    engine: StreamEngine, subject: Subject, forced: Sequence[Sequence[int]], seed: int
) -> float:
    stream = await engine.open(
        SENTENCE,
        voice=subject.voice,
        seed=seed,
        max_buffer_seconds=3600.0,
        forced_tokens=forced,
    )
    num_samples = 0
    async for chunk in stream:
        num_samples += chunk.shape[0]
    return num_samples / engine.sample_rate


def _cold_start(subject: Subject, config: BenchmarkConfig, measurements: Measurements) -> None:
    """Of commands in new processes. Random weights are in no bundle that these could load."""
    if not subject.has_weights:
        return
    for runs in measure_cold_starts(subject.synthesizer.components.folder, config.num_runs):
        command = runs.command
        measurements.rows.append(
            Row(
                f"start of the process to its end: {command.name}",
                _median(runs.wall_seconds),
                "s",
                command.floor,
                command.aim,
                values=runs.wall_seconds,
                note=f"{runs.cpu_median:.2f} s of the processor",
            )
        )


PARTS: dict[str, tuple[str, Callable[[Subject, BenchmarkConfig, Measurements], None]]] = {
    "cold": ("the start of the process", _cold_start),
    "first": ("time to first audio", _first_audio),
    "factor": ("real-time factor", _real_time_factor),
    "long": ("a long session, streamed and whole", _long_session),
    "shares": ("shares of the stages", _stage_shares),
    "concurrent": ("sessions at once", _concurrent),
}
"""Parts of the benchmark that need no judge: title and function by name."""
