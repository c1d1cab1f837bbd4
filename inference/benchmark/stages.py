"""Where the time of a session goes: clocks around its components, and the memory of the process."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import nn


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
    """The most memory that this process has held so far (resident, high-water mark)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
