"""Launches of real processes, and what came of their runs."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.distributed.processes import run_command
from tests.distributed.toy import make_corpus, write_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "accelerate"
FAILED_RANK = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")
LAUNCHER = re.compile(r"torch/distributed/elastic/|failed \(exitcode: |Sending process \d+ closing")
NUM_ITEMS = 22
"""In micro-batches of up to three they are no multiple of 2, 3 or 4 ranks."""
EXTRA_RUN_SECONDS = 60.0
"""Longer that a launch may take for each run after its first."""


class CheckError(AssertionError):
    """A row that failed; the sentence says what was found."""


@dataclass(frozen=True)
class Job:
    """A run that a launch is to make."""

    name: str
    """Of its folder."""
    stage: str
    fault: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    """Keys of its config."""


@dataclass
class Run:
    """What came of a job."""

    folder: Path
    status: int
    """Exit status of its launch."""
    output: str
    seconds: float
    """Those of the whole launch."""
    found: dict[str, Any]
    """What the worker found; empty if it did not come to its end."""

    @property
    def losses(self) -> list[float]:
        """The total loss of every step.

        Raises:
            CheckError: If there are none.
        """
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            raise CheckError(f"{self.folder.name} wrote no metrics.jsonl")
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [value for row in rows for key, value in row.items() if key.startswith("total/")]

    def require_success(self) -> Run:
        """Return this.

        Raises:
            CheckError: If it failed.
        """
        if self.status or not self.found:
            told = failure_text(self.status, self.output)
            raise CheckError(f"{self.folder.name} {told}")
        return self


class Launcher:
    """Starts workers over a corpus of its own."""

    def __init__(self, folder: Path, limit_seconds: float) -> None:
        """Nothing is made before the first launch.

        Args:
            folder: Gets corpus, configs and run folders.
            limit_seconds: Of a launch with one run.
        """
        self.folder, self.limit_seconds = folder, limit_seconds
        self._begun: set[str] = set()

    def run(self, strategy: str, num_ranks: int, job: Job) -> Run:
        """Train one job under one of configs/accelerate.

        Raises:
            CheckError: If it did not end in time.
        """
        return self.run_all(strategy, num_ranks, [job])[0]

    def run_all(self, strategy: str, num_ranks: int, jobs: Sequence[Job]) -> list[Run]:
        """Train jobs one after another in the same processes, up to the first that fails.

        Returns:
            As many as were started.

        Raises:
            CheckError: If they did not end in time.
        """
        results = [(self.folder / job.name).with_suffix(".json") for job in jobs]
        orders = []
        for job, result in zip(jobs, results, strict=True):
            folder = self.folder / job.name
            if job.name not in self._begun:  # of an earlier check in the same folder
                shutil.rmtree(folder, ignore_errors=True)
            self._begun.add(job.name)
            config = write_config(self.folder / "corpus", job.stage, folder, **job.changes)
            result.unlink(missing_ok=True)
            orders.append({"config": str(config), "result": str(result), "fault": job.fault})
        plan = results[0].with_suffix(".jobs.json")
        plan.write_text(json.dumps(orders), encoding="utf-8")
        began = time.monotonic()
        limit = self.limit_seconds + EXTRA_RUN_SECONDS * (len(jobs) - 1)
        worker = ["tests.distributed.worker", str(plan)]
        status, output = self.start(strategy, num_ranks, worker, jobs[0].name, limit)
        runs = []
        for job, result in zip(jobs, results, strict=True):
            found = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
            is_last = job is jobs[-1] or not found
            told = (status, output) if is_last else (0, "")
            runs.append(Run(self.folder / job.name, *told, time.monotonic() - began, found))
            if is_last:
                break
        return runs

    def start(
        self,
        strategy: str,
        num_ranks: int,
        module: Sequence[str],
        name: str,
        limit: float | None = None,
    ) -> tuple[int, str]:
        """Run a module under one of configs/accelerate.

        Args:
            strategy: Name of the config.
            num_ranks: Number of processes.
            module: Its name, and its arguments.
            name: Of the launch, for messages.
            limit: Seconds that it may take, if not those of a launch with one run.

        Returns:
            Exit status of the launcher, and what it and its ranks have written.

        Raises:
            CheckError: If it did not end in time.
        """
        if not (self.folder / "corpus").exists():
            make_corpus(self.folder / "corpus", num_train=NUM_ITEMS, num_valid=1)
        limit = self.limit_seconds if limit is None else limit
        command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
        command += ["--config_file", str(CONFIGS / f"{strategy}.yaml")]
        command += ["--num_processes", str(num_ranks), "--main_process_port", str(_free_port())]
        command += ["-m", *module]
        environment = {
            "OMP_NUM_THREADS": "1",
            "PYTHONFAULTHANDLER": "1",  # a rank that aborts prints where it was
            "PYTHONPATH": str(CONFIGS.parents[1]),
        }
        try:
            return run_command(command, limit=limit, environment=environment, folder=self.folder)
        except subprocess.TimeoutExpired as error:
            raise CheckError(f"{name} did not end in {limit:g} s") from error


class Group:
    """Jobs that share their processes, which are started when the first result is asked for.

    To start Python takes longer than to train at this size. After a job that failed, the others
    are started anew.
    """

    def __init__(self, launcher: Launcher, strategy: str, num_ranks: int) -> None:
        """Begin without jobs."""
        self.launcher, self.strategy, self.num_ranks = launcher, strategy, num_ranks
        self._jobs: dict[str, Job] = {}
        self._runs: dict[str, Run] = {}

    def add(self, job: Job) -> None:
        """Add a job, if there is none of its name."""
        self._jobs.setdefault(job.name, job)

    def run(self, name: str) -> Run:
        """What came of a job.

        Raises:
            CheckError: If its launch did not end in time.
        """
        while name not in self._runs:
            rest = [job for job in self._jobs.values() if job.name not in self._runs]
            made = self.launcher.run_all(self.strategy, self.num_ranks, rest)
            self._runs |= {run.folder.name: run for run in made}
        return self._runs[name]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
