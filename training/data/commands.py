"""Verbs of the `tokenlm` command that training adds (entry-point group `tokenlm.commands`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from training.data.manifest import Utterance

FORMATS = ("libritts", "librispeech", "ljspeech", "gpt-sovits", "hf-dataset", "webdataset")
"""Layouts of corpora that can be imported (`training.data.importers`)."""


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
    hours = checked.utterances.column("duration").sum() / 3600
    names, _ = checked.utterances.table.coded("speaker")
    typer.echo(f"{hours:.2f} hours of {len(names)} speakers.")
    if not checked.utterances and not checked.bad_rows:
        typer.echo(f"{manifest}: there is no row.", err=True)
    if checked.bad_rows or not checked.utterances:
        raise typer.Exit(1)


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
    from training.data.importers import import_rows
    from training.data.manifest import write_manifest
    from training.data.rejects import Rejects

    rejects = Rejects(output.with_suffix(".rejects.jsonl"), max_rejects)
    seconds: list[float] = []
    speakers: set[str] = set()

    def rows() -> Iterator[Utterance]:
        options: dict[str, Any] = {"split": split, "check_audio": check_audio}
        for row in import_rows(format, source, output, rejects, **options):
            seconds.append(row.duration)
            speakers.add(row.speaker)
            yield row
        rejects.check()
        if not seconds:
            raise ValueError(f"there is no row in {source}.")

    write_manifest(output, rows())
    typer.echo(rejects.report())
    hours = sum(seconds) / 3600
    typer.echo(f"{output}: {len(seconds)} utterances, {hours:.2f} hours, {len(speakers)} speakers.")


def merge(
    output: Annotated[Path, typer.Argument(help="Manifest (JSONL) to write.")],
    manifests: Annotated[
        list[str],
        typer.Argument(help="Manifests (JSONL); NAME=PATH puts NAME- before ids and speakers."),
    ],
) -> None:
    """Join manifests into one; the sound stays where it is."""
    from training.data.manifest import merge_manifests

    parts = [part.partition("=") for part in manifests]
    named = [(name if equals else "", Path(path or name)) for name, equals, path in parts]
    count, seconds = merge_manifests(output, named)
    typer.echo(f"{output}: {count} utterances, {seconds / 3600:.2f} hours.")


def precompute(
    manifest: Annotated[Path, typer.Argument(help="Manifest (JSONL).")],
    output: Annotated[
        Path, typer.Argument(help="Folder of shards, or a manifest (.jsonl) with speech tokens.")
    ],
    tokenizer: Annotated[
        Path | None, typer.Option(help="Component folder: store its speech tokens.")
    ] = None,
    speaker_encoder: Annotated[
        Path | None, typer.Option(help="Component folder: store its embeddings.")
    ] = None,
    mel: Annotated[bool, typer.Option("--mel", help="Store mel spectrograms.")] = False,
    mel_config: Annotated[
        Path | None, typer.Option(help="Config (YAML) of the mel, if not the default one.")
    ] = None,
    audio_rate: Annotated[
        int, typer.Option(help="Store the sound (flac) at this rate in Hz; 0 stores none.")
    ] = 0,
    items_per_shard: Annotated[int, typer.Option(help="Items of one tar file.")] = 1000,
    max_rejects: Annotated[
        float, typer.Option(help="Share of rows that may be bad before the work stops.")
    ] = 0.05,
) -> None:
    """Write speech tokens, embeddings, mels and sound of a manifest into tar shards.

    Where the output is a .jsonl file, it is the manifest with speech tokens in its rows.
    On several processes: accelerate launch -m tokenlm data precompute ... The same command again
    goes on where it was stopped.
    """
    from training.data.manifest import read_manifest

    rows = read_manifest(manifest)  # mistakes are reported before torch is loaded
    import torch

    from tokenlm.audio.mel import MelConfig
    from tokenlm.checkpoint.registry import SPEAKER_ENCODERS, SPEECH_TOKENIZERS, load_model
    from tokenlm.config import load_config
    from training.config import ranks_of_launch
    from training.data.precompute import Precompute, build_shards, write_tokens
    from training.data.shards import is_complete

    rank, num_ranks = ranks_of_launch()
    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda:{rank % torch.cuda.device_count()}"
    config = load_config(MelConfig, mel_config) if mel_config is not None else MelConfig()
    work = Precompute(
        tokenizer=load_model(tokenizer, *SPEECH_TOKENIZERS, device=device) if tokenizer else None,
        speaker_encoder=(
            load_model(speaker_encoder, *SPEAKER_ENCODERS, device=device)
            if speaker_encoder
            else None
        ),
        mel=config if mel or mel_config is not None else None,
        audio_rate=audio_rate,
        items_per_shard=items_per_shard,
        max_reject_share=max_rejects,
    )
    if output.suffix == ".jsonl":
        typer.echo(write_tokens(rows, output, work, rank=rank, num_ranks=num_ranks).report())
        return
    rejects = build_shards(rows, output, work, rank=rank, num_ranks=num_ranks)
    num_shards = work.info(rows).num_shards
    done = sum(is_complete(output, number) for number in range(num_shards))
    typer.echo(rejects.report())
    typer.echo(f"{output}: {done} of {num_shards} shards ({', '.join(work.contents)}).")
