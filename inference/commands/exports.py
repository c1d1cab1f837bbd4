"""The verbs of the group export that write a bundle for other systems to read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tokenlm.checkpoint.resolve import resolve
from tokenlm.console import ProgressBar

BundleArgument = Annotated[
    str, typer.Argument(help="Name of a bundle, its folder, or its id on the hub.")
]
OutputArgument = Annotated[Path, typer.Argument(help="Folder to make; must not exist.")]


class Precision(StrEnum):
    """Types that weights are stored in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


PrecisionOption = Annotated[
    Precision | None,
    typer.Option(help="Type to store weights in.", show_default="that of the bundle"),
]


def export_llm(
    bundle: BundleArgument, output: OutputArgument, precision: PrecisionOption = None
) -> None:
    """Write the speech LM as a Hugging Face folder, which LLM engines serve as it is."""
    folder = resolve(bundle)
    import torch

    from tokenlm.checkpoint.llm_folder import export_llm as export

    with ProgressBar("exporting"):
        dtype = None if precision is None else getattr(torch, precision.value)
        written = export(folder, output, dtype=dtype)
    vocabulary = written.vocabulary
    typer.echo(
        f"{output}: {written.num_parameters / 1e6:.2f} M parameters; {vocabulary.size} ids: text "
        f"from 0, speech from {vocabulary.speech_offset}"
    )
    for remark in written.remarks:
        typer.echo(f"note: {remark}")


PublishedOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder that the bundle was imported from: what no bundle holds is copied from there.",
        show_default="none",
    ),
]


def export_cosyvoice2(
    bundle: BundleArgument,
    output: OutputArgument,
    published: PublishedOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Write a bundle of that architecture in the layout that CosyVoice 2 was published in."""
    _export_cosyvoice(2, bundle, output, published, precision)


def export_cosyvoice3(
    bundle: BundleArgument,
    output: OutputArgument,
    published: PublishedOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Write a bundle of that architecture in the layout that CosyVoice 3 was published in."""
    _export_cosyvoice(3, bundle, output, published, precision)


def _export_cosyvoice(
    version: Literal[2, 3],
    bundle: str,
    output: Path,
    published: Path | None,
    precision: Precision | None,
) -> None:
    folder = resolve(bundle)
    import torch

    from tokenlm.checkpoint.cosyvoice.exporter import export_cosyvoice as export

    with ProgressBar("exporting"):
        report = export(
            folder,
            output,
            version=version,
            published=published,
            dtype=None if precision is None else getattr(torch, precision.value),
        )
    for name, count in report.parameters.items():
        typer.echo(f"{name:<8} {count / 1e6:8.2f} M parameters")
    for remark in report.remarks:
        typer.echo(f"note: {remark}")
    typer.echo(f"made {report.folder}")
