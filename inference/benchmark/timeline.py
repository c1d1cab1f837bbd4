"""The timeline of a stream, chunk by chunk, and the time that each stage takes.

Shapes: S samples.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tokenlm.audio.joining import ENOUGH_SOUND_SECONDS, sound_seconds


@dataclass(frozen=True)
class Event:
    """One chunk of a stream."""

    wall_seconds: float
    """Time from the start of the stream until the chunk was ready."""
    cpu_seconds: float
    """Processor time of the process from the start until then."""
    seconds: float
    """Length of the chunk."""
    sound_seconds: float
    """Length of what is not silence in it."""
    state_bytes: int = 0
    """Memory of the states of flow and vocoder after it."""
    cache_bytes: int = 0
    """Memory of the cache of the LM after it."""


@dataclass
class Timeline:
    """The chunks of one stream."""

    events: list[Event] = field(default_factory=list)
    """In the order in which they came."""
    wall_seconds: float = 0.0
    """Time from the start to the end of the stream."""
    cpu_seconds: float = 0.0
    """Processor time of the process meanwhile."""

    @property
    def seconds(self) -> float:
        """Length of the speech, in seconds."""
        return sum(event.seconds for event in self.events)

    @property
    def real_time_factor(self) -> float:
        """Wall seconds for a second of speech; below 1 is faster than it is heard."""
        return self.wall_seconds / max(self.seconds, 1e-9)

    @property
    def time_to_first_audio(self) -> float:
        """Seconds until a player can be started that is heard at once and never runs dry.

        The chunks so far must hold `ENOUGH_SOUND_SECONDS` of sound, and no later chunk may come
        after all before it have been played. A silent stream gives its wall time.
        """
        sound = length = 0.0
        start = None
        for event in self.events:
            sound += event.sound_seconds
            if start is None and sound >= ENOUGH_SOUND_SECONDS:
                start = event.wall_seconds
            if start is not None and length:
                start = max(start, event.wall_seconds - length)
            length += event.seconds
        return self.wall_seconds if start is None else start

    def cpu_between(self, start: float, end: float) -> float:
        """Processor seconds for a second of speech, from `start` to `end` seconds of the speech."""
        length = cost = before = previous = 0.0
        for event in self.events:
            # A chunk that lies only partly there counts for that part.
            inside = max(min(end, before + event.seconds) - max(start, before), 0.0)
            length += inside
            cost += (event.cpu_seconds - previous) * inside / event.seconds
            before += event.seconds
            previous = event.cpu_seconds
        return cost / max(length, 1e-9)

    def bytes_at(self, seconds: float) -> tuple[int, int]:
        """Bytes of state and of the cache of the LM after the first `seconds` of the speech."""
        length = 0.0
        sizes = (0, 0)
        for event in self.events:
            length += event.seconds
            if event.state_bytes:
                sizes = (event.state_bytes, event.cache_bytes)
            if length >= seconds:
                break
        return sizes


def watch(
    chunks: Callable[[], Iterable[Tensor]],
    sample_rate: int,
    sizes: Callable[[Iterable[Tensor]], tuple[int, int]] = lambda _: (0, 0),
) -> Timeline:
    """Reads a stream to its end as fast as it goes.

    Args:
        chunks: opens the stream, whose chunks are waveforms (S,).
        sample_rate: in hertz.
        sizes: bytes of state and of the cache of the LM, of the stream after a chunk.
    """
    timeline = Timeline()
    start, cpu_start = time.perf_counter(), time.process_time()
    stream = chunks()
    for chunk in stream:
        now, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        state, cache = sizes(stream)
        timeline.events.append(
            Event(
                wall_seconds=now,
                cpu_seconds=cpu,
                seconds=chunk.shape[0] / sample_rate,
                sound_seconds=sound_seconds(chunk, sample_rate),
                state_bytes=state,
                cache_bytes=cache,
            )
        )
    timeline.wall_seconds = time.perf_counter() - start
    timeline.cpu_seconds = time.process_time() - cpu_start
    return timeline


@contextmanager
def stage_clock(stages: Mapping[str, nn.Module]) -> Iterator[dict[str, float]]:
    """Times every call of some modules, none of which holds another.

    Args:
        stages: by the name under which the time is kept.

    Yields:
        Wall seconds by name, growing while the modules are called. Only calls of the modules
        themselves count, which on a GPU would be the time of queueing them.
    """
    seconds = dict.fromkeys(stages, 0.0)
    with ExitStack() as stack:
        for name, module in stages.items():
            _attach(stack, name, module, seconds)
        yield seconds


def _attach(stack: ExitStack, name: str, module: nn.Module, seconds: dict[str, float]) -> None:
    starts: list[float] = []

    def before(*_: object) -> None:
        starts.append(time.perf_counter())

    def after(*_: object) -> None:
        seconds[name] += time.perf_counter() - starts.pop()

    stack.callback(module.register_forward_pre_hook(before).remove)
    stack.callback(module.register_forward_hook(after).remove)


def peak_memory_bytes() -> int:
    """Most resident memory of this process so far, in bytes (high-water mark)."""
    if sys.platform == "win32":
        return _peak_on_windows()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _peak_on_windows() -> int:
    """The peak working set, by the interface of the system."""
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):
        _fields_ = [
            ("cb", wintypes.DWORD),
            ("PageFaultCount", wintypes.DWORD),
            ("PeakWorkingSetSize", ctypes.c_size_t),
            *((f"other_{number}", ctypes.c_size_t) for number in range(7)),
        ]

    counters = Counters(cb=ctypes.sizeof(Counters))
    libraries: Any = ctypes.windll  # type: ignore[attr-defined]
    process = wintypes.HANDLE(libraries.kernel32.GetCurrentProcess())
    libraries.psapi.GetProcessMemoryInfo(process, ctypes.byref(counters), counters.cb)
    return int(counters.PeakWorkingSetSize)
