"""The verb edit: other words in a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inference.commands.options import (
    BundleOption,
    DeviceOption,
    GuidanceOption,
    LexiconOption,
    SeedOption,
    SolverOption,
    StepsOption,
    WeightsOption,
    read_lexicon,
    read_seed,
)
from inference.commands.speech import check_writable, load_synthesizer, report_seed
from inference.edit_options import edit_request
from tokenlm.checkpoint.resolve import resolve
from tokenlm.console import ProgressBar


def edit(
    source: Annotated[
        Path, typer.Argument(help="Recording: a wav, flac, aiff or other file without loss.")
    ],
    *,
    text: Annotated[
        str | None,
        typer.Option("--text", help="What the recording says.", show_default="it is recognised"),
    ] = None,
    replace: Annotated[
        tuple[str, str] | None,
        typer.Option("--replace", metavar="OLD NEW", help="Say new words in place of old ones."),
    ] = None,
    insert: Annotated[
        str | None,
        typer.Option("--insert", metavar="WORDS", help="Say them --before, --after or --at."),
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="WORDS", help="Where to insert.")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="WORDS", help="Where to insert.")
    ] = None,
    at: Annotated[
        float | None,
        typer.Option("--at", metavar="SECONDS", help="Where to insert: between words, near there."),
    ] = None,
    delete: Annotated[
        str | None, typer.Option("--delete", metavar="WORDS", help="Leave words out.")
    ] = None,
    span: Annotated[
        str | None,
        typer.Option(
            "--span",
            metavar="FROM-TO",
            help="Say the words between two times, in seconds, again, such as over a cough.",
        ),
    ] = None,
    continue_with: Annotated[
        str | None,
        typer.Option("--continue", metavar="WORDS", help="Say them after the last word."),
    ] = None,
    occurrence: Annotated[
        int | None,
        typer.Option("--occurrence", min=1, help="Which of several places that say the words."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write, of the format of the recording.",
            show_default="out, with the suffix of the recording",
        ),
    ] = None,
    seed: SeedOption = "0",
    bundle: BundleOption = "mini-en",
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    solver: SolverOption = None,
    lexicon: LexiconOption = None,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "float32",
) -> None:
    """Change words of a recording; beyond 50 ms around the edit it stays as it is, to the bit.

    The file keeps its rate, channels and format.
    """
    number, own = read_seed(seed), read_lexicon(lexicon)
    request = edit_request(
        replace=replace,
        insert=insert,
        before=before,
        after=after,
        at=at,
        delete=delete,
        span=span,
        continue_with=continue_with,
        occurrence=occurrence,
    )
    if output is None:
        output = Path(f"out{source.suffix}")
    with ProgressBar("loading") as progress:
        from tokenlm.audio.recording import Recording

        recording = Recording.load(source)
        recording.check_suffix(output)
        check_writable(output)
        if output.exists() and output.samefile(source):
            raise ValueError(f"{output} is the recording itself: name another output.")
        synthesizer = load_synthesizer(resolve(bundle).as_posix(), device, weights)
        progress.describe("editing")
        edited = synthesizer.edit(
            recording,
            text=text,
            **vars(request),
            seed=number,
            num_steps=steps,
            guidance_scale=guidance,
            solver=solver,
            lexicon=own,
        )
    edited.save(output)
    start, end = edited.replaced
    typer.echo(
        f"{output}: {edited.start_seconds:.2f} to {edited.end_seconds:.2f} s are new, in place of "
        f"{start:.2f} to {end:.2f} s"
    )
    typer.echo(f"it says: {edited.text}")
    report_seed(seed, number)
