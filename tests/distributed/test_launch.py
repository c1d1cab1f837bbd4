"""Runs that share their processes, and what a failed launch reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import save_file

from tests.distributed.launch import (
    CheckError,
    Group,
    Job,
    Launcher,
    Run,
    failure_text,
    was_killed,
)
from tests.distributed.proofs import same_weights

REPORT = """W1 torch/distributed/elastic/x.py:1] Sending process 7 closing signal SIGTERM
E1 torch/distributed/elastic/x.py:2] failed (exitcode: 1) local_rank: 1 (pid: 8) of binary: python
Traceback (most recent call last):
  File "launch.py", line 1, in <module>
ChildFailedError
"""


def test_names_the_rank_and_shows_its_own_lines() -> None:
    ranks = "[rank1]: ValueError: cause\n[rank0]: Connection closed by peer\n"
    told = failure_text(1, ranks + REPORT)
    assert told.splitlines()[0] == "ended with 1, rank 1 with 1"
    assert "ValueError: cause" in told
    assert "Connection closed" not in told
    assert "ChildFailedError" not in told


def test_without_a_report_shows_the_end_of_the_output() -> None:
    told = failure_text(2, "\n".join(f"line {n}" for n in range(40)))
    assert told.splitlines()[0] == "ended with 2"
    assert "line 39" in told
    assert "line 27" not in told


def test_a_kill_is_told_by_the_launcher_alone() -> None:
    assert was_killed("failed (exitcode: -9) local_rank: 1 (pid: 8)", rank=1)
    assert not was_killed("failed (exitcode: -9) local_rank: 0 (pid: 8)", rank=1)
    assert not was_killed("loss 3e-9\n" + REPORT, rank=1)


def test_weights_are_compared_only_where_there_are_some(tmp_path: Path) -> None:
    runs = [tmp_path / name / "step-000002" for name in ("one", "other")]
    with pytest.raises(CheckError, match="no checkpoint"):
        same_weights(tmp_path / "one", tmp_path / "other")
    for run in runs:
        run.mkdir(parents=True)
    with pytest.raises(CheckError, match="checkpoints hold"):
        same_weights(tmp_path / "one", tmp_path / "other")
    for value, run in enumerate(runs):
        save_file({"w": torch.full((2,), float(value))}, run / "m.safetensors")
    assert not same_weights(tmp_path / "one", tmp_path / "other")
    save_file({"w": torch.zeros(2)}, runs[1] / "m.safetensors")
    assert same_weights(tmp_path / "one", tmp_path / "other")


class Planned:
    """Starts nothing; jobs of a fault fail."""

    folder = Path("nowhere")

    def __init__(self) -> None:
        self.launches: list[list[str]] = []

    def run_all(self, strategy: str, num_ranks: int, jobs: Sequence[Job]) -> list[Run]:
        self.launches.append([job.name for job in jobs])
        made = []
        for job in jobs:
            found = {} if job.fault else {"strategy": strategy}
            made.append(Run(Path(job.name), int(bool(job.fault)), "", 1.0, found))
            if job.fault:
                break
        return made


def test_a_failed_run_is_told_and_the_others_are_made() -> None:
    planned = Planned()
    group = Group(cast("Launcher", planned), "ddp", 2)
    for job in (Job("a", "flow"), Job("b", "flow", fault="broken"), Job("c", "flow")):
        group.add(job)
        group.add(job)
    assert planned.launches == []
    assert group.run("c").require_success().found == {"strategy": "ddp"}
    assert group.run("a").require_success() is group.run("a")
    with pytest.raises(CheckError, match="b ended with 1"):
        group.run("b").require_success()
    assert planned.launches == [["a", "b", "c"], ["c"]]
