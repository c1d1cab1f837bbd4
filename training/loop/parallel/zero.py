"""DeepSpeed's ZeRO through `accelerate`: optimizer state (1), gradients (2), weights (3) sharded.

The engine reduces, clips and steps; the loop keeps what it has in every strategy: order of the
data, divisors, schedule, average of the weights. The optimizer state stays in pieces in a
checkpoint (folder `zero`), so that a run goes on with the number of ranks it was saved with.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tokenlm.config import ConfigError
from training.config import RunConfig, resolve_precision
from training.loop.optim import make_optimizer
from training.loop.parallel.strategy import StageModule, StrategyName
from training.loop.task import Phase, Prepared

_TAG = "state"


class Zero:
    """See `Parallel`."""

    is_sharded = True

    def __init__(
        self,
        name: StrategyName,
        accelerator: Accelerator,
        config: RunConfig,
        trained: Mapping[str, nn.Module],
    ) -> None:
        """Keep the modules; the engine is made with the optimizer."""
        self.name: StrategyName = name
        self._accelerator, self._config, self._trained = accelerator, config, trained
        self._num_ranks = accelerator.num_processes
        self._engine: Any = None
        self._optimizer: torch.optim.Optimizer | None = None

    def optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """See `Parallel`."""
        optim = phase.optim or self._config.optim
        made = make_optimizer([self._trained[name] for name in phase.modules], optim)
        plugin = self._accelerator.state.deepspeed_plugin
        assert plugin is not None
        settings = plugin.deepspeed_config
        settings["train_micro_batch_size_per_gpu"] = 1  # its own counting, nothing depends on it
        settings["gradient_accumulation_steps"] = self._config.batch.accumulation
        settings["gradient_clipping"] = optim.grad_clip
        if self.name == "zero3":
            # Small weights, too, live in their pieces alone: the average is put into the pieces.
            settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        if resolve_precision(self._config.precision, self._accelerator.device) == "bf16":
            # Weights stay in 32 bits, as in every strategy. Without this the engine would turn
            # off the autocast of the loop.
            settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
        self._accelerator.gradient_accumulation_steps = self._config.batch.accumulation
        self._engine, _ = self._accelerator.prepare(StageModule(self._trained), made)
        self._optimizer = made
        return made

    def losses(self, phase: Phase, prepared: Prepared) -> dict[str, Tensor]:
        """See `Parallel`."""
        return self._engine(phase, prepared)

    def backward(self, phase: Phase, total: Tensor, *, is_last: bool) -> None:
        """See `Parallel`; the engine averages over the ranks, and the loop wants the sum."""
        self._engine.backward(total * self._num_ranks, scale_wrt_gas=False)
        if not is_last:
            self._engine.step()  # counts the micro-batch; nothing moves before the last one

    def reduce(self, phase: Phase, max_norm: float) -> Tensor:
        """See `Parallel`: the engine does it in its step, which cannot be taken back."""
        return torch.zeros((), device=self._accelerator.device)

    def step(self, phase: Phase, rate: float) -> float | None:
        """See `Parallel`."""
        assert self._optimizer is not None
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def local(self, parameter: nn.Parameter) -> Tensor:
        """See `Parallel`."""
        return parameter.ds_tensor if self.name == "zero3" else parameter  # type: ignore[attr-defined]

    def piece(self, parameter: nn.Parameter, full: Tensor) -> Tensor:
        """See `Parallel`: a weight is flattened, padded and cut into equal pieces."""
        if self.name != "zero3":
            return full
        size = self.local(parameter).numel()
        flat = full.reshape(-1)
        padded = nn.functional.pad(flat, (0, size * self._num_ranks - flat.numel()))
        rank = self._accelerator.process_index
        return padded[rank * size : (rank + 1) * size].to(self.local(parameter).device)

    def _gathered(self, module: nn.Module, *, for_writing: bool) -> Any:
        import deepspeed

        enabled = self.name == "zero3"
        return deepspeed.zero.GatheredParameters(
            list(module.parameters()), modifier_rank=0 if for_writing else None, enabled=enabled
        )

    @torch.no_grad()
    def full_state(self, module: nn.Module) -> dict[str, Tensor]:
        """See `Parallel`."""
        with self._gathered(module, for_writing=False):
            state = module.state_dict()
            return {name: value.detach().cpu().clone() for name, value in state.items()}

    @torch.no_grad()
    def load_state(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """See `Parallel`."""
        with self._gathered(module, for_writing=True):
            module.load_state_dict(state)

    def full_optimizers(self) -> dict[str, Any]:
        """See `Parallel`: nothing; the pieces are saved by `save_shards`."""
        return {"zero": {"strategy": self.name, "num_ranks": self._num_ranks}}

    def load_optimizers(self, saved: Mapping[str, Any], checkpoint: Path) -> None:
        """See `Parallel`.

        Raises:
            ConfigError: If the checkpoint is of another strategy or number of ranks.
        """
        mine = {"strategy": self.name, "num_ranks": self._num_ranks}
        if saved.get("zero") != mine:
            raise ConfigError(
                f"{checkpoint} was saved by {saved.get('zero', 'a run without DeepSpeed')}, this "
                f"is {mine}: optimizer state in pieces goes on only where it was. To start from "
                "its weights, give the exported component as `initial`."
            )
        self._engine.load_checkpoint(str(checkpoint / "zero"), tag=_TAG)

    def save_shards(self, folder: Path) -> Path | None:
        """See `Parallel`."""
        if self._accelerator.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
        self._accelerator.wait_for_everyone()
        self._engine.save_checkpoint(str(folder), tag=_TAG)
        self._accelerator.wait_for_everyone()
        return folder
