"""The verb `tokenlm benchmark` (entry-point group `tokenlm.commands`), also `scripts/benchmark`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from inference.commands.options import CachePrecision, Precision

SHORTEST_SECONDS = 3.0
"""Of speech that a subject has tokens for, however short the sessions are."""
QUICK_SECONDS = 6.0
"""Length of the long session of a quick benchmark."""


def benchmark(
    context: typer.Context,
    bundle: Annotated[str, typer.Option(help="Name of a bundle or its folder.")] = "mini-en",
    config: Annotated[
        Path | None,
        typer.Option(help="Folder of configs, measured with random weights instead of a bundle."),
    ] = None,
    weights: Annotated[
        Precision, typer.Option(help="Precision of the weights of the large models.")
    ] = "float32",
    caches: Annotated[
        CachePrecision, typer.Option(help="Precision of the caches of the flow.")
    ] = "float32",
    steps: Annotated[int | None, typer.Option(help="Steps of the solver.")] = None,
    output: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("benchmark"),
    quick: Annotated[bool, typer.Option("--quick", help="One short run of everything.")] = False,
    runs: Annotated[int, typer.Option(help="Runs whose median is taken.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of the long session.")] = 60.0,
    parts: Annotated[
        str, typer.Option(help="Comma-separated: cold, first, factor, long, shares, concurrent.")
    ] = "",
    sentences: Annotated[
        Path | None, typer.Option(help="File of sentences to judge, one a line.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Most sentences that are judged.")] = 60,
) -> None:
    """Measure streaming, and write a report with plots."""
    # Imported here: the command line starts without torch.
    from functools import partial

    from inference.benchmark.judgement import Judges, judge, own_judges, read_sentences
    from inference.benchmark.measurements import BenchmarkConfig, measure
    from inference.benchmark.report import markdown, write_report
    from inference.benchmark.subject import Subject, bundle_subject, config_subject
    from tokenlm.synthesis.acceleration import accelerate

    find_judges: Callable[[Subject], Judges] = context.obj or own_judges
    try:
        settings = BenchmarkConfig(
            num_runs=1 if quick else runs,
            long_seconds=QUICK_SECONDS if quick else seconds,
            **({"parts": tuple(parts.split(","))} if parts else {}),
        )
        most = max(settings.long_seconds, SHORTEST_SECONDS)
        subject = bundle_subject(bundle, most) if config is None else config_subject(config, most)
        components = accelerate(subject.synthesizer.components, weights=weights, caches=caches)
        if steps is not None:
            components.generation = replace(components.generation, num_steps=steps)
        facts = {
            "subject": f"{subject.name}, voice {subject.voice.name}, "
            f"{'trained' if subject.has_weights else 'random'} weights in {weights}, caches of "
            f"the flow in {caches}, {components.generation.num_steps} steps"
        }
        write = partial(write_report, output, subject.name, facts=facts)
        measurements = measure(subject, settings, _log_part, write)
        if subject.has_weights:
            judges = find_judges(subject)
            facts["judges"] = judges.name
            texts = read_sentences(sentences, 3 if quick else limit)
            measurements.rows += judge(subject, judges, texts, _log_part)
        path = write(measurements)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(markdown(subject.name, measurements.rows, facts))
    typer.echo(str(path))


def _log_part(title: str) -> None:
    typer.echo(f"measuring {title}", err=True)
