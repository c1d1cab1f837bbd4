"""Verbs of the `tokenlm` command that training adds (entry-point group `tokenlm.commands`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from training.data.cluster import Cluster
    from training.data.manifest import Utterance

ClusterOption = Annotated[
    str,
    typer.Option(
        help="Let a Ray cluster do the work: local, ray://HOST:10001, auto or HOST:6379 "
        "(extra `cluster`)."
    ),
]
ActorsOption = Annotated[
    int, typer.Option(help="Processes of the cluster; 0 takes as many as there is room for.")
]
GpusOption = Annotated[
    float, typer.Option(help="GPUs of each process of the cluster; 0.25 lets four share one.")
]
FORMATS = ("libritts", "librispeech", "ljspeech", "gpt-sovits", "hf-dataset", "webdataset")
"""Layouts of corpora that can be imported (`training.data.importers`)."""


def make_cluster(address: str, actors: int, gpus_per_actor: float) -> Cluster | None:
    """What the options of a cluster ask for; None without one.

    Raises:
        ValueError: If an option has no meaning.
    """
    from training.data.cluster import Cluster

    if not address:
        if actors or gpus_per_actor:
            raise ValueError("--actors and --gpus-per-actor are options of a --cluster")
        return None
    return Cluster(address=address, num_actors=actors, gpus_per_actor=gpus_per_actor)


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
    manifest: Annotated[str, typer.Argument(help="Manifest (JSONL), a path or an address.")],
    output: Annotated[
        str,
        typer.Argument(
            help="Folder of shards, a path or an address; or a manifest (.jsonl) with tokens."
        ),
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
    part: Annotated[
        str, typer.Option(help="I/N: the I-th of N parts of the work, from 0; one process each.")
    ] = "",
    cluster: ClusterOption = "",
    actors: ActorsOption = 0,
    gpus_per_actor: GpusOption = 0.0,
) -> None:
    """Write speech tokens, embeddings, mels and sound of a manifest into tar shards.

    Where the output is a .jsonl file, it is the manifest with speech tokens in its rows.
    On several processes: accelerate launch -m tokenlm data precompute ..., or --part for each; on
    many machines: --cluster. The same command again goes on where it was stopped.
    """
    from training.data.manifest import read_manifest
    from training.data.storage import fetch_manifest, is_address

    # Mistakes are reported before torch is loaded.
    rows = fetch_manifest(manifest) if is_address(manifest) else read_manifest(manifest)
    workers = make_cluster(cluster, actors, gpus_per_actor)
    if part and workers is not None:
        raise ValueError("give --part for processes of your own, or --cluster, not both")
    import torch

    from tokenlm.audio.mel import MelConfig
    from tokenlm.checkpoint.registry import SPEAKER_ENCODERS, SPEECH_TOKENIZERS, load_model
    from tokenlm.config import load_config
    from training.data.precompute import Precompute, build_shards, write_tokens
    from training.data.shards import complete_shards
    from training.data.storage import Folder

    rank, num_ranks = _part_of_work(part)
    device = "cpu"
    if workers is None and torch.cuda.is_available():
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
    write = write_tokens if str(output).endswith(".jsonl") else build_shards
    rejects = write(rows, output, work, rank=rank, num_ranks=num_ranks, cluster=workers)
    typer.echo(rejects.report())
    if write is build_shards:
        info = work.info(rows)
        done = len(complete_shards(Folder(output), info))
        typer.echo(f"{output}: {done} of {info.num_shards} shards ({', '.join(work.contents)}).")


def _part_of_work(part: str) -> tuple[int, int]:
    """Number of this process and of all: those of `--part I/N`, or else those of the launcher.

    Raises:
        ValueError: If it is not a part of a whole.
    """
    from training.config import ranks_of_launch

    if not part:
        return ranks_of_launch()
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"--part is I/N with I from 0 to N - 1, not {part}")
    return int(match[1]), int(match[2])


def voice_space(
    manifest: Annotated[Path, typer.Argument(help="Manifest of recordings of training voices.")],
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle that gets the file.")],
    per_speaker: Annotated[
        int, typer.Option(min=1, help="Recordings of each speaker that are measured, at most.")
    ] = 4,
    max_speakers: Annotated[int, typer.Option(min=0, help="Speakers at most; 0 is all.")] = 0,
) -> None:
    """Measure the voices of a manifest, so that voices can be designed with a bundle.

    Pitch, brightness and liveliness are measured; age and sex are the fields `age` and `sex` (or
    `gender`) of the rows, where there are such.
    """
    from tokenlm.console import ProgressBar
    from training.data.manifest import read_manifest
    from training.data.voice_attributes import add_voice_space

    rows = read_manifest(manifest).utterances
    with ProgressBar("measuring") as progress:
        space, num_voices = add_voice_space(
            rows,
            bundle,
            per_speaker=per_speaker,
            max_speakers=max_speakers,
            source=str(manifest),
            on_progress=progress.update,
        )
    for part in space.attributes:
        known = f"{part.num_voices} of {num_voices} voices"
        typer.echo(f"{part.name:<11} {part.mean:8.2f} ± {part.deviation:.2f} {part.unit}, {known}")
