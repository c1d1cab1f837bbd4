"""Rules about files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (
    "tokenlm",
    "training",
    "inference",
    "scripts",
    "configs",
    "tests",
    "docs",
    ".ci",
    ".github",
)
MAX_BYTES = 500_000
# Homes and volumes of one machine; put together here so that this file does not hold them.
MACHINE_PATH = re.compile(
    "|".join(["/" + "home/[a-z]", "/" + "root/", "/" + "Users/", "/" + "work/", r"\b[A-Z]:\\\w"])
)


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        for parent, names, found in os.walk(ROOT / folder):
            names[:] = [name for name in names if name != "__pycache__"]
            yield from (Path(parent) / name for name in found)
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.name != ".git")


def texts() -> Iterator[tuple[Path, str]]:
    for path in files():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_possessive_repeat_of_a_group() -> None:
    """Python before 3.11.5 matches them wrongly: what fails within the group is kept."""
    possessive = re.compile(r"\)(?:[*+?]|\{[0-9,]+\})\+")
    sources = list((ROOT / "tokenlm" / "text").glob("*.py"))
    found = {path.name: possessive.search(path.read_text(encoding="utf-8")) for path in sources}
    assert len(found) > 10
    assert not [name for name, hit in found.items() if hit]


def test_no_large_file_outside_the_bundle() -> None:
    assert not [path for path in files() if path.stat().st_size > MAX_BYTES]


def test_no_path_of_one_machine() -> None:
    found = {path.relative_to(ROOT).as_posix(): hit[0] for path, text in texts()
             if (hit := MACHINE_PATH.search(text))}  # fmt: skip
    assert not found


def test_every_package_says_what_it_is() -> None:
    for name in ("tokenlm", "training", "inference"):
        for path in (ROOT / name).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert text.startswith(('"""', 'r"""')), f"{path} opens without a docstring"


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "common", "helpers", "misc"}
    assert not [path for path in files() if path.stem in empty or path.parent.name in empty]
