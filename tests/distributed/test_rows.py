"""Runs that share their processes: each is made once, and one that fails takes no other along.

The rows of DeepSpeed are really run: nothing else in the tests starts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from tests.distributed.check import Rows, main
from tests.distributed.launch import CheckError, Group, Job, Launcher, Run
from training.stages import STAGES


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


def test_rows_are_those_that_are_asked_for() -> None:
    launcher = cast("Launcher", Planned())
    usual = Rows(launcher).functions
    every = Rows(launcher, all_rows=True).functions
    assert usual.keys() < every.keys()
    for strategy in ("ddp", "fsdp2", "zero1", "zero2", "zero3"):
        assert f"speech_lm {strategy} x 2" in usual
        for stage in ("speech_tokenizer", "flow", "dpo", "grpo"):
            assert f"{stage} {strategy} x 2" in every
    assert {f"{stage} ddp x 2" for stage in STAGES} <= usual.keys()
    assert list(Rows(launcher, chosen="4 -> 2").functions) == ["resume 4 -> 2 fsdp2"]


@pytest.mark.slow
def test_zero_trains_what_one_process_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every stage that may lie in pieces, killed ranks, and data that ends unevenly."""
    status = main(["--all", "--only", "zero", "--keep", str(tmp_path), "--limit", "600"])
    told = capsys.readouterr().out
    rows = [line for line in told.splitlines() if line.startswith(("ok ", "FAIL"))]
    assert status == 0 and len(rows) == 3 * (1 + 4 + 1 + 1), told
    for strategy in ("zero1", "zero2", "zero3"):
        assert sum(f" {strategy} x 2 " in row and "DEEPSPEED" in row for row in rows) == 5, told
