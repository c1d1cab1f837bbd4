"""The one training loop: every stage runs through `Trainer.run`.

A step, in order: read the micro-batches, `Task.prepare` each, sum their counts over the ranks;
then phase by phase: losses divided by the global counts, backward, sum of the gradients over the
ranks, clip, AdamW; then the average of the weights. Everything that a step depends on is either in
the checkpoint or a function of (seed, step, place), so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from tokenlm.checkpoint.component import float32_by_default
from tokenlm.config import ConfigError
from training.config import RunConfig, run_folder
from training.data.reader import StepReader, sizes, to_device, training_items, valid_batches
from training.data.sampler import DurationSampler, Position
from training.loop.average import AveragedWeights, Ema
from training.loop.blocks import checkpoint_activations
from training.loop.checkpoints import (
    SavedState,
    latest_checkpoint,
    load_checkpoint,
    load_initial,
    open_run,
    save_checkpoint,
    truncate_metrics,
)
from training.loop.optim import learning_rate
from training.loop.parallel.launch import make_parallel, will_shard
from training.loop.processes import agree_on_stop, make_accelerator, stop_signals, write_environment
from training.loop.randomness import derive_seed
from training.loop.task import Phase, Prepared, StepInfo, Task
from training.loop.tracking import MetricsLog, MetricsWindow, check_trackers, start_trackers


class TrainingError(RuntimeError):
    """The run cannot go on; the message gives the reason."""


class Observer:
    """Follows a run from outside. Methods of the base class do nothing."""

    def begins(self, step: int) -> bool:
        """The run begins at this step, 0 or that of a checkpoint.

        Return True where it had been ended by `evaluated` at this step: the run ends again.
        """
        return False

    def stepped(self, step: int, is_stopping: Callable[[], bool]) -> bool:
        """A step is done; the run goes on when this returns, or ends as by a signal where True.

        Args:
            step: steps that are done.
            is_stopping: whether the run is about to end, asked by whoever makes it wait.
        """
        return False

    def evaluated(
        self, step: int, metrics: Mapping[str, float], modules: Mapping[str, nn.Module]
    ) -> bool:
        """The averaged weights in `modules` were measured; return True to end the run."""
        return False


Parts = list[tuple[int, Prepared]]
"""Micro-batches of this rank, each with its number within the step over all ranks."""


class Trainer:
    """Trains one task, from its newest checkpoint if there is one."""

    @float32_by_default()
    def __init__(self, task: Task, config: RunConfig, observer: Observer | None = None) -> None:
        """Build the task and its optimizers, and resume.

        Args:
            task: The stage, not yet built.
            config: Its config.
            observer: Follows the run; with one the weights are measured before the first step.

        Raises:
            ValueError: If the run folder belongs to another config, or the data cannot be used.
        """
        check_trackers(config.log.trackers)
        torch.set_flush_denormal(True)
        self.task, self.config, self.folder = task, config, run_folder(config)
        self.observer = observer
        self.accelerator = make_accelerator(config, self.folder)
        self.device = self.accelerator.device
        self.num_ranks = self.accelerator.num_processes
        self.log = MetricsLog(self.folder, self.accelerator, config.stage)
        checkpoint = None
        if self.accelerator.is_main_process:
            checkpoint = open_run(self.folder, config)
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            checkpoint = latest_checkpoint(self.folder)
        if config.log.trackers:
            start_trackers(self.accelerator, config, self.folder)

        self._build()
        self.step, self.position = 0, Position()
        self.skipped, self.skipped_in_a_row = 0, 0
        self.window = MetricsWindow()
        if checkpoint is not None:
            self._resume(checkpoint)
        if self.accelerator.is_main_process:
            truncate_metrics(self.folder / "metrics.jsonl", self.step)
        self._prepare_data()
        self._stop = ""
        self._started = time.monotonic()

    # -- building ------------------------------------------------------------------------------

    def _build(self) -> None:
        torch.manual_seed(derive_seed("build", self.config.seed))
        self.task.build()
        load_initial(
            self.task.modules,
            self.config.initial,
            partial=self.config.initial_partial,
            adapt=self.task.adapt_initial,
        )
        self.phases = self.task.phases()
        self.task.to(self.device)
        named = [name for phase in self.phases for name in phase.modules]
        assert len(named) == len(set(named)), f"a module is in two phases: {named}"
        self.trained = {name: self.task.modules[name] for name in named}
        for name in self.task.modules.keys() - self.trained.keys():
            self.task.modules[name].requires_grad_(False)
        self._averaged = AveragedWeights(self.task, self.trained, self.config.seed)
        if will_shard() and self.accelerator.is_main_process:
            self._averaged.copy_whole()
        for module in self.trained.values():
            if self.config.activation_checkpointing:
                checkpoint_activations(module)
            if self.config.compile:
                module.compile()
        if self.num_ranks > 1:
            for module in self.task.modules.values():
                for tensor in module.state_dict().values():
                    torch.distributed.broadcast(tensor, 0)
        # Counted before the parameters are cut into pieces.
        num_parameters = {
            name: sum(p.numel() for p in module.parameters())
            for name, module in self.task.modules.items()
        }
        self.parallel = make_parallel(self.accelerator, self.config, self.phases, self.trained)
        parallel, decay = self.parallel, self.config.optim.ema_decay
        self.task.full_state = parallel.full_state if parallel.is_sharded else None
        self.optimizers = {phase.name: parallel.optimizer(phase) for phase in self.phases}
        averaged = self.trained if decay > 0 else {}
        self.ema = Ema(averaged, decay, parallel.local, parallel.piece)
        if self.accelerator.is_main_process:
            write_environment(
                self.folder,
                device=str(self.device),
                num_ranks=self.num_ranks,
                strategy=self.parallel.name,
                precision=self.accelerator.mixed_precision,
                num_parameters=num_parameters,
            )

    def _resume(self, checkpoint: Path) -> None:
        saved, averages = load_checkpoint(checkpoint, self.trained, self.parallel.load_state)
        self.ema.load(averages)
        self.parallel.load_optimizers(saved.optimizers, checkpoint)
        self.task.load_state(saved.task)
        self.step = saved.numbers["step"]
        self.position = Position(**saved.numbers["position"])
        self.skipped = saved.numbers["skipped"]
        self.skipped_in_a_row = saved.numbers["skipped_in_a_row"]
        self.window = MetricsWindow(saved.numbers["window"])
        own = self.num_ranks * self.config.batch.accumulation
        if saved.numbers.get("micro_batches", own) != own:
            was = saved.numbers["micro_batches"]
            self.log.info(f"a step had {was} micro-batches before and has {own} from here on")
        self.log.info(f"resumed at step {self.step} from {checkpoint.name}")

    def _prepare_data(self) -> None:
        batch = self.config.batch
        train = self.task.dataset("train")
        assert train is not None, f"the stage {self.config.stage} has no training data"
        self.sampler = DurationSampler(sizes(train, self.config), batch, self.config.seed)
        self.reader = StepReader(
            training_items(self.task, train, self.config, self.folder),
            self.sampler,
            self.position,
            rank=self.accelerator.process_index,
            num_ranks=self.num_ranks,
            accumulation=batch.accumulation,
            num_workers=batch.num_workers,
        )
        self.valid = self.task.dataset("valid")

    @float32_by_default()
    def run(self) -> str:
        """Train until `max_steps`, `max_minutes` or a signal; then save, evaluate and export.

        Returns:
            Why the run ended: "max_steps", "max_minutes", "converged" (the observer's word),
            "signal", or "regression: ...".

        Raises:
            TrainingError: If too many steps in a row were not finite.
        """
        config, log = self.config, self.config.log
        with stop_signals(self._request_stop):
            if self.observer is not None:
                if self.observer.begins(self.step):
                    self._stop = self._stop or "converged"
                if self.step == 0 and log.evaluate_every:
                    self._evaluate()
            while self.step < config.optim.max_steps and not self._should_stop():
                self._train_step()
                done = self.step
                if self.observer is not None and self.observer.stepped(done, self._should_stop):
                    self._request_stop()
                last = done == config.optim.max_steps
                if done % log.log_every == 0 or last:
                    self._write_metrics()
                if log.evaluate_every and done % log.evaluate_every == 0 and not last:
                    self._evaluate()
                    if self._should_stop() and self._stop == "regression":
                        break  # before it is saved
                if log.sample_every and done % log.sample_every == 0 and not last:
                    self._samples()
                if log.save_every and done % log.save_every == 0 and not last:
                    self._save()
            # Not `self._stop` first: a signal after the last step may have reached this rank only.
            reason = "max_steps" if self.step >= config.optim.max_steps else self._stop
            if reason != "regression":
                self._save()
            if reason not in ("signal", "regression"):
                if log.evaluate_every:
                    self._evaluate()
                if log.sample_every:
                    self._samples()
            if self._should_stop() and self._stop == "regression":
                reason = f"regression: {self.task.stop_reason}"
            elif reason != "signal":
                self.export(self.folder / "export")
            self.log.info(f"ended at step {self.step} ({reason}); {self.folder}")
            if log.trackers:
                self.accelerator.end_training()
        return reason

    def _train_step(self) -> None:
        began = time.monotonic()
        for name, module in self.task.modules.items():
            module.train(name in self.trained)
        plan, read_parts = self.reader.next_step()
        waited = time.monotonic() - began
        parts: Parts = []
        for number, micro_batch, batch in read_parts:
            info = StepInfo(self.config.seed, self.step, micro_batch.first_item)
            self._seed(number)
            with torch.no_grad():
                parts.append((number, self.task.prepare(to_device(batch, self.device), info)))
            self.window.add(parts[-1][1].metrics)
        counts = self._global_counts(parts)
        finite = True
        for phase in self.phases:
            if self.step >= phase.starts_at:
                finite = self._run_phase(phase, parts, counts) and finite
        self._note_skipped(finite)
        self.ema.update(self.step)
        self.step, self.position = self.step + 1, plan.after
        self.window.add_time(
            seconds=time.monotonic() - began,
            data_seconds=waited,
            audio_seconds=sum(self.sampler.seconds(part) for part in plan.micro_batches),
        )

    def _run_phase(self, phase: Phase, parts: Parts, counts: dict[str, float]) -> bool:
        """Make one optimizer step of one phase; return False if it was skipped."""
        optim = phase.optim or self.config.optim
        sums: dict[str, Tensor] = {}
        for number, prepared in parts:
            self._seed(number)
            with self.accelerator.autocast():
                losses = self.parallel.losses(phase, prepared)
            missing = losses.keys() - counts.keys()
            assert not missing, f"prepare gives no count of {sorted(missing)}"
            terms = {
                name: loss.float() / counts[name] if counts[name] else loss.float() * 0.0
                for name, loss in losses.items()
            }
            weights = self.config.loss_weights
            total = torch.stack([terms[name] * weights.get(name, 1.0) for name in terms]).sum()
            self.parallel.backward(phase, total, is_last=number == parts[-1][0])
            for name, term in (*terms.items(), (f"total/{phase.name}", total)):
                sums[name] = sums.get(name, 0.0) + term.detach()
        norm = self.parallel.reduce(phase, optim.grad_clip)
        values = torch.stack([*sums.values()])
        if self.num_ranks > 1:
            torch.distributed.all_reduce(values)
        *losses_now, norm_now = torch.cat([values, norm.reshape(1).to(values)]).tolist()
        finite = all(math.isfinite(value) for value in (*losses_now, norm_now))
        if finite:
            rate = learning_rate(self.step, optim, phase.starts_at)
            known_now = self.parallel.step(phase, rate)
            norm_now = norm_now if known_now is None else known_now
            self.window.add(dict(zip(sums, losses_now, strict=True)))
            self.window.add({f"grad_norm/{phase.name}": norm_now})
        else:
            pairs = zip(sums, losses_now, strict=True)
            bad = [name for name, value in pairs if not math.isfinite(value)]
            self.log.info(f"step {self.step} skipped: not finite: {', '.join(bad) or 'gradient'}")
        if self.parallel.name.startswith("zero") and not (finite and math.isfinite(norm_now)):
            raise TrainingError(
                f"step {self.step} had a loss or a gradient that is not finite, and under "
                "DeepSpeed no step can be taken back. The checkpoints before are untouched."
            )
        self.optimizers[phase.name].zero_grad(set_to_none=True)
        return finite

    def _global_counts(self, parts: Parts) -> dict[str, float]:
        """Sum the counts over the micro-batches and the ranks."""
        names = sorted(parts[0][1].counts)
        assert all(sorted(part.counts) == names for _, part in parts), "the names of counts vary"
        unknown = sorted(self.config.loss_weights.keys() - set(names))
        if unknown:
            valid = ", ".join(names)
            raise ConfigError(f"loss_weights: no loss {', '.join(unknown)}; valid are: {valid}")
        sums = [sum(float(part.counts[name]) for _, part in parts) for name in names]
        if self.num_ranks > 1:
            # 32 bits hold whole numbers up to 16 million, and not every device has 64.
            vector = torch.tensor(sums, dtype=torch.float32, device=self.device)
            torch.distributed.all_reduce(vector)
            sums = vector.tolist()
        return dict(zip(names, sums, strict=True))

    def _note_skipped(self, finite: bool) -> None:
        self.skipped += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= self.config.max_skipped_steps:
            raise TrainingError(
                f"{self.skipped_in_a_row} steps in a row up to step {self.step} had a loss or a "
                "gradient that is not finite. The checkpoints before are untouched; a lower "
                "optim.lr, a longer warm-up or precision=fp32 may help."
            )

    def _seed(self, number: int) -> None:
        # Dropout and the like draw from the global generator: so they are the same after a resume.
        torch.manual_seed(derive_seed("forward", self.config.seed, self.step, number))

    def _request_stop(self) -> None:
        self._stop = "signal"

    def _should_stop(self) -> bool:
        limit = self.config.max_minutes
        if not self._stop and limit is not None and time.monotonic() - self._started > limit * 60:
            self._stop = "max_minutes"
        if self.task.stop_reason:
            self._stop = "regression"
        self._stop = agree_on_stop(self._stop, self.device, self.num_ranks)
        return bool(self._stop)

    # -- what happens now and then -------------------------------------------------------------

    def _write_metrics(self) -> None:
        metrics = self.window.averages()
        for phase in self.phases:
            key = "lr" if len(self.phases) == 1 else f"lr/{phase.name}"
            optim = phase.optim or self.config.optim
            if self.step > phase.starts_at:
                metrics[key] = learning_rate(self.step - 1, optim, phase.starts_at)
        metrics["epoch"] = self.position.epoch
        metrics["skipped_steps"] = self.skipped
        self.log.write(self.step, metrics)
        self.window = MetricsWindow()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the modules, in evaluation mode; see `AveragedWeights`."""
        is_main = self.accelerator.is_main_process
        with self._averaged.applied(self.parallel, self.ema, is_main=is_main):
            yield

    def _evaluate(self) -> None:
        if self.valid is not None:
            with self.averaged():
                if self.accelerator.is_main_process:
                    batches = valid_batches(self.task, self.valid, self.config, self.device)
                    metrics = self.task.evaluate(batches, self.task.modules)
                    self.log.write(self.step, metrics, kind="valid")
                    observer = self.observer
                    if observer and observer.evaluated(self.step, metrics, self.task.modules):
                        self._stop = self._stop or "converged"
        self.accelerator.wait_for_everyone()

    def _samples(self) -> None:
        with self.averaged():
            if self.accelerator.is_main_process:
                folder = self.folder / "samples" / f"step-{self.step:06d}"
                folder.mkdir(parents=True, exist_ok=True)
                self.task.samples(folder)
        self.accelerator.wait_for_everyone()

    def export(self, folder: Path) -> None:
        """Write the inference components, made of the averaged weights, into `folder`."""
        with self.averaged():
            if self.accelerator.is_main_process:
                folder.mkdir(parents=True, exist_ok=True)
                self.task.export(folder)
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        states = {name: self.parallel.full_state(m) for name, m in self.trained.items()}
        averages = self._averaged.full_averages(self.parallel, self.ema)
        optimizers = self.parallel.full_optimizers()
        shards = self.parallel.save_shards(self.folder / ".writing-shards")
        if self.accelerator.is_main_process:
            numbers = {
                "step": self.step,
                "position": asdict(self.position),
                "micro_batches": self.num_ranks * self.config.batch.accumulation,
                "skipped": self.skipped,
                "skipped_in_a_row": self.skipped_in_a_row,
                "window": self.window.numbers,
            }
            saved = SavedState(numbers, optimizers, self.task.state())
            keep = self.config.log.keep_last
            save_checkpoint(
                self.folder,
                self.step,
                self.trained,
                averages,
                saved,
                keep,
                states=states,
                shards=shards,
            )
        self.accelerator.wait_for_everyone()
