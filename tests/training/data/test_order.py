"""The order of a corpus read from its file: that of the seed, on any number of processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.config import BatchConfig
from training.data import table
from training.data.dataset import UtteranceDataset
from training.data.reader import MicroBatchDataset, StepReader
from training.data.sampler import DurationSampler, Position

NUM_STEPS = 12
"""Micro-batches that are read, by all processes together, is four times that."""


class Ids:
    """A task that collates the ids of utterances, and its dataset."""

    def __init__(self, manifest: Path) -> None:
        self.rows = UtteranceDataset(manifest, 16_000).utterances
        self.durations = self.rows.column("duration")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> str:
        return self.rows[index].id

    def collate(self, items: list[str]) -> list[str]:
        return items

    def collate_packed(self, items: list[str], row_sizes: Any) -> list[str]:
        return items


def read_order(
    manifest: Path, rank: int, num_ranks: int, start: Position, num_steps: int, pack: float
) -> tuple[list[list[list[str]]], Position]:
    """Ids of the micro-batches of a rank, step by step, and where the next step begins."""
    data: Any = Ids(manifest)
    config = BatchConfig(max_seconds_per_batch=30.0, max_items=4, pack_seconds=pack)
    sampler = DurationSampler(data.durations, config, 5)
    reader = StepReader(
        MicroBatchDataset(data, data, 5, augment=False),
        sampler,
        start,
        rank=rank,
        num_ranks=num_ranks,
        accumulation=4 // num_ranks,
        num_workers=0,
    )
    steps, after = [], start
    for _ in range(num_steps):
        plan, parts = reader.next_step()
        steps.append([batch for _, _, batch in parts])
        after = plan.after
    return steps, after


def merged(ranks: list[list[list[list[str]]]]) -> list[list[str]]:
    """The micro-batches of all ranks in their order: rank r has number r, r + ranks, ..."""
    return [
        parts[number]
        for steps in zip(*ranks, strict=True)
        for number in range(len(steps[0]))
        for parts in steps
    ]


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty rows, read from the file that they are converted to."""
    monkeypatch.setenv("TOKENLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(table, "MAX_BYTES_IN_MEMORY", 0)
    seconds = np.random.default_rng(0).uniform(1, 9, 40).round(2).tolist()
    row = {"audio": "a.wav", "text": "a b", "speaker": "s"}
    rows = [{**row, "id": f"i{n}", "duration": value} for n, value in enumerate(seconds)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("pack", [0.0, 15.0])
def test_order_and_resuming_do_not_depend_on_the_number_of_processes(
    pack: float, manifest: Path
) -> None:
    whole = merged([read_order(manifest, 0, 1, Position(), NUM_STEPS, pack)[0]])
    first = [item for batch in whole for item in batch][:40]
    assert sorted(first) == sorted(f"i{n}" for n in range(40)) and first != sorted(first)
    for num_ranks in (2, 4):
        ranks = [read_order(manifest, r, num_ranks, Position(), NUM_STEPS, pack)[0]
                 for r in range(num_ranks)]  # fmt: skip
        assert merged(ranks) == whole
        # Stopped within an epoch, and continued by another number of processes.
        _, after = read_order(manifest, 0, num_ranks, Position(), 1, pack)
        assert after.epoch == 0 and after.index == 4
        rest = [read_order(manifest, r, 6 - num_ranks, after, NUM_STEPS - 1, pack)[0]
                for r in range(6 - num_ranks)]  # fmt: skip
        assert merged(rest) == whole[4:]


PROGRAM = """
import json, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from pathlib import Path
from accelerate import PartialState
from training.data import table
from training.data.sampler import Position
from test_order import NUM_STEPS, read_order
table.MAX_BYTES_IN_MEMORY = 0
state = PartialState(cpu=True)
rank, num_ranks = state.process_index, state.num_processes
steps, _ = read_order(Path(sys.argv[3]), rank, num_ranks, Position(), NUM_STEPS, 0.0)
print(json.dumps([rank, num_ranks, steps]))
"""


@pytest.mark.slow
def test_processes_of_accelerate_share_the_order(manifest: Path) -> None:
    """Real processes, which all find the manifest not converted yet."""
    folder = Path(__file__).resolve().parent
    whole = merged([read_order(manifest, 0, 1, Position(), NUM_STEPS, 0.0)[0]])
    for num_ranks in (1, 2, 4):
        for path in (manifest.parent / "cache").glob("*.arrow"):
            path.unlink()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": f"{num_ranks}"}
        command = [sys.executable, "-c", PROGRAM, str(folder.parents[2]), str(folder)]
        processes = [
            subprocess.Popen(
                [*command, str(manifest)],
                env={**os.environ, **place, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(num_ranks)
        ]
        lines = [process.communicate()[0].splitlines()[-1] for process in processes]
        told = sorted(json.loads(line) for line in lines)
        assert [row[:2] for row in told] == [[rank, num_ranks] for rank in range(num_ranks)]
        assert merged([row[2] for row in told]) == whole
