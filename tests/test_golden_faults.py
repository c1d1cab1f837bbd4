"""The check of the golden tests finds reference numbers that no test looks at."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden_faults import broken
from golden_subset import LEFT_OUT_TESTS, MAX_BYTES, PARTS
from safetensors.torch import load_file, save_file

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_golden"
NAME = "cv3_pre_lookahead"


@pytest.mark.slow
def test_golden_faults_are_noticed(golden_folder: Path, tmp_path: Path) -> None:
    """The rest of the reference numbers takes minutes: `scripts/check_golden`."""
    kept = [*golden_folder.glob("cv3_*"), golden_folder / LEFT_OUT_TESTS]
    for path in kept:  # what the tests of these modules read
        if path.exists():
            shutil.copyfile(path, tmp_path / path.name)

    def check(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), str(tmp_path), "--only", NAME, *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = check()
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{NAME}: 2 faults, 0 unnoticed (test_golden_dit.py)" in found.stdout
    tensors = load_file(tmp_path / f"{NAME}.safetensors")
    tensors["out.ignored"] = torch.zeros(3)
    save_file(tensors, tmp_path / f"{NAME}.safetensors")
    facts = json.loads((tmp_path / f"{NAME}.json").read_text())
    facts["tensors"]["out.ignored"] = {"atol": 1e-5}
    (tmp_path / f"{NAME}.json").write_text(json.dumps(facts))
    found = check("--inputs")
    assert found.returncode == 1
    assert f"{NAME}: 6 faults, 1 unnoticed" in found.stdout and "  out.ignored" in found.stdout


def test_faults_are_above_the_tolerance() -> None:
    assert broken(torch.tensor([1.0, 2.0]), 0.1).tolist() == [1.25, 2.25]
    assert broken(torch.tensor([1, 2]), 0).tolist() == [2, 3]
    assert broken(torch.tensor([1, 2]), None).tolist() == [2, 1]
    assert broken(torch.tensor([2, 2]), None).tolist() == [3, 3]
    assert broken(torch.tensor([True]), 0).tolist() == [False]
    changed = broken(torch.tensor([0.0, 1.0]), None)
    assert (changed - torch.tensor([0.0, 1.0])).abs().min() > 0.01


SUBSET = Path(__file__).parent / "golden"


def test_the_subset_is_whole_and_small() -> None:
    files = [path for path in SUBSET.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    for name in PARTS:
        facts = json.loads((SUBSET / f"{name}.json").read_text(encoding="utf-8"))
        tensors = load_file(SUBSET / f"{name}.safetensors")
        assert not facts["left_out"].keys() & tensors.keys()
        outputs = [key for key in tensors if key.startswith("out.")]
        assert outputs and {"atol", "meaning"} <= facts["tensors"][outputs[0]].keys()


def test_tests_that_are_left_out_are_there() -> None:
    """A name that is misspelt, or of a test that was renamed, would leave nothing out."""
    root = Path(__file__).parents[1]
    names = (SUBSET / LEFT_OUT_TESTS).read_text(encoding="utf-8").splitlines()
    assert names == sorted(set(names)) and len(names) > 10
    for name in names:
        path, _, function = name.partition("::")
        source = (root / path).read_text(encoding="utf-8")
        assert f"def {function.partition('[')[0]}(" in source, name
