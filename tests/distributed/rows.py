"""What runs on several processes have to show: one function for each claim."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.distributed.launch import (
    CheckError,
    Group,
    Job,
    Launcher,
    failure_text,
    was_killed,
)
from tests.distributed.proofs import (
    TOLERANCE,
    largest_difference,
    position,
    require_begun,
    require_equal,
    require_same_shards,
    require_spread,
    same_weights,
)
from training.stages import STAGES

STRATEGIES = ("ddp", "fsdp2", "zero1", "zero2", "zero3")
ZERO = STRATEGIES[2:]
SHARDED_STAGES = ("speech_tokenizer", "flow", "dpo", "grpo")
"""Those that have to run under every strategy, beside the LM."""
STEPS, LM_STEPS, KILLED_STEPS = 6, 50, 12


def _optim(num_steps: int) -> dict[str, Any]:
    return {"max_steps": num_steps, "warmup_steps": 2}


class Rows:
    """The rows by name, each a function that returns what it measured or raises `CheckError`."""

    def __init__(self, launcher: Launcher, names: Sequence[str] | None = None) -> None:
        """List the rows; nothing is run.

        Args:
            launcher: Trains.
            names: Rows that are wanted; None is all. Runs of rows share processes.
        """
        self.launcher, self._names = launcher, names
        self.functions: dict[str, Callable[[], str]] = {}
        self._groups = {"single": Group(launcher, "single", 1)}
        self._groups |= {strategy: Group(launcher, strategy, 2) for strategy in STRATEGIES}
        for strategy in STRATEGIES:
            self._equals(strategy, "speech_lm")
        for stage in (*STAGES, "flow.cosyvoice"):
            if stage != "speech_lm":
                self._equals("ddp", stage)
        for stage in SHARDED_STAGES:
            self._equals("fsdp2", stage)
            for strategy in ZERO:
                self._equals(strategy, stage)
        for name in ("dropped_batch", "wrong_divisor"):
            self._fault(name)
        for strategy in STRATEGIES:
            self._killed(strategy)
        self._resized()
        self._precompute()
        self._shards()
        for strategy in STRATEGIES:
            self._uneven(strategy)

    def _leaves_out(self, name: str) -> bool:
        return self._names is not None and name not in self._names

    def _alone(self, stage: str) -> Job:
        """The run on one process that those on two must equal."""
        num_steps = LM_STEPS if stage == "speech_lm" else STEPS
        changes = {"optim": _optim(num_steps), "batch": {"accumulation": 2}}
        job = Job(f"one-{stage}", stage, changes=changes)
        self._groups["single"].add(job)
        return job

    def _pair(self, strategy: str, stage: str) -> tuple[Job, Job]:
        alone = self._alone(stage)
        changes = {"optim": alone.changes["optim"]}
        return alone, Job(f"{strategy}-{stage}", stage, changes=changes)

    def _equals(self, strategy: str, stage: str) -> None:
        name = f"{stage} {strategy} x 2"
        if self._leaves_out(name):
            return
        alone, job = self._pair(strategy, stage)
        group = self._groups[strategy]
        group.add(job)

        def row() -> str:
            two = group.run(job.name).require_success()
            require_spread(two, strategy, 2)
            one = self._groups["single"].run(alone.name).require_success()
            difference = require_equal(one.losses, two.losses)
            shares = two.found["shares"]
            return (
                f"{two.found['distributed_type']}, {len(two.losses)} losses differ by at most "
                f"{difference:.0e}; a rank keeps {shares['weights']:.2f} of weights, "
                f"{shares['optimizer']:.2f} of state"
            )

        self.functions[name] = row

    def _fault(self, fault: str) -> None:
        name = f"planted fault {fault}"
        if self._leaves_out(name):
            return
        alone, job = self._pair("ddp", "speech_lm")
        job = replace(job, name=f"fault-{fault}", fault=fault)
        group = self._groups["ddp"]
        group.add(job)

        def row() -> str:
            two = group.run(job.name).require_success()
            require_spread(two, "ddp", 2)
            one = self._groups["single"].run(alone.name).require_success()
            difference = largest_difference(one.losses, two.losses)
            if difference <= TOLERANCE:
                raise CheckError(f"the fault was not seen: losses differ by {difference:.1e} only")
            return f"seen: losses differ by {difference:.1e}"

        self.functions[name] = row

    def _killed(self, strategy: str) -> None:
        name = f"killed rank, resume {strategy}"
        if self._leaves_out(name):
            return
        changes = {"optim": _optim(KILLED_STEPS), "log": {"save_every": 5}}
        job = Job(f"killed-{strategy}", "speech_lm", changes=changes)
        whole = replace(job, name=f"whole-{strategy}")
        group = self._groups[strategy]
        group.add(whole)

        def row() -> str:
            dead = self.launcher.run(strategy, 2, replace(job, fault="killed_rank"))
            if dead.status == 0 or not was_killed(dead.output, rank=1):
                raise CheckError(f"a killed rank was not told: status {dead.status}")
            resumed = self.launcher.run(strategy, 2, job).require_success()
            require_spread(resumed, strategy, 2)
            never = group.run(whole.name).require_success()
            if not same_weights(resumed.folder, never.folder):
                raise CheckError("resumed on 2, it is not the run that was never interrupted")
            return f"ended after {dead.seconds:.0f} s with status {dead.status}; resumed to the bit"

        self.functions[name] = row

    def _resized(self) -> None:
        name = "resume 4 -> 2 fsdp2"
        if self._leaves_out(name):
            return
        constant = {"decay": "constant", "warmup_steps": 2}

        def job(name: str, num_steps: int, accumulation: int) -> Job:
            optim = {"max_steps": num_steps, **constant}
            batch = {"accumulation": accumulation}
            return Job(name, "speech_lm", changes={"optim": optim, "batch": batch})

        alone = job("never-resized", 20, 4)
        self._groups["single"].add(alone)

        def row() -> str:
            four = self.launcher.run("fsdp2", 4, job("resized", 10, 1)).require_success()
            require_spread(four, "fsdp2", 4)
            two = self.launcher.run("fsdp2", 2, job("resized", 20, 2)).require_success()
            require_spread(two, "fsdp2", 2)
            one = self._groups["single"].run(alone.name).require_success()
            difference = require_equal(one.losses, two.losses)
            return f"4, then 2, against 1 process throughout: losses differ by {difference:.0e}"

        self.functions[name] = row

    def _precompute(self) -> None:
        name = "precompute, killed and restarted"
        if self._leaves_out(name):
            return
        corpus, folder = self.launcher.folder / "corpus", self.launcher.folder / "precompute"
        plain = ["tokenlm", "data", "precompute"]
        dying = ["tests.distributed.dying_precompute"]

        def start(module: list[str], num_ranks: int, shards: Path) -> tuple[int, str]:
            strategy = "ddp" if num_ranks > 1 else "single"
            what = ["--tokenizer", f"{corpus}/speech_tokenizer", "--audio-rate", "24000"]
            what += ["--mel", "--items-per-shard", "2"]
            order = [*module, f"{corpus}/train.jsonl", str(shards), *what]
            return self.launcher.start(strategy, num_ranks, order, f"precompute on {num_ranks}")

        def row() -> str:
            shutil.rmtree(folder, ignore_errors=True)
            status, output = start(dying, 2, folder / "two")
            if status == 0 or not was_killed(output, rank=1):
                raise CheckError(f"a killed process was not told: {failure_text(status, output)}")
            begun = require_begun(folder / "two")
            for num_ranks, shards in ((2, "two"), (1, "one")):
                status, output = start(plain, num_ranks, folder / shards)
                if status:
                    raise CheckError(f"on {num_ranks} it {failure_text(status, output)}")
            number = require_same_shards(folder / "one", folder / "two", corpus / "train.jsonl")
            return (
                f"killed with {begun} of {number} shards, restarted: every item once, the "
                "files of one process"
            )

        self.functions[name] = row

    def _shards(self) -> None:
        name = "shards, resume 2 -> 1"
        if self._leaves_out(name):
            return
        constant = {"decay": "constant", "warmup_steps": 2}
        shards = {"train": None, "shards": str(self.launcher.folder / "corpus" / "shards")}

        def job(name: str, num_steps: int, accumulation: int, **changes: Any) -> Job:
            optim = {"max_steps": num_steps, **constant}
            batch = {"accumulation": accumulation}
            return Job(name, "speech_lm", changes={"optim": optim, "batch": batch, **changes})

        alone, first = job("manifest", 9, 2), job("shards", 3, 1, data=shards)
        self._groups["single"].add(alone)
        self._groups["ddp"].add(first)

        def row() -> str:
            two = self._groups["ddp"].run("shards").require_success()
            require_spread(two, "ddp", 2)
            place = position(two.folder)
            if place["index"] == 0:
                raise CheckError(f"stopped at {place}, which is not within an epoch")
            rest = self.launcher.run("single", 1, job("shards", 9, 2, data=shards))
            one = self._groups["single"].run("manifest").require_success()
            difference = require_equal(one.losses, rest.require_success().losses)
            return (
                f"on shards by 2, from micro-batch {place['index']} of the epoch on by 1; on the "
                f"manifest by 1: losses differ by {difference:.0e}"
            )

        self.functions[name] = row

    def _uneven(self, strategy: str) -> None:
        name = f"uneven data {strategy}"
        if self._leaves_out(name):
            return
        # 22 items in micro-batches of up to 3: no epoch is a multiple of 3 ranks.
        job = Job(f"uneven-{strategy}", "speech_lm", changes={"optim": _optim(9)})

        def row() -> str:
            three = self.launcher.run(strategy, 3, job).require_success()
            require_spread(three, strategy, 3)
            if len(three.losses) != 9:
                raise CheckError(f"{len(three.losses)} of 9 steps")
            return f"3 ranks over the ends of epochs in {three.seconds:.0f} s"

        self.functions[name] = row
