"""Verbs of the `tokenlm` command that training adds (entry-point group `tokenlm.commands`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def validate(
    manifest: Annotated[Path, typer.Argument(help="Manifest (JSONL) to check.")],
    check_audio: Annotated[
        bool, typer.Option(help="Decode every sound file, or look at the rows only.")
    ] = True,
    limit: Annotated[int, typer.Option(help="Most bad rows that are shown.")] = 100,
    num_threads: Annotated[int, typer.Option(help="Files decoded at the same time.")] = 4,
) -> None:
    """Check a manifest: every bad row with its line number and what is wrong with it."""
    from training.data.manifest import ManifestError
    from training.data.manifest import validate as validate_manifest

    try:
        checked = validate_manifest(manifest, check_audio=check_audio, num_threads=num_threads)
    except ManifestError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(checked.report(limit=limit))
    hours = sum(utterance.duration for utterance in checked.utterances) / 3600
    speakers = len({utterance.speaker for utterance in checked.utterances})
    typer.echo(f"{hours:.2f} hours of {speakers} speakers.")
    if checked.bad_rows:
        raise typer.Exit(1)
