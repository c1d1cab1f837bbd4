"""The verb `tokenlm data import` (entry-point group `tokenlm.commands`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.data.rejects import Reject, Rejects

if TYPE_CHECKING:
    from training.data.importers.row import Importer
    from training.data.manifest import Utterance

FORMATS = ("libritts", "librispeech", "ljspeech", "gpt-sovits", "hf-dataset", "webdataset")


def importer(name: str) -> Importer:
    """Return the importer of a format.

    Raises:
        ValueError: If there is none.
    """
    from training.data.importers import containers, tables, trees

    found: dict[str, Importer] = {
        "libritts": trees.read_libritts,
        "librispeech": trees.read_librispeech,
        "ljspeech": tables.read_ljspeech,
        "gpt-sovits": tables.read_gpt_sovits,
        "hf-dataset": containers.read_hf_dataset,
        "webdataset": containers.read_webdataset,
    }
    assert tuple(found) == FORMATS
    if name not in found:
        raise ValueError(f"there is no format {name!r}; valid are: {', '.join(FORMATS)}")
    return found[name]


def import_rows(
    name: str,
    source: str,
    output: Path,
    rejects: Rejects,
    *,
    split: str = "",
    check_audio: bool = False,
) -> Iterator[Utterance]:
    """Yield the good rows of a corpus; the others go to `rejects`.

    Args:
        name: Format, one of `FORMATS`.
        source: Where the corpus lies.
        output: The manifest that is to be written; sound out of containers goes to the folder
            `<its stem>.audio` beside it.
        rejects: Takes the bad rows; an id that was there before is one.
        split: Split of the corpus.
        check_audio: Decode every file.

    Raises:
        ValueError: If the source cannot be used.
        TooManyRejects: If too much of it cannot.
    """
    from training.data.importers.row import checked

    seen: dict[str, str] = {}
    for row in importer(name)(source, split=split):
        place = row.file if row.line is None else f"{row.file}:{row.line}"
        try:
            if row.id in seen:
                raise ValueError(f"the id {row.id!r} is already that of {seen[row.id]}.")
            folder = output.with_name(f"{output.stem}.audio")
            utterance = checked(row, folder, check_audio=check_audio)
        except ValueError as error:
            rejects.reject(Reject(row.file, row.line, str(error)))
            continue
        seen[row.id] = place
        rejects.accept()
        yield utterance


def import_data(
    format: Annotated[str, typer.Argument(help=f"Layout of the corpus: {', '.join(FORMATS)}.")],
    source: Annotated[str, typer.Argument(help="Folder, file, pattern or hub id.")],
    output: Annotated[Path, typer.Argument(help="Manifest (JSONL) to write.")],
    split: Annotated[str, typer.Option(help="Split of the corpus.")] = "",
    check_audio: Annotated[
        bool, typer.Option(help="Decode every sound file, or trust the headers.")
    ] = False,
    max_rejects: Annotated[
        float, typer.Option(help="Share of rows that may be bad before the import stops.")
    ] = 0.05,
) -> None:
    """Make a manifest of a published corpus; bad rows go to a rejects file beside it."""
    from training.data.manifest import write_manifest

    rejects = Rejects(output.with_suffix(".rejects.jsonl"), max_rejects)
    rows = list(import_rows(format, source, output, rejects, split=split, check_audio=check_audio))
    rejects.check()
    if not rows:
        raise ValueError(f"there is no row in {source}.")
    write_manifest(output, rows)
    typer.echo(rejects.report())
    hours = sum(row.duration for row in rows) / 3600
    speakers = len({row.speaker for row in rows})
    typer.echo(f"{output}: {len(rows)} utterances, {hours:.2f} hours, {speakers} speakers.")
