"""`scripts/benchmark_training`: padding and speed of the LM stage, in one run on one machine.

Three loaders feed the same stage: plain (items in random order, padded), bucketed (by length,
padded) and packed (rows that hold several items). They take turns, step by step, so that whatever
else the machine does strikes all of them. The lengths of the items are drawn as those of speech
corpora are: log-normal, 5 s at the median, 1 to 20 s.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml

from tokenlm.models.lm import SpeechLMConfig
from tokenlm.models.lm.model import LayoutBatch
from tokenlm.text.tokenizers import SentencePieceTokenizer
from training.budget import PEAK_FLOPS, position_flops
from training.loop import Trainer
from training.run import load_task
from training.task import Prepared, StepInfo

LOADERS: dict[str, dict[str, float]] = {
    # A jitter of many octaves leaves nothing of the order by length.
    "plain": {"length_jitter": 1000.0},
    "bucketed": {"length_jitter": 0.15},
    "packed": {"length_jitter": 0.15, "pack_seconds": 40.0},
}
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_layers": 2, "num_heads": 4,
             "num_kv_heads": 2},
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_layers": 24, "num_heads": 14,
             "num_kv_heads": 2},
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One loader."""

    waste: float
    """Share of positions that are padding."""
    tokens_per_second: float
    """Valid positions."""
    stall: float
    """Share of the time in which the step waited for data."""
    utilisation: float
    """Share of the peak of an H100 or H200, meaningless on anything else."""


def write_data(folder: Path, num_items: int, seed: int = 0) -> None:
    """Write a manifest of random tokens, and a text tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    letters = "abcdefghijklmnopqrstuvwxyz "
    rows = []
    for number in range(num_items):
        seconds = math.exp(math.log(5.0) + 0.6 * float(torch.randn((), generator=generator)))
        count = int(SpeechLMConfig.token_rate * min(max(seconds, 1.0), 20.0))
        speech = torch.randint(0, 625, (count,), generator=generator).tolist()
        drawn = torch.randint(0, 27, (max(4, count // 2),), generator=generator).tolist()
        text = "".join(letters[index] for index in drawn).strip() or "a"
        rows.append(
            json.dumps({
                "id": f"i{number}", "audio": "none.wav", "text": text, "speaker": f"s{number % 50}",
                "duration": count / SpeechLMConfig.token_rate, "speech_tokens": speech,
                "tokenizer": "random",
            })
        )  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    SentencePieceTokenizer.train([letters, *(json.loads(row)["text"] for row in rows[:50])], 64,
                        model_type="char").save(folder / "text_tokenizer")  # fmt: skip


def make_trainer(folder: Path, loader: str, options: argparse.Namespace) -> Trainer:
    """The stage on one loader."""
    config: dict[str, Any] = {
        "stage": "speech_lm",
        "run": str(folder / loader),
        "data": {"train": str(folder / "rows.jsonl")},
        "text_tokenizer": str(folder / "text_tokenizer"),
        "model": {
            "backbone": {"vocab_size": 64, **SIZES[options.size]},
            "codebook_size": 625,
            "min_speech_per_text": 0.1,
            "max_speech_per_text": 100.0,
            "block_text_tokens": 1,
            "block_speech_tokens": 1,
        },
        "join_share": 0.0,
        "text_dropout": 0.0,
        "compile": options.compile,
        "optim": {"max_steps": 10**6, "ema_decay": 0.0},
        "batch": {"max_seconds_per_batch": options.seconds, "max_items": 1000,
                  "num_workers": options.workers, **LOADERS[loader]},
        "log": {"evaluate_every": 0, "save_every": 0},
    }  # fmt: skip
    path = folder / f"{loader}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    loaded, task = load_task(path)
    return Trainer(task, loaded)


def padding_waste(trainer: Trainer, num_batches: int) -> float:
    """Share of padding over the first batches of an epoch."""
    data = trainer.task.dataset("train")
    assert data is not None
    valid = total = 0
    for micro_batch in islice(trainer.sampler.micro_batches(0), num_batches):
        items = [data[index] for index in micro_batch.items]
        if micro_batch.row_sizes:
            batch = trainer.task.collate_packed(items, micro_batch.row_sizes)
        else:
            batch = trainer.task.collate(items)
        assert isinstance(batch, LayoutBatch)
        valid, total = valid + int(batch.mask.sum()), total + batch.mask.numel()
    return 1.0 - valid / total


class Stopwatch:
    """Times the steps of one trainer, and counts what they were made of."""

    def __init__(self, trainer: Trainer) -> None:
        """Listen to the batches that the trainer prepares."""
        self.trainer = trainer
        self.seconds = 0.0
        self._positions: list[torch.Tensor] = []
        self._pairs: list[torch.Tensor] = []
        self._prepare = trainer.task.prepare
        trainer.task.prepare = self._count  # type: ignore[method-assign]

    def _count(self, batch: LayoutBatch, step: StepInfo) -> Prepared:
        # Numbers stay on the device: to read them would stop it.
        self._positions.append(batch.mask.sum())
        places = batch.positions
        if places is None:
            places = batch.mask.long().cumsum(dim=1) - 1
        self._pairs.append(((places + 1) * batch.mask).sum())
        return self._prepare(batch, step)

    def step(self) -> None:
        """Make a step."""
        _wait_for_device()
        began = time.monotonic()
        self.trainer._train_step()
        _wait_for_device()
        self.seconds += time.monotonic() - began

    def clear(self) -> None:
        """Forget the steps until now."""
        self.seconds = 0.0
        self._positions, self._pairs = [], []
        self.trainer.window = type(self.trainer.window)()

    def read(self, waste: float) -> Measured:
        """What was measured.

        Args:
            waste: Share of positions that are padding.
        """
        positions = float(torch.stack(self._positions).sum())
        pairs = float(torch.stack(self._pairs).sum())
        model = self.trainer.task.modules["speech_lm"]
        tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
        weights = sum(p.numel() for p in model.parameters()) - tables
        backbone = self.trainer.config.model.backbone  # type: ignore[attr-defined]
        # `position_flops` lets a position see half of the length.
        length = 2 * pairs / positions
        flops = position_flops(weights, backbone.num_layers, backbone.hidden_size, length)
        return Measured(
            waste=waste,
            tokens_per_second=positions / self.seconds,
            stall=self.trainer.window.averages().get("data_wait", 0.0),
            utilisation=flops * positions / self.seconds / PEAK_FLOPS,
        )


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the loaders; return 0 if packing wastes at most 5 %."""
    parser = argparse.ArgumentParser(prog="benchmark_training", description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=120.0, help="padded seconds of a batch")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batches", type=int, default=100, help="batches whose padding is counted")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, options.items)
        watches = {loader: Stopwatch(make_trainer(folder, loader, options)) for loader in LOADERS}
        for number in range(options.warmup + options.steps):
            for watch in watches.values():
                if number == options.warmup:
                    watch.clear()
                watch.step()
        found = {
            loader: watch.read(padding_waste(watch.trainer, options.batches))
            for loader, watch in watches.items()
        }
    plain = found["plain"].tokens_per_second
    print(
        f"{'loader':<10}{'padding':>9}{'tokens/s':>11}{'against plain':>15}{'stall':>8}{'MFU':>8}"
    )
    for loader, row in found.items():
        print(
            f"{loader:<10}{row.waste:>9.1%}{row.tokens_per_second:>11.0f}"
            f"{row.tokens_per_second / plain:>14.2f}x{row.stall:>8.1%}{row.utilisation:>8.1%}"
        )
    if not torch.cuda.is_available():
        print("No GPU: the share of its peak (MFU) says nothing here.")
    return 0 if found["packed"].waste <= 0.05 else 1
