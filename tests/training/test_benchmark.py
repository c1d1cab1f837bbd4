"""What the benchmark of training counts, and that it runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from script_module import load_script

from tokenlm.models.lm.layout import one_shot
from tokenlm.models.lm.model import LayoutBatch

BENCHMARK = load_script("benchmark_training")
StepClock, main = BENCHMARK.StepClock, BENCHMARK.main


def test_positions_and_pairs_by_hand() -> None:
    layouts = [one_shot([1], [2, 3], 9), one_shot([], [4], 9)]  # 1 + 2 + 2 and 1 + 2 positions
    for batch in (LayoutBatch.from_layouts(layouts), LayoutBatch.in_rows(layouts, (2,))):
        prepared: list[Any] = []
        task = SimpleNamespace(prepare=lambda *given, seen=prepared: seen.append(given))
        clock = StepClock(SimpleNamespace(task=task))
        task.prepare(batch, None)
        assert prepared == [(batch, None)]
        assert torch.stack(clock._positions).sum() == 5 + 3
        assert torch.stack(clock._pairs).sum() == 15 + 6


@pytest.mark.slow
def test_all_loaders_are_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # Few items leave the last row of an epoch half empty: more than 5 % may be padding.
    options = ["--steps", "1", "--warmup", "0", "--items", "2000", "--seconds", "80"]
    assert main(options) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:4]}
    assert list(rows) == ["plain", "bucketed", "packed"]
    waste = {name: float(row[1].rstrip("%")) for name, row in rows.items()}
    assert waste["plain"] > 20 > waste["bucketed"] and waste["packed"] <= 5
    assert rows["plain"][3] == "1.00x" and all(float(row[2]) > 0 for row in rows.values())
