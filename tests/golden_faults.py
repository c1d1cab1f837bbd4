"""Are all reference numbers really looked at? Each in turn is made wrong, and a test must fail.

`scripts/check_golden FOLDER` copies the folder of reference numbers, shifts every output in it by
two and a half times its tolerance, and runs the golden tests. An output whose fault passes all of
them is looked at by none, or at a looser tolerance than the one beside it. With `--inputs` and
`--weights` those are changed, too; not all of them must matter (some draws of the reference have no
effect), so they are only listed.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


class Soft:
    """A plugin that lets comparisons fail without ending the test, and remembers which did."""

    def __init__(self) -> None:
        self.failed: set[tuple[str, str]] = set()
        """File and tensor."""
        self._wrapped: list[tuple[Any, Callable[..., None]]] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Wraps the comparison of the reference numbers, once the tests are known."""
        plugins = session.config.pluginmanager.get_plugins()
        for golden in {plugin.Golden for plugin in plugins if hasattr(plugin, "Golden")}:
            self._wrapped.append((golden, golden.check))
            golden.check = self._soft(golden.check)

    def pytest_unconfigure(self) -> None:
        """Takes the wrapping off."""
        for golden, check in self._wrapped:
            golden.check = check

    def _soft(self, check: Callable[..., None]) -> Callable[..., None]:
        def soft(golden: Any, actual: Tensor, name: str, valid: Tensor | None = None) -> None:
            try:
                check(golden, actual, name, valid)
            except AssertionError:
                self.failed.add((golden.facts["name"], name))

        return soft


class GoldenTests:
    """The golden tests on a folder of reference numbers that may be written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sources = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")}
        self.sources = {path: text for path, text in sources.items() if "golden(" in text}

    def run(self, paths: Iterable[Path], *plugins: object, is_short: bool = True) -> int:
        """Status of the golden tests of some modules; a short run ends at the first failure."""
        options = ["-q", "-k", "golden", "-p", "no:cacheprovider", *["-x"] * is_short]
        hidden = io.StringIO()
        with contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden):
            return pytest.main([*options, *map(str, sorted(paths))], plugins=list(plugins))

    def readers(self, name: str) -> list[Path]:
        """Modules that name a file."""
        return [path for path, text in self.sources.items() if f'"{name}"' in text]

    @contextlib.contextmanager
    def broken(self, name: str, keys: Iterable[str]) -> Iterator[None]:
        """Some tensors of a file with a fault each, for as long as this lasts."""
        path = self.folder / f"{name}.safetensors"
        whole = path.read_bytes()
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        tensors = load_file(path)
        for key in keys:
            atol = facts["tensors"][key]["atol"] if key.startswith("out.") else None
            tensors[key] = broken(tensors[key], atol).contiguous()
        try:
            save_file(tensors, path)
            yield
        finally:
            path.write_bytes(whole)

    def notice_together(self, outputs: Mapping[str, list[str]]) -> set[tuple[str, str]]:
        """Outputs whose comparison fails when all of them are wrong at once."""
        soft = Soft()
        with contextlib.ExitStack() as stack:
            for name, keys in outputs.items():
                stack.enter_context(self.broken(name, keys))
            paths = {path for name in outputs for path in self.readers(name)}
            self.run(paths, soft, is_short=False)
        return soft.failed

    def notice(self, name: str, key: str) -> bool:
        """Whether a fault in this tensor alone makes a test fail."""
        with self.broken(name, [key]):
            return self.run(self.readers(name)) == pytest.ExitCode.TESTS_FAILED


def unnoticed(
    tests: GoldenTests, prefixes: Sequence[str], only: Sequence[str] = ()
) -> Iterator[tuple[str, int, list[str]]]:
    """Of each file its name, the number of faults that were tried, and those that were not seen.

    Args:
        tests: to be run.
        prefixes: of the tensors to break: "out.", "in.", "weights.".
        only: names of files; all of them when empty.

    Raises:
        ValueError: a test fails without any fault.
    """
    paths = sorted(tests.folder.glob("*.safetensors"))
    keys = {
        path.stem: [key for key in load_file(path) if key.startswith(tuple(prefixes))]
        for path in paths
        if not only or path.stem in only
    }
    used = {path for name in keys for path in tests.readers(name)}
    if used and tests.run(used) != pytest.ExitCode.OK:
        raise ValueError("the golden tests fail without any fault, or there are none")
    outputs = {name: [key for key in row if key.startswith("out.")] for name, row in keys.items()}
    seen = tests.notice_together(outputs)
    for name, row in keys.items():
        # Some are compared in another way: those are tried one by one.
        missed = [key for key in row if (name, key) not in seen and not tests.notice(name, key)]
        yield name, len(row), missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 1 where the fault of an output is not seen."""
    parser = argparse.ArgumentParser(
        prog="scripts/check_golden",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
        tests = GoldenTests(folder)
        try:
            for name, count, missed in unnoticed(tests, prefixes, options.only):
                readers = ", ".join(path.name for path in tests.readers(name)) or "no test"
                print(f"{name}: {count} faults, {len(missed)} unnoticed ({readers})", flush=True)
                for key in missed:
                    print(f"  {key}")
                has_missed |= any(key.startswith("out.") for key in missed)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return int(has_missed)
