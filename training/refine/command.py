"""The verb `tokenlm data refine` (entry-point group `tokenlm.commands`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.data.commands import ActorsOption, ClusterOption, GpusOption, make_cluster


def refine(
    source: Annotated[Path, typer.Argument(help="Folder of recordings, or a manifest.")],
    output: Annotated[Path, typer.Argument(help="Manifest (JSONL) to write.")],
    recogniser: Annotated[
        list[str] | None,
        typer.Option(
            help="ours:BUNDLE, pocketsphinx, whisper:FOLDER, transformers:MODEL or "
            "paraformer:FOLDER; may be repeated."
        ),
    ] = None,
    speaker_encoder: Annotated[
        Path | None, typer.Option(help="Component folder: finds two speakers in a clip.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Thresholds (YAML).")] = None,
    cluster_speakers: Annotated[
        bool, typer.Option("--cluster-speakers", help="Name speakers by the voice of the clips.")
    ] = False,
    max_rejects: Annotated[
        float, typer.Option(help="Share of recordings that may be unusable before it stops.")
    ] = 0.05,
    cluster: ClusterOption = "",
    actors: ActorsOption = 0,
    gpus_per_actor: GpusOption = 0.0,
) -> None:
    """Make a training manifest of raw recordings: cut, level, transcribe, filter, report."""
    from tokenlm.config import load_config
    from training.data.rejects import Rejects
    from training.refine import steps
    from training.refine.config import RefineConfig
    from training.refine.on_cluster import RecordingMap, map_recordings
    from training.refine.recognisers import make_recogniser
    from training.refine.recordings import find_recordings
    from training.refine.report import write_report
    from training.refine.speakers import group_voices, load_encoder

    settings = load_config(RefineConfig, config) if config is not None else RefineConfig()
    if cluster_speakers and speaker_encoder is None:
        raise ValueError("--cluster-speakers needs --speaker-encoder")
    work = output.with_name(f"{output.stem}.work")
    if source.is_dir() and work.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{output} lies among the recordings: its clips would be taken for some")
    workers = make_cluster(cluster, actors, gpus_per_actor)
    recognisers = {name: make_recogniser(name) for name in recogniser or ()}
    embed, encoder = load_encoder(speaker_encoder) if speaker_encoder else (None, "")
    recordings, bad = find_recordings(source)
    rejects = Rejects(
        output.with_suffix(".rejects.jsonl"),
        max_rejects,
        num_expected=len(recordings) + len(bad),
    )
    for reject in bad:
        rejects.reject(reject)
    fresh: set[str] = set()
    if workers is not None:
        job = RecordingMap(
            work=work,
            config=settings,
            recognisers=tuple(recogniser or ()),
            speaker_encoder=speaker_encoder,
            encoder=encoder,
            with_embeddings=cluster_speakers,
        )
        fresh = map_recordings(recordings, job, workers, max_rejects)
    clips = steps.segment_step(recordings, work, settings, rejects, fresh)
    typer.echo(rejects.report())
    typer.echo(f"{len(clips)} clips")
    heard = steps.transcribe_step(clips, work, recognisers)
    clips = steps.align_step(recordings, clips, heard, settings.normalizer)
    measures = steps.measure_step(
        clips, work, heard, embed, encoder=encoder, normalizer=settings.normalizer
    )
    if embed is not None and cluster_speakers:
        voices = steps.embed_step(clips, work, embed, encoder=encoder)
        groups = group_voices(voices, settings.min_speaker_similarity)
        clips = [
            steps.replace(clip, speaker=f"voice{group:04d}")
            for clip, group in zip(clips, groups, strict=True)
        ]
    decisions = steps.decide(clips, measures, settings)
    number = steps.write_outcome(decisions, work, output)
    report = output.with_suffix(".html")
    write_report(report, decisions, rejects.found)
    alone = sum(made.measures.disagreement is None for made in decisions if not made.dropped_by)
    if recognisers and alone:
        typer.echo(f"{alone} kept clips have a text that was compared with nothing.")
    if not recognisers:
        typer.echo("No recogniser was given: texts were not compared with what is said.")
    typer.echo(f"{output}: {number} of {len(decisions)} clips; {report}")
