"""One rank of a check: trains, and writes down what it found itself to be.

accelerate launch … -m tests.distributed.worker JOBS

JOBS is a JSON list of objects with `config`, `result` and `fault` (see `FAULTS`; "" is none), which
are run one after another.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.loop.task import Prepared
from training.loop.trainer import Parts, Trainer
from training.run import load_task

FAULTS = ("dropped_batch", "wrong_divisor", "killed_rank")


class FaultyTrainer(Trainer):
    """A trainer with one planted fault, to see that the check finds it."""

    fault = ""

    def _global_counts(self, parts: Parts) -> dict[str, float]:
        counts = super()._global_counts(parts)
        if self.fault == "wrong_divisor":
            # What a loop does that averages over its own targets: the mean of means.
            names = counts.keys()
            own = {name: sum(part.counts[name] for _, part in parts) for name in names}
            return {name: own[name] * self.num_ranks for name in names}
        return counts

    def _train_step(self) -> None:
        last = self.accelerator.process_index == self.num_ranks - 1
        if self.fault == "killed_rank" and last and self.step == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._train_step()

    def plant(self, fault: str) -> None:
        """Choose the fault, or "" for none.

        Raises:
            ValueError: If there is no such fault.
        """
        if fault not in ("", *FAULTS):
            raise ValueError(f"there is no fault {fault!r}; valid are: {', '.join(FAULTS)}")
        self.fault = fault
        if fault == "dropped_batch" and self.accelerator.process_index == self.num_ranks - 1:
            for phase in self.phases:
                losses = phase.losses

                def silent(prepared: Prepared, losses: Any = losses) -> dict[str, Tensor]:
                    return {name: loss * 0.0 for name, loss in losses(prepared).items()}

                phase.losses = silent


def kept_shares(trainer: Trainer) -> dict[str, float]:
    """Share of all weights, and of all optimizer state, that this rank keeps."""
    parameters = [p for module in trainer.trained.values() for p in module.parameters()]
    total = sum(_whole_size(p) for p in parameters)
    weights = sum(trainer.parallel.local(p).numel() for p in parameters)
    # Under ZeRO the engine puts its own pieces into the groups of the optimizer.
    moments = sum(
        _local_size(state["exp_avg"])
        for optimizer in trainer.optimizers.values()
        for state in optimizer.state.values()
        if "exp_avg" in state
    )
    return {"weights": weights / total, "optimizer": moments / total}


def _whole_size(parameter: nn.Parameter) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _local_size(value: Tensor) -> int:
    return value.to_local().numel() if isinstance(value, DTensor) else value.numel()


def run_job(config_path: Path, result: Path, fault: str) -> None:
    """Train one config, and let the first rank write the result."""
    config, task = load_task(config_path)
    trainer = FaultyTrainer(task, config)
    trainer.plant(fault)
    reason = trainer.run()
    shares = kept_shares(trainer)
    if trainer.accelerator.is_main_process:
        found = {
            "distributed_type": trainer.accelerator.distributed_type.value,
            "strategy": trainer.parallel.name,
            "num_ranks": trainer.accelerator.num_processes,
            "backend": torch.distributed.get_backend() if trainer.num_ranks > 1 else "",
            "shares": shares,
            "reason": reason,
        }
        result.write_text(json.dumps(found), encoding="utf-8")


def main() -> None:
    """Run all jobs."""
    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run_job(Path(job["config"]), Path(job["result"]), job["fault"])
        # The next one is to find what its launch has chosen as if it were the first.
        AcceleratorState._reset_state()
        GradientState._reset_state()


if __name__ == "__main__":
    main()
