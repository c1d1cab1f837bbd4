"""Are all reference numbers really looked at? Each in turn is made wrong, and a test must fail.

`scripts/check_golden FOLDER` copies the folder of reference numbers and, for every output in it,
shifts that output by two and a half times its tolerance and runs the golden tests that read its
file. An output whose fault passes all of them is looked at by none, or at a looser tolerance than
the one beside it. With `--inputs` and `--weights` those are changed, too; not all of them must
matter (some draws of the reference have no effect), so they are only listed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

TESTS = Path(__file__).resolve().parent
ABOVE_TOLERANCE = 2.5
"""A right result is off by at most the tolerance; whatever it is compared with, this is seen."""


def broken(tensor: Tensor, atol: float | None) -> Tensor:
    """A tensor with a fault: an output where there is a tolerance, else an input or a weight."""
    if tensor.dtype == torch.bool:
        return ~tensor
    if not tensor.is_floating_point():
        turned = tensor.flip(-1) if tensor.ndim else tensor
        return tensor + 1 if atol is not None or torch.equal(turned, tensor) else turned
    if atol is None:
        return tensor * 1.25 + 0.25 * tensor.abs().mean() + 0.01
    size = tensor.abs().max().clamp(min=1e-3)
    # A shift below the resolution of the numbers would be none.
    return tensor + max(ABOVE_TOLERANCE * atol, float(size) * 1e-6)


class GoldenTests:
    """The golden tests, and which files of a folder each of their modules reads."""

    def __init__(self, folder: Path) -> None:
        """Runs all of them once.

        Raises:
            ValueError: one of them fails as it is, or reads nothing in the folder.
        """
        self.folder = folder
        self.opened: set[str] = set()
        sys.addaudithook(self._listen)
        self.readers: dict[str, list[Path]] = {}
        for path in sorted(TESTS.rglob("test_*.py")):
            if "golden" not in path.read_text(encoding="utf-8"):
                continue
            self.opened.clear()
            status = self.run([path])
            if status == pytest.ExitCode.NO_TESTS_COLLECTED:
                continue
            if status != pytest.ExitCode.OK:
                raise ValueError(f"the golden tests of {path.name} fail without any fault")
            for name in self.opened:
                self.readers.setdefault(name, []).append(path)

    def _listen(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | Path):
            path = Path(arguments[0])
            if path.suffix == ".json" and path.parent == self.folder:
                self.opened.add(path.stem)

    def run(self, paths: Sequence[Path]) -> int:
        """Status of the golden tests of some modules, up to the first failure."""
        options = ["-x", "-q", "-k", "golden", "-p", "no:cacheprovider", "--no-header"]
        hidden = io.StringIO()
        with contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden):
            return pytest.main([*options, *map(str, paths)])

    def notice(self, name: str, key: str) -> bool:
        """Whether a fault in one tensor makes a test fail."""
        path = self.folder / f"{name}.safetensors"
        whole = path.read_bytes()
        facts = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        tensors = load_file(path)
        atol = facts["tensors"][key]["atol"] if key.startswith("out.") else None
        tensors[key] = broken(tensors[key], atol).contiguous()
        try:
            save_file(tensors, path)
            return self.run(self.readers.get(name, [])) == pytest.ExitCode.TESTS_FAILED
        finally:
            path.write_bytes(whole)


def unnoticed(
    tests: GoldenTests, prefixes: Sequence[str], only: Sequence[str] = ()
) -> Iterator[tuple[str, int, list[str]]]:
    """Of each file its name, the number of faults that were tried, and those that were not seen.

    Args:
        tests: to be run.
        prefixes: of the tensors to break: "out.", "in.", "weights.".
        only: names of files; all of them when empty.
    """
    for path in sorted(tests.folder.glob("*.safetensors")):
        if only and path.stem not in only:
            continue
        keys = [key for key in load_file(path) if key.startswith(tuple(prefixes))]
        missed = [key for key in keys if not tests.notice(path.stem, key)]
        yield path.stem, len(keys), missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 1 where the fault of an output is not seen."""
    parser = argparse.ArgumentParser(prog="scripts/check_golden", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of reference numbers")
    parser.add_argument("--only", action="append", default=[], help="name of a file, repeatable")
    parser.add_argument("--inputs", action="store_true", help="break the inputs, too")
    parser.add_argument("--weights", action="store_true", help="break the weights, too")
    options = parser.parse_args(arguments)
    if not any(options.folder.glob("*.safetensors")):
        print(f"error: there are no reference numbers in {options.folder}", file=sys.stderr)
        return 2
    prefixes = ["out."] + ["in."] * options.inputs + ["weights."] * options.weights
    has_missed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(options.folder, Path(temporary) / "golden"))
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.environ["TOKENLM_GOLDEN"] = str(folder)
        try:
            tests = GoldenTests(folder)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        for name, count, missed in unnoticed(tests, prefixes, options.only):
            readers = ", ".join(path.name for path in tests.readers.get(name, []))
            print(f"{name}: {count} faults, {len(missed)} unnoticed ({readers})", flush=True)
            for key in missed:
                print(f"  {key}")
            has_missed |= any(key.startswith("out.") for key in missed)
    return int(has_missed)
