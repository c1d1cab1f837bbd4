"""What all training stages have in common in their configuration.

A stage's own config is a frozen dataclass that derives from `RunConfig` and adds its fields
(model, data, losses). One YAML file holds all of it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch

PrecisionChoice = Literal["auto", "fp32", "bf16"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, its schedule and the average of the weights."""

    lr: float = 1e-3
    """Highest learning rate, reached at the end of the warm-up."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of the running first and second moments."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices; norms, biases and embeddings have none."""
    warmup_steps: int = 500
    """Steps of linear warm-up."""
    max_steps: int = 10_000
    """The run ends after this many optimizer steps."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate between warm-up and `max_steps`."""
    min_ratio: float = 0.05
    """Learning rate at `max_steps` as a share of `lr`."""
    grad_clip: float = 1.0
    """Largest norm of the gradient of a phase; 0 leaves it as it is."""
    ema_decay: float = 0.999
    """Decay of the average of the weights that is evaluated and exported; 0 turns it off."""
    fused: bool = True
    """One kernel for the step of many weights, where torch has it for the device."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"lr must be positive, not {self.lr}.")
        _require(all(0 <= beta < 1 for beta in self.betas), "betas must be in [0, 1).")
        _require(self.eps > 0, f"eps must be positive, not {self.eps}.")
        _require(self.weight_decay >= 0, "weight_decay must not be negative.")
        _require(self.warmup_steps >= 0, "warmup_steps must not be negative.")
        _require(self.max_steps >= 1, "max_steps must be at least 1.")
        _require(0 <= self.min_ratio <= 1, "min_ratio must be in [0, 1].")
        _require(self.grad_clip >= 0, "grad_clip must not be negative.")
        _require(0 <= self.ema_decay < 1, "ema_decay must be in [0, 1).")


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How items become micro-batches and micro-batches a step."""

    max_seconds_per_batch: float = 60.0
    """Padded seconds of one micro-batch: longest item times number of items."""
    max_items: int = 64
    """Most items of one micro-batch."""
    accumulation: int = 1
    """Micro-batches of one step on each rank."""
    num_workers: int = 0
    """Processes that decode and collate; 0 does it in the training process. Same results."""
    length_jitter: float = 0.15
    """Spread of the length by which items are grouped: 0 groups by exact length."""
    pack_seconds: float = 0.0
    """Length of a row that holds several items, in place of padding (stage speech_lm); 0 pads. A
    micro-batch then has `max_seconds_per_batch / pack_seconds` rows, whatever `max_items` says."""

    def __post_init__(self) -> None:
        _require(self.max_seconds_per_batch > 0, "max_seconds_per_batch must be positive.")
        _require(self.max_items >= 1, "max_items must be at least 1.")
        _require(self.accumulation >= 1, "accumulation must be at least 1.")
        _require(self.num_workers >= 0, "num_workers must not be negative.")
        _require(self.length_jitter >= 0, "length_jitter must not be negative.")
        _require(
            0 <= self.pack_seconds <= self.max_seconds_per_batch,
            "pack_seconds must be between 0 and max_seconds_per_batch.",
        )


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """How often the run logs, evaluates and saves. All counts are steps; 0 is never."""

    log_every: int = 50
    """Steps between two lines of metrics."""
    evaluate_every: int = 1000
    """Steps between two evaluations on the split "valid"."""
    evaluate_batches: int = 0
    """Most batches of one evaluation; 0 takes the whole split."""
    sample_every: int = 0
    """Steps between two sets of samples."""
    save_every: int = 1000
    """Steps between two checkpoints; one is always saved at the end."""
    keep_last: int = 2
    """Checkpoints that are kept."""
    trackers: tuple[str, ...] = ()
    """Trackers of accelerate beside the console and metrics.jsonl, e.g. wandb (offline unless
    WANDB_MODE says otherwise) or tensorboard."""

    def __post_init__(self) -> None:
        _require(self.log_every >= 1, "log_every must be at least 1.")
        _require(self.keep_last >= 1, "keep_last must be at least 1.")
        for name in ("evaluate_every", "evaluate_batches", "sample_every", "save_every"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative.")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run; every stage derives its config from this."""

    stage: str
    """Name of the stage; chooses the config class and the task."""
    run: str = ""
    """Run folder: a path, or a name under TOKENLM_RUNS; empty takes the name of the stage."""
    seed: int = 0
    """Every random draw of the run is made from it."""
    max_minutes: float | None = None
    """Stop cleanly (save, evaluate, export) after this wall time of one start of the run."""
    precision: PrecisionChoice = "auto"
    """Arithmetic of the forward pass; parameters stay in 32 bits."""
    tf32: bool = True
    """Whether a GPU rounds the factors of float32 products to TF32, which takes a fraction of the
    time; no other device is asked."""
    max_skipped_steps: int = 10
    """The run stops after this many steps in a row whose loss or gradient was not finite."""
    initial: dict[str, Path] = field(default_factory=dict)
    """Component folder that each named module starts from, to fine-tune it."""
    initial_partial: bool = False
    """Whether weights that `initial` lacks or has in another shape (another codebook, say) keep
    their random start, and those without a place (another head) are left out; otherwise they end
    the run."""
    loss_weights: dict[str, float] = field(default_factory=dict)
    """Weight of each named loss; a loss that is not named has weight 1."""
    compile: bool = False
    """Compile the forward of the trained modules with `torch.compile`."""
    activation_checkpointing: bool = False
    """Keep no activations within the blocks of the trained modules, and compute them again in the
    backward pass: less memory, about a third more work, the same numbers."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer of all phases that bring no own one."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """Batches."""
    log: LogConfig = field(default_factory=LogConfig)
    """Log, evaluation and checkpoints."""

    def __post_init__(self) -> None:
        _require(
            self.precision in get_args(PrecisionChoice),
            f"precision {self.precision!r} is none of {', '.join(get_args(PrecisionChoice))}.",
        )
        _require(self.seed >= 0, "seed must not be negative.")
        _require(self.max_minutes is None or self.max_minutes > 0, "max_minutes must be positive.")
        _require(self.max_skipped_steps >= 1, "max_skipped_steps must be at least 1.")


def runs_folder() -> Path:
    """Return the folder that holds the runs: TOKENLM_RUNS, or the platform's cache folder."""
    named = os.environ.get("TOKENLM_RUNS")
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tokenlm" / "runs"


def run_folder(config: RunConfig) -> Path:
    """Return the folder of a run: `config.run` if it is a path, else that name under the runs."""
    named = Path(config.run or config.stage).expanduser()
    is_path = named.is_absolute() or len(named.parts) > 1 or config.run.startswith(".")
    return named.resolve() if is_path else runs_folder() / named


def ranks_of_launch() -> tuple[int, int]:
    """This process and the number of processes, as `accelerate launch` or `torchrun` set them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def resolve_precision(choice: PrecisionChoice, device: torch.device) -> Literal["fp32", "bf16"]:
    """Return the precision that "auto" means on `device`.

    A CPU without bf16 instructions emulates them, which makes matrix products about 300 times
    slower; there "auto" is fp32.
    """
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if device.type == "cpu" and _cpu_has_bf16():
        return "bf16"
    return "fp32"


def _cpu_has_bf16() -> bool:
    """Say whether the CPU multiplies bf16 matrices in hardware (avx512_bf16 or amx_bf16)."""
    cpuinfo = Path("/proc/cpuinfo")
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags
