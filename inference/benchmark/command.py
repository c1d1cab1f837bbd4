"""The verb `tokenlm benchmark` (entry-point group `tokenlm.commands`), also `scripts/benchmark`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from inference.commands.options import CachePrecision, Precision
from tokenlm.installation import install_command

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
    serve: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Measures a running server under load instead."),
    ] = None,
    streams: Annotated[
        str, typer.Option(help="Numbers of streams at once, with --serve.")
    ] = "1,2,4,8,16,32,64",
    voice: Annotated[str, typer.Option(help="Voice that is asked for, with --serve.")] = "",
) -> None:
    """Measure streaming, and write a report with plots."""
    if serve is not None:
        try:
            _measure_server(serve, output, streams, voice, 1 if quick else runs)
        except ValueError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        return
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


def _measure_server(url: str, output: Path, streams: str, voice: str, runs: int) -> None:
    """`--serve`: its key is that of the variable TOKENLM_API_KEY, if the server wants one."""
    counts = [int(part) if part.strip().isdigit() else 0 for part in streams.split(",")]
    if min(counts) < 1:
        raise ValueError(f"--streams has whole numbers above 0, such as 1,4,16; got {streams!r}")
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise ValueError(f"--serve needs httpx: {install_command('serve')}") from None
    from inference.benchmark.serving import measure_server, table, write_loads

    key = os.environ.get("TOKENLM_API_KEY", "").split(",")[0].strip()
    loads = asyncio.run(
        measure_server(url.rstrip("/"), key=key, voice=voice, streams=counts, runs=runs)
    )
    path = write_loads(output, loads)
    typer.echo(table(loads))
    typer.echo(str(path))


def _log_part(title: str) -> None:
    typer.echo(f"measuring {title}", err=True)
