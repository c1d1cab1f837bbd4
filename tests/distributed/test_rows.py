"""Training and precompute on several real processes: every row of `Rows`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.distributed.launch import Launcher
from tests.distributed.processes import Stopped, stopped_by_signals
from tests.distributed.rows import Rows
from training.stages import STAGES

LIMIT_SECONDS = 600.0
"""Of a launch with one run."""
NAMES = list(Rows(Launcher(Path("nowhere"), LIMIT_SECONDS)).functions)


@pytest.fixture(scope="module")
def rows(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rows]:
    """The rows that this session runs."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    names = [call.params["name"] for call in calls if call and call.params.get("name") in NAMES]
    if not torch.cuda.is_available():
        print("No GPU: NCCL, bf16 and accelerate's own distributed_type FSDP are not run.")
    with stopped_by_signals():
        yield Rows(Launcher(tmp_path_factory.mktemp("distributed"), LIMIT_SECONDS), names)


def marked(name: str) -> object:
    """ZeRO has no other test; the other rows take too long for every change."""
    return pytest.param(name, marks=pytest.mark.slow if "zero" in name else pytest.mark.nightly)


@pytest.mark.parametrize("name", [marked(name) for name in NAMES])
def test_row(rows: Rows, name: str) -> None:
    try:
        print(f"\n    {rows.functions[name]()}")
    except Stopped as stop:
        pytest.exit("stopped by a signal", returncode=int(stop.code or 1))


def test_every_stage_and_strategy_has_a_row() -> None:
    for strategy in ("ddp", "fsdp2", "zero1", "zero2", "zero3"):
        for stage in ("speech_lm", "speech_tokenizer", "flow", "dpo", "grpo"):
            assert f"{stage} {strategy} x 2" in NAMES
    assert {f"{stage} ddp x 2" for stage in STAGES} <= set(NAMES)
    launcher = Launcher(Path("nowhere"), LIMIT_SECONDS)
    assert list(Rows(launcher, ["resume 4 -> 2 fsdp2"]).functions) == ["resume 4 -> 2 fsdp2"]
