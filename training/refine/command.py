"""The verb `tokenlm refine` (entry-point group `tokenlm.commands`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def refine(
    source: Annotated[Path, typer.Argument(help="Folder of recordings, or a manifest.")],
    output: Annotated[Path, typer.Argument(help="Manifest (JSONL) to write.")],
    recogniser: Annotated[
        list[str] | None,
        typer.Option(help="ours:BUNDLE, pocketsphinx or transformers:MODEL; may be repeated."),
    ] = None,
    speaker_encoder: Annotated[
        Path | None, typer.Option(help="Component folder: finds two speakers in a clip.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Thresholds (YAML).")] = None,
    cluster_speakers: Annotated[
        bool, typer.Option("--cluster-speakers", help="Name speakers by the voice of the clips.")
    ] = False,
) -> None:
    """Make a training manifest of raw recordings: cut, level, transcribe, filter, report."""
    from tokenlm.config import load_config
    from training.refine import steps
    from training.refine.config import RefineConfig
    from training.refine.proof import encoder_embedding
    from training.refine.recognisers import make_recogniser
    from training.refine.report import write_report
    from training.refine.speakers import cluster

    settings = load_config(RefineConfig, config) if config is not None else RefineConfig()
    recognisers = {name: make_recogniser(name) for name in recogniser or ()}
    embed = encoder_embedding(speaker_encoder) if speaker_encoder is not None else None
    if cluster_speakers and embed is None:
        raise ValueError("--cluster-speakers needs --speaker-encoder")
    work = output.with_name(f"{output.stem}.work")
    recordings = steps.find_recordings(source)
    clips, unreadable = steps.segment_step(recordings, work, settings)
    typer.echo(f"{len(clips)} clips; {len(unreadable)} recordings cannot be read")
    heard = steps.transcribe_step(clips, work, recognisers)
    clips = steps.align_step(recordings, clips, heard, settings.normalizer)
    measures = steps.measure_step(clips, work, heard, embed, settings.normalizer)
    if cluster_speakers:
        assert embed is not None
        groups = cluster(steps.embed_step(clips, work, embed))
        clips = [
            steps.replace(clip, speaker=f"voice{group:04d}")
            for clip, group in zip(clips, groups, strict=True)
        ]
    decisions = steps.decide(clips, measures, settings)
    number = steps.write_outcome(decisions, work, output)
    report = output.with_suffix(".html")
    write_report(report, decisions, unreadable)
    if not recognisers:
        typer.echo("No recogniser was given: texts were not compared with what is said.")
    typer.echo(f"{output}: {number} of {len(decisions)} clips; {report}")
