"""The load test, with few clients and tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from load.driver import main


@pytest.mark.slow
def test_few_clients(tiny_bundle: Path, tmp_path: Path) -> None:
    arguments = ["--bundle", str(tiny_bundle), "--clients", "3", "--seconds", "5"]
    main([*arguments, "--output", str(tmp_path)])
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["compared"] >= 6
    # Of so small a process, the share of memory that libraries take late says nothing.
    assert not [problem for problem in report["problems"] if "memory" not in problem]
