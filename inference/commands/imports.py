"""The verb import: the published weights of another system as a bundle."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tokenlm.console import ProgressBar


class System(StrEnum):
    """Systems whose folders can be imported."""

    cosyvoice2 = "cosyvoice2"
    cosyvoice3 = "cosyvoice3"


class Tokenizer(StrEnum):
    """How the speech tokenizer is run."""

    onnx = "onnx"
    torch = "torch"


class Normalizer(StrEnum):
    """What texts go through before they are encoded."""

    none = "none"
    english = "english"


class Precision(StrEnum):
    """Types that weights are stored in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def import_weights(
    system: Annotated[System, typer.Argument(help="Where the weights come from.")],
    folder: Annotated[Path, typer.Argument(help="Folder as it was published.")],
    bundle: Annotated[Path, typer.Argument(help="Bundle to make; must not exist.")],
    precision: Annotated[
        Precision | None, typer.Option(help="Type to store weights in; default that of the files.")
    ] = None,
    tokenizer: Annotated[
        Tokenizer,
        typer.Option(help="Run the speech tokenizer's graph, or read its weights out of it."),
    ] = Tokenizer.onnx,
    normalizer: Annotated[
        Normalizer,
        typer.Option(help="Leave texts as they are written, or read all of them as English."),
    ] = Normalizer.none,
) -> None:
    """Make a bundle of the published weights of another system."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder.")
    import torch

    from tokenlm.checkpoint.cosyvoice.importer import import_cosyvoice

    with ProgressBar("importing"):
        report = import_cosyvoice(
            folder,
            bundle,
            version=2 if system is System.cosyvoice2 else 3,
            dtype=None if precision is None else getattr(torch, precision.value),
            tokenizer=tokenizer.value,
            normalizer=normalizer.value,
        )
    for name, count in report.parameters.items():
        typer.echo(f"{name:<12} {count / 1e6:8.2f} M parameters")
    for remark in report.remarks:
        typer.echo(f"note: {remark}")
    typer.echo(f"made {report.bundle}")
