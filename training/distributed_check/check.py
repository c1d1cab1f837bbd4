"""The rows of `scripts/check_distributed`; see training/README.md."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file

from training.checkpointing import latest_checkpoint
from training.distributed_check.toy import make_corpus, stage_config
from training.stages import STAGES

TOLERANCE = 1e-4
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "accelerate"
STRATEGIES = ("ddp", "fsdp2", "zero1", "zero2", "zero3")
# accelerate knows FSDP on accelerators only: on a CPU its state stays MULTI_CPU, and the sharding
# is that of the loop, which the shares prove.
CPU_TYPES = {"ddp": "MULTI_CPU", "fsdp2": "MULTI_CPU"}
GPU_TYPES = {"ddp": "MULTI_GPU", "fsdp2": "FSDP"}

FAILED_RANK = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")
LAUNCHER = re.compile(r"torch/distributed/elastic/|failed \(exitcode: |Sending process \d+ closing")


class CheckError(AssertionError):
    """A row that failed; the sentence says what was found."""


@dataclass
class Launch:
    """What came of one launch."""

    run: Path
    status: int
    output: str
    seconds: float
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def losses(self) -> list[float]:
        """The total loss of every step."""
        path = self.run / "metrics.jsonl"
        if not path.exists():
            raise CheckError(f"{self.run.name} wrote no metrics.jsonl")
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [value for row in rows for key, value in row.items() if key.startswith("total/")]


class Check:
    """Runs the rows and keeps their table."""

    def __init__(self, folder: Path, limit_seconds: float) -> None:
        """Make the corpus."""
        self.folder, self.limit_seconds = folder, limit_seconds
        self.rows: list[tuple[str, bool, str, float]] = []
        make_corpus(folder / "corpus")

    def launch(
        self,
        strategy: str,
        num_ranks: int,
        stage: str,
        name: str,
        fault: str = "",
        **changes: Any,
    ) -> Launch:
        """Train a stage in a folder `name` with one of configs/accelerate."""
        run = self.folder / name
        config = stage_config(self.folder / "corpus", stage, run, **changes)
        result = run.with_suffix(".json")
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
        command += ["--config_file", str(CONFIGS / f"{strategy}.yaml")]
        command += ["--num_processes", str(num_ranks), "--main_process_port", str(_free_port())]
        command += ["-m", "training.distributed_check.worker", str(config), str(result)]
        began = time.monotonic()
        with subprocess.Popen(
            [*command, *([fault] if fault else [])],
            # A rank that aborts prints where it was.
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONFAULTHANDLER": "1",
                "PYTHONPATH": str(CONFIGS.parents[1]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        ) as started:
            try:
                texts = started.communicate(timeout=self.limit_seconds)
            except subprocess.TimeoutExpired as error:
                end_with_children(started.pid)
                raise CheckError(f"{name} did not end in {self.limit_seconds:g} s") from error
        launch = Launch(run, started.returncode, "".join(texts), time.monotonic() - began)
        if result.exists():
            launch.found = json.loads(result.read_text(encoding="utf-8"))
        return launch

    def row(self, name: str, check: Callable[[], str]) -> None:
        """Run one row; a failure is noted and the rest goes on."""
        began = time.monotonic()
        try:
            told, passed = check(), True
        except CheckError as error:
            told, passed = str(error), False
        except Exception as error:  # a row that breaks is a row that failed
            told, passed = f"{type(error).__name__}: {error}", False
        self.rows.append((name, passed, told, time.monotonic() - began))
        print(self.line(self.rows[-1]), flush=True)

    def line(self, row: tuple[str, bool, str, float]) -> str:
        """One line of the table."""
        name, passed, told, seconds = row
        return f"{'ok  ' if passed else 'FAIL'}  {name:<34} {seconds:5.0f} s  {told}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_with_children(pid: int) -> None:
    """Kill a launcher and its ranks, which lead sessions of their own and would stay."""
    launcher = psutil.Process(pid)
    for process in (*launcher.children(recursive=True), launcher):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def was_killed(output: str, rank: int) -> bool:
    """Whether the launcher told that `rank` was the first to fail, by SIGKILL."""
    return any(
        match[1] == str(-signal.SIGKILL) and match[2] == str(rank)
        for match in FAILED_RANK.finditer(output)
    )


def failure_text(status: int, output: str) -> str:
    """Which rank of a launch failed first, and the last lines before its launcher spoke.

    Args:
        status: Exit status of the launcher.
        output: Text of the ranks, and of the launcher after it.

    Returns:
        One line with the cause, then up to 12 indented lines.
    """
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    dead = FAILED_RANK.search(output)
    told = f"ended with {status}"
    if dead is not None:
        told += f", rank {dead[2]} with {dead[1]}"
        # The launcher's own report and traceback hide what the rank said.
        spoke = [n for n, line in enumerate(lines) if LAUNCHER.search(line)]
        lines = lines[: spoke[0]] if spoke else lines
        own = [line for line in lines if line.startswith(f"[rank{dead[2]}]")]
        lines = own or lines
    return "\n        ".join([told, *lines[-12:]])


def require_success(launch: Launch) -> None:
    """Raise if a launch failed."""
    if launch.status or not launch.found:
        raise CheckError(f"{launch.run.name} {failure_text(launch.status, launch.output)}")


def require_spread(launch: Launch, strategy: str, num_ranks: int) -> None:
    """Raise if the ranks have not met, or what should be in pieces is whole."""
    found = launch.found
    types = GPU_TYPES if torch.cuda.is_available() else CPU_TYPES
    expected = types.get(strategy, "DEEPSPEED")
    if (found["distributed_type"], found["num_ranks"]) != (expected, num_ranks):
        raise CheckError(
            f"accelerate says {found['distributed_type']} with {found['num_ranks']} ranks, "
            f"expected {expected} with {num_ranks}"
        )
    if found["strategy"] != strategy:
        raise CheckError(f"the loop took the strategy {found['strategy']}")
    # Blocks are cut along their first axis, so pieces are equal only nearly.
    piece = (0.8 / num_ranks, 1.3 / num_ranks)
    whole = (0.999, 1.001)
    weights = piece if strategy in ("fsdp2", "zero3") else whole
    optimizer = whole if strategy == "ddp" else piece
    for what, (low, high) in (("weights", weights), ("optimizer", optimizer)):
        share = found["shares"][what]
        if not low <= share <= high:
            raise CheckError(
                f"a rank keeps {share:.3f} of the {what}, expected {low:.2f}–{high:.2f}"
            )


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Largest relative difference of two loss curves.

    Raises:
        CheckError: If they are not of the same length.
    """
    if len(one) != len(other) or not one:
        raise CheckError(f"{len(one)} and {len(other)} steps")
    return max(abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in zip(one, other, strict=True))


def same_weights(one: Path, other: Path) -> bool:
    """Whether the newest checkpoints of two runs hold the same weights, to the last bit.

    Raises:
        CheckError: If there is nothing to compare.
    """
    found = [latest_checkpoint(run) for run in (one, other)]
    if found[0] is None or found[1] is None:
        raise CheckError(f"{one.name} or {other.name} has no checkpoint")
    first_names, names = (
        sorted(p.name for p in path.glob("*.safetensors")) for path in found if path
    )
    if not names or names != first_names:
        raise CheckError(f"checkpoints hold {first_names} and {names}")
    for name in names:
        first, second = (load_file(path / name) for path in found if path is not None)
        if first.keys() != second.keys():
            return False
        if any(not torch.equal(value, second[key]) for key, value in first.items()):
            return False
    return True


STEPS = {"max_steps": 50, "warmup_steps": 5}


def run_rows(check: Check, chosen: str) -> None:
    """Run all rows whose name holds `chosen`."""
    references: dict[str, Launch] = {}

    def reference(stage: str, num_steps: int) -> Launch:
        key = f"one-{stage}-{num_steps}"
        if key not in references:
            optim = {"max_steps": num_steps, "warmup_steps": 2}
            made = check.launch("single", 1, stage, key, optim=optim, batch={"accumulation": 2})
            require_success(made)
            references[key] = made
        return references[key]

    def equals(strategy: str, stage: str, num_steps: int) -> str:
        optim = {"max_steps": num_steps, "warmup_steps": 2}
        two = check.launch(strategy, 2, stage, f"{strategy}-{stage}", optim=optim)
        require_success(two)
        require_spread(two, strategy, 2)
        difference = largest_difference(reference(stage, num_steps).losses, two.losses)
        if difference > TOLERANCE:
            raise CheckError(f"losses differ by {difference:.1e} from one process")
        shares = two.found["shares"]
        return (
            f"{two.found['distributed_type']}, {num_steps} steps, differ by {difference:.0e}; a "
            f"rank keeps {shares['weights']:.2f} of weights, {shares['optimizer']:.2f} of state"
        )

    def fault(name: str) -> str:
        two = check.launch("ddp", 2, "speech_lm", f"fault-{name}", fault=name, optim=STEPS)
        require_success(two)
        one = reference("speech_lm", 50)
        difference = largest_difference(one.losses, two.losses)
        if difference <= TOLERANCE:
            raise CheckError(f"the fault was not seen: losses differ by {difference:.1e} only")
        return f"seen: losses differ by {difference:.1e}"

    def killed(strategy: str) -> str:
        optim = {"max_steps": 12, "warmup_steps": 2}
        name = f"killed-{strategy}"
        dead = check.launch(strategy, 2, "speech_lm", name, fault="killed_rank", optim=optim)
        if dead.status == 0 or not was_killed(dead.output, rank=1):
            raise CheckError(f"a killed rank was not told: status {dead.status}")
        require_success(check.launch(strategy, 2, "speech_lm", name, optim=optim))
        whole = check.launch(strategy, 2, "speech_lm", f"whole-{strategy}", optim=optim)
        require_success(whole)
        if not same_weights(dead.run, whole.run):
            raise CheckError("resumed on 2, it is not the run that was never interrupted")
        return f"ended after {dead.seconds:.0f} s with status {dead.status}; resumed to the bit"

    def resized() -> str:
        first, whole = {"max_steps": 10, "warmup_steps": 2}, {"max_steps": 20, "warmup_steps": 2}
        constant = {"decay": "constant"}
        four = check.launch("fsdp2", 4, "speech_lm", "resized", optim={**first, **constant})
        require_success(four)
        require_spread(four, "fsdp2", 4)
        two = check.launch(
            "fsdp2", 2, "speech_lm", "resized", optim={**whole, **constant},
            batch={"accumulation": 2},
        )  # fmt: skip
        require_success(two)
        one = check.launch(
            "single", 1, "speech_lm", "never-resized", optim={**whole, **constant},
            batch={"accumulation": 4},
        )  # fmt: skip
        require_success(one)
        difference = largest_difference(one.losses, two.losses)
        if difference > TOLERANCE:
            raise CheckError(f"losses differ by {difference:.1e} from a run on one process")
        return f"4, then 2, against 1 process throughout: losses differ by {difference:.0e}"

    def uneven() -> str:
        # 22 items in micro-batches of up to 3: no epoch is a multiple of 3 ranks.
        optim = {"max_steps": 9, "warmup_steps": 2}
        three = check.launch("ddp", 3, "speech_lm", "uneven", optim=optim)
        require_success(three)
        if len(three.losses) != 9:
            raise CheckError(f"{len(three.losses)} of 9 steps")
        return f"3 ranks over the ends of epochs in {three.seconds:.0f} s"

    rows: dict[str, Callable[[], str]] = {}
    for strategy in STRATEGIES:
        rows[f"speech_lm {strategy} x 2"] = lambda s=strategy: equals(s, "speech_lm", 50)
    for stage in STAGES:
        if stage != "speech_lm":
            rows[f"{stage} ddp x 2"] = lambda s=stage: equals("ddp", s, 6)
    for stage in ("speech_tokenizer", "flow"):
        for strategy in ("fsdp2", "zero3"):
            rows[f"{stage} {strategy} x 2"] = lambda s=stage, t=strategy: equals(t, s, 6)
    for name in ("dropped_batch", "wrong_divisor"):
        rows[f"planted fault {name}"] = lambda n=name: fault(n)
    rows["killed rank, resume ddp"] = lambda: killed("ddp")
    rows["killed rank, resume fsdp2"] = lambda: killed("fsdp2")
    rows["resume 4 -> 2 fsdp2"] = resized
    rows["uneven data"] = uneven
    for name, function in rows.items():
        if chosen in name:
            check.row(name, function)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows; return 0 if all passed."""
    parser = argparse.ArgumentParser(prog="check_distributed", description=__doc__)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--keep", type=Path, help="folder that keeps runs and corpus")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds of one launch")
    options = parser.parse_args(arguments)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="check_distributed"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    check = Check(folder.resolve(), options.limit)
    run_rows(check, options.only)
    failed = [row for row in check.rows if not row[1]]
    print(f"\n{len(check.rows) - len(failed)} of {len(check.rows)} rows passed, "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    if not torch.cuda.is_available():
        print("No GPU: NCCL, bf16 and accelerate's own distributed_type FSDP were not run here.")
    if options.keep is None:
        shutil.rmtree(folder)
    return 1 if failed or not check.rows else 0
