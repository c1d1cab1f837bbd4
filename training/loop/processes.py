"""The process that trains: its device, its ranks, its signals and what it runs on."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env

from tokenlm.atomic import write_text
from training.config import RunConfig, resolve_precision


def make_accelerator(config: RunConfig, folder: Path) -> Accelerator:
    """Find the device and the other ranks, as `accelerate launch` set them up."""
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    zero = parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")
    options: dict[str, Any] = {}
    if cpu and zero:
        # Asked for the CPU, accelerate leaves DeepSpeed out; not asked for it and without a backend
        # it makes every rank a world of its own.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        cpu, options = False, {"backend": "gloo"}
        _keep_to_gloo()
    # Evaluation and export run on the first rank alone, while the others wait.
    device = PartialState(cpu=bool(cpu), timeout=timedelta(hours=6), **options).device
    assert device is not None
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    precision = resolve_precision(config.precision, device)
    accelerator = Accelerator(
        cpu=bool(cpu),
        # Under DeepSpeed this would be the precision of the weights, not of the arithmetic.
        mixed_precision="bf16" if precision == "bf16" and not zero else "no",
        log_with=list(config.log.trackers) or None,
        project_dir=str(folder),
    )
    if zero:
        # accelerate makes transformers shard every backbone while it is built,
        # whatever `zero3_init_flag` says: copies, initial weights and broadcasts need it whole.
        from transformers.integrations import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()
    return accelerator


def _keep_to_gloo() -> None:
    """Keep DeepSpeed from compiling its own sums for CPUs when the ranks meet.

    The compiler takes minutes, and a rank without one (or without ninja) ends with an error.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


@contextmanager
def stop_signals(request_stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the run after the step; a second one ends it at once."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    try:
        before = {number: signal.getsignal(number) for number in numbers}

        def handle(number: int, frame: Any) -> None:
            request_stop()
            signal.signal(number, before[signal.Signals(number)])

        for number in numbers:
            signal.signal(number, handle)
    except ValueError:  # not in the main thread: signals are somebody else's
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_group() -> None:
    """Leave the other ranks: the last thing that a launched process does.

    The threads of a group that is never left may outlive the interpreter, and abort a process
    whose work is done.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def agree_on_stop(reason: str, device: torch.device, num_ranks: int) -> str:
    """Make all ranks stop for the same reason, or none; "" is none, "regression" goes first."""
    if num_ranks == 1:
        return reason
    reasons = ("", "max_minutes", "converged", "signal", "regression")
    code = torch.tensor(reasons.index(reason), device=device)
    torch.distributed.all_reduce(code, torch.distributed.ReduceOp.MAX)
    return reasons[int(code)]


def write_environment(folder: Path, **facts: Any) -> None:
    """Write environment.json: versions of what the numbers depend on, and `facts`."""
    packages = {}
    for name in ("tokenlm", "torch", "accelerate", "transformers", "numpy", "soundfile", "soxr"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = None
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "num_threads": torch.get_num_threads(),
        "arguments": sys.argv[1:],
        **facts,
    }
    write_text(folder / "environment.json", json.dumps(environment, indent=1))
