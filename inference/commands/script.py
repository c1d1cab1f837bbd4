"""The verb that reads a script, or a book, aloud."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inference.commands.options import SpeechOptions, takes_options, whole_number
from inference.commands.speech import (
    check_folder,
    check_output,
    load_synthesizer,
    provenance_comment,
    report,
    report_seed,
)
from tokenlm.checkpoint.resolve import find_voices, resolve
from tokenlm.console import ProgressBar

if TYPE_CHECKING:
    from tokenlm.text.script import Script, ScriptLine

BOOK_SUFFIXES = (".m4b", ".m4a")


@takes_options
def read(
    source: Annotated[
        Path,
        typer.Argument(
            help="A dialogue (.txt), lines (.yaml, .json), Markdown (.md) or a book (.epub)."
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Sound file to write: m4b, wav, flac, ogg, mp3 or opus."
        ),
    ] = Path("out.wav"),
    voice: Annotated[
        str | None,
        typer.Option(
            "--voice", help="Voice of lines that name none, or a file.", show_default="the first"
        ),
    ] = None,
    speaker: Annotated[
        list[str] | None,
        typer.Option("--speaker", metavar="NAME=VOICE", help="Voice of a speaker; repeatable."),
    ] = None,
    chapter: Annotated[
        str | None,
        typer.Option("--chapter", metavar="N or N-M", help="These alone.", show_default="all"),
    ] = None,
    reseed: Annotated[
        list[str] | None,
        typer.Option(
            "--reseed",
            metavar="LINE=SEED",
            help="Make a line again with another seed; the others are kept.",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Print lines and chapters, and speak nothing.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--lines", help="Folder of the finished lines.", show_default="the output, and .lines"
        ),
    ] = None,
    options: SpeechOptions,
) -> None:
    """Read a script of several speakers, or a book, aloud, with marks of its chapters.

    Finished lines are kept in a folder: what was interrupted goes on, and where a line is changed
    only that line is made again.
    """
    from tokenlm.text.script import read_script_file

    speakers = dict(_pair(entry, "--speaker") for entry in speaker or [])
    script = read_script_file(source, speakers)
    _check_speakers(script, speakers)
    if chapter is not None:
        script = script.chapter(*_range(chapter))
    lines = _reseeded(script.lines, reseed or [])
    if show:
        _print_lines(lines)
        return
    arguments = options.arguments()
    number = arguments["seed"]
    if folder is None:
        folder = output.with_name(f"{output.name}.lines")
    num_samples = num_made = num_finished = 0
    try:
        with ProgressBar("loading") as progress:
            check_output(output, also=BOOK_SUFFIXES)
            check_folder(folder)
            if output.suffix.lower() in BOOK_SUFFIXES:
                import av  # noqa: F401  (a missing extra is told before any work)
            if voice is not None:
                find_voices(resolve(options.bundle), voice)
            synthesizer = load_synthesizer(options.bundle, options.device, options.weights)
            from inference.sinks import ChapterSink
            from tokenlm.synthesis.script import speak_script

            comment = provenance_comment(synthesizer, voice or "by line", number)
            start = time.perf_counter()
            spoken = speak_script(
                synthesizer,
                lines,
                voice=voice,
                folder=folder,
                comment=comment,
                on_progress=progress.update,
                **arguments,
            )
            facts = {"title": script.title, "artist": script.author}
            with ChapterSink(output, synthesizer.sample_rate, comment, facts) as sink:
                for part in spoken:
                    num_made += not part.is_kept
                    num_finished = part.number
                    progress.describe(f"line {part.number} of {len(lines)}")
                    if part.line.chapter:
                        sink.begin_chapter(part.line.chapter)
                    sink.write(part.waveform)
                    num_samples += part.waveform.shape[0]
            seconds = time.perf_counter() - start
    except KeyboardInterrupt:
        again = f" with --seed {number}" if options.seed == "random" else ""
        finished = f"{num_finished} of {len(lines)} lines are" if num_finished else "no line is"
        raise KeyboardInterrupt(
            f"{finished} finished; what is finished is kept in {folder}, and the same command"
            f"{again} goes on from there. {output} is written when all are."
        ) from None
    report(output, num_samples / synthesizer.sample_rate, seconds)
    report_seed(options.seed, number)
    typer.echo(f"{num_made} of {len(lines)} lines made; all are kept in {folder}")


def _print_lines(lines: Sequence[ScriptLine]) -> None:
    num_chapters = 0
    for number, line in enumerate(lines, start=1):
        if line.chapter:
            num_chapters += 1
            typer.echo(f"chapter {num_chapters}: {line.chapter}")
        text = " ".join(line.text.split())
        shown = text if len(text) <= 60 else f"{text[:59]}…"
        typer.echo(f"{number:5} {line.voice or '-'}: {shown}")


def _check_speakers(script: Script, voices: Mapping[str, str]) -> None:
    """Checks that every speaker who is given a voice has a line.

    Raises:
        ValueError: one has none.
    """
    known = {name.casefold() for name in script.speakers}
    for name in voices:
        if name.casefold() not in known:
            there = ", ".join(map(repr, script.speakers)) or "none: its lines name nobody"
            raise ValueError(
                f"--speaker: no line is spoken by {name!r}; the speakers of the script are {there}."
            )


def _pair(entry: str, option: str) -> tuple[str, str]:
    name, sign, value = (part.strip() for part in entry.partition("="))
    if not (name and sign and value):
        raise ValueError(f"{option} takes two things with = between them, not {entry!r}.")
    return name, value


def _range(text: str) -> tuple[int, int]:
    numbers = [whole_number(part.strip()) for part in text.split("-", 1)]
    first, last = numbers[0], numbers[-1]
    if first is None or last is None:
        raise ValueError(f"--chapter takes a number, or two such as 2-4, not {text!r}.")
    return first, last


def _reseeded(lines: Sequence[ScriptLine], entries: Sequence[str]) -> list[ScriptLine]:
    changed = list(lines)
    for entry in entries:
        number, seed = map(whole_number, _pair(entry, "--reseed"))
        if number is None or seed is None or not 1 <= number <= len(lines):
            raise ValueError(
                f"--reseed takes the number of a line, from 1 to {len(lines)}, and a seed, not "
                f"{entry!r}."
            )
        changed[number - 1] = replace(changed[number - 1], seed=seed)
    return changed
