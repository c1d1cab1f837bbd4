"""Where the numbers, sounds and pictures of a run go."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from tokenlm.audio.io import save_audio
from tokenlm.config import ConfigError, to_dict
from training.loop.checkpoints import flatten

logger = logging.getLogger(__name__)


class MetricsWindow:
    """Sums over the steps since the last line of the log.

    Attributes:
        numbers: All of it, for a checkpoint: a resumed run writes the same next line.
    """

    def __init__(self, numbers: Mapping[str, float] | None = None) -> None:
        """Start empty, or with the numbers of a checkpoint."""
        self.numbers: dict[str, float] = dict(numbers or {})

    def _add(self, key: str, value: float) -> None:
        self.numbers[key] = self.numbers.get(key, 0.0) + value

    def add(self, values: Mapping[str, float]) -> None:
        """Take in named numbers of one step."""
        for name, value in values.items():
            self._add(f"sum:{name}", value)
            self._add(f"num:{name}", 1)

    def add_time(self, *, seconds: float, data_seconds: float, audio_seconds: float) -> None:
        """Add the time of one step, of its wait for data, and the length of its audio."""
        self._add("seconds", seconds)
        self._add("data_seconds", data_seconds)
        self._add("audio_seconds", audio_seconds)
        self._add("num_steps", 1)

    def averages(self) -> dict[str, float]:
        """Return the mean of each number over its steps, and the speed."""
        numbers = self.numbers
        means = {
            name.removeprefix("sum:"): value / numbers[name.replace("sum:", "num:", 1)]
            for name, value in numbers.items()
            if name.startswith("sum:")
        }
        seconds = max(numbers.get("seconds", 0.0), 1e-9)
        return {
            **means,
            "steps_per_second": numbers.get("num_steps", 0.0) / seconds,
            "audio_seconds_per_second": numbers.get("audio_seconds", 0.0) / seconds,
            "data_wait": numbers.get("data_seconds", 0.0) / seconds,
        }


class MetricsLog:
    """Writes metrics to the log, to metrics.jsonl and to the trackers of accelerate."""

    def __init__(self, folder: Path, accelerator: Accelerator, name: str) -> None:
        """Open the log of a run; only the first rank writes."""
        self._path = folder / "metrics.jsonl"
        self._accelerator = accelerator
        self._name = name
        self._started = time.monotonic()

    def write(self, step: int, metrics: Mapping[str, float], *, kind: str = "train") -> None:
        """Log one line.

        Args:
            step: Number of optimizer steps that were done.
            metrics: Named numbers.
            kind: "train" or "valid"; names of "valid" get it as a prefix in the trackers.
        """
        if not self._accelerator.is_main_process:
            return
        values = {name: _number(value) for name, value in metrics.items()}
        row = {"step": step, "kind": kind, "time": round(time.time(), 1), **values}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        minutes = (time.monotonic() - self._started) / 60
        shown = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
        self.info(f"{kind} {step} [{minutes:.1f} min]  {shown}")
        prefix = "" if kind == "train" else f"{kind}/"
        self._accelerator.log({f"{prefix}{name}": value for name, value in values.items()}, step)

    def info(self, sentence: str) -> None:
        """Log one line, on the first rank."""
        if self._accelerator.is_main_process:
            logger.info("%s: %s", self._name, sentence)


def _number(value: Any) -> float | None:
    # JSON has no NaN.
    number = float(value)
    return number if math.isfinite(number) else None


def _short(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4g}"


def check_trackers(trackers: tuple[str, ...]) -> None:
    """Check that the trackers can be used, and keep wandb offline unless set otherwise.

    Raises:
        ConfigError: If a tracker is unknown or its package is missing.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    available = {str(getattr(name, "value", name)) for name in get_available_trackers()}
    known = {str(getattr(name, "value", name)) for name in LOGGER_TYPE_TO_CLASS}
    for tracker in trackers:
        if tracker not in known:
            raise ConfigError(
                f"log.trackers has {tracker!r}; valid are: {', '.join(sorted(known))}."
            )
        if tracker not in available:
            raise ConfigError(
                f"The tracker {tracker!r} is not installed; install it with: pip install {tracker}"
            )
    if "wandb" in trackers:
        os.environ.setdefault("WANDB_MODE", "offline")


def start_trackers(accelerator: Accelerator, config: Any, folder: Path) -> None:
    """Open the trackers of a run; what they write goes into the run folder."""
    plain = {
        key: value if isinstance(value, (bool, int, float, str)) else str(value)
        for key, value in flatten(to_dict(config)).items()
    }
    accelerator.init_trackers(
        "tokenlm", config=plain, init_kwargs={"wandb": {"name": folder.name, "dir": str(folder)}}
    )


def write_audio_sample(
    path: Path, waveform: Tensor, sample_rate: int, *, mel: Tensor | None = None
) -> None:
    """Write a waveform, and a picture beside it if a mel is given.

    Args:
        path: Sound file; the picture has the ending .png.
        waveform: (S,) or (1, S); scaled down where it would clip.
        sample_rate: In Hz.
        mel: (T, num_mels) or (1, T, num_mels) log mel.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = waveform.detach().float().cpu().reshape(-1)
    peak = float(samples.abs().max()) if samples.numel() else 0.0
    save_audio(path, samples / max(1.0, peak), sample_rate)
    if mel is not None:
        write_mel_picture(path.with_suffix(".png"), {path.stem: mel})


def write_mel_picture(path: Path, mels: Mapping[str, Tensor]) -> None:
    """Draw log mels below each other, on one scale.

    Args:
        path: PNG to write.
        mels: (T, num_mels) or (1, T, num_mels) by title.

    Raises:
        ValueError: If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            "Pictures need matplotlib; install it with: pip install matplotlib"
        ) from error
    arrays = {
        name: mel.detach().float().cpu().reshape(-1, mel.shape[-1]) for name, mel in mels.items()
    }
    lowest = min(
        float(torch.quantile(array.flatten()[:1_000_000], 0.01)) for array in arrays.values()
    )
    highest = max(float(array.max()) for array in arrays.values())
    figure = Figure(figsize=(9, 2.4 * len(arrays)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(arrays), 1, squeeze=False)[:, 0]
    for axis, (name, array) in zip(axes, arrays.items(), strict=True):
        axis.imshow(
            array.T.numpy(), origin="lower", aspect="auto", vmin=lowest, vmax=highest, cmap="magma"
        )
        axis.set_title(name, fontsize=8)
        axis.set_ylabel("mel band", fontsize=7)
    axes[-1].set_xlabel("frame", fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
