"""The verb `tokenlm evaluate` (entry-point group `tokenlm.commands`)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from training.evaluation.config import EvaluationConfig, Section
    from training.evaluation.parts import Parts

DEFAULT_CONFIG = Path("eval") / "mini_en.yaml"
PLAIN_SAMPLING = (
    "sampling={temperature: 1.0, top_k: 0, top_p: 1.0, repetition_window: 0}",
    "guards={loop_tokens: 0, max_silent_tokens: 0}",
)
"""Changes to the settings of generation that leave the LM to itself."""
LOG_WIDTH = 150
"""Columns where the output goes to a file."""


def evaluate(
    bundle: Annotated[
        str | None, typer.Option(help="Bundle to judge: name, folder or hub id.")
    ] = None,
    component: Annotated[
        list[Path] | None,
        typer.Option(
            help="Component folder, or folder of them (an export of a run): judged alone, or in "
            "place of that of the bundle. May be repeated."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration; default configs/eval/mini_en.yaml.")
    ] = None,
    heldout: Annotated[
        Path | None, typer.Option(help="Manifest of held-out recordings of known people.")
    ] = None,
    unheard: Annotated[
        Path | None, typer.Option(help="Manifest of a person that training has not heard.")
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            help="Manifest of real recordings that serve as prompts, or its folder: 1 to 10 s "
            "each, with their words."
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set of texts to speak: plain, hard, development, a .jsonl file, or the meta.lst "
            "of seed-tts-eval. May be repeated.",
        ),
    ] = None,
    sections: Annotated[
        str,
        typer.Option(
            help="Comma-separated; default the sets of texts, or without any all that the "
            "components and recordings allow."
        ),
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option(help="Only the first sentences of a manifest; texts spread over each set."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Sampling seeds of a set of texts: 0,1,2.")] = "0",
    stream: Annotated[
        bool,
        typer.Option(
            "--stream", help="Speak sets of texts as streams, to measure the time to first audio."
        ),
    ] = False,
    sealed: Annotated[
        bool,
        typer.Option(
            "--sealed",
            help="Speak the sealed set (--set sealed), once for each bundle; this is written down "
            "in configs/eval/sealed.log.jsonl.",
        ),
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Judge of words: pocketsphinx (default), whisper:FOLDER (scripts/fetch_judges), "
            "transformers:NAME or paraformer:FOLDER."
        ),
    ] = None,
    naturalness: Annotated[
        str | None,
        typer.Option(help="Judges of naturalness: speechmos, distillmos, or both with a comma."),
    ] = None,
    memory: Annotated[
        Path | None,
        typer.Option(help="File of earlier transcripts, so that nothing is transcribed twice."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of metrics.json, utterances.jsonl and report.html."),
    ] = None,
    keep_audio: Annotated[
        bool, typer.Option("--keep-audio", help="Keep the judged speech in the output folder.")
    ] = False,
    generation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A setting of generation in place of that of the bundle, e.g. "
            "sampling.temperature=1. May be repeated.",
        ),
    ] = None,
    plain_sampling: Annotated[
        bool,
        typer.Option(
            "--plain-sampling",
            help="Sample at temperature 1, without guards but the bounds of the length; "
            "--generation goes on top of it.",
        ),
    ] = False,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="E.g. num_voices=4")
    ] = None,
) -> None:
    """Judge a bundle, or single components, on held-out recordings or sets of texts."""
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    given = {
        "bundle": bundle,
        "config": config,
        "component": component,
        "plain-sampling": plain_sampling,
        "generation": generation,
        "heldout": heldout,
        "unheard": unheard,
        "recordings": recordings,
        "limit": limit,
        "": overrides,
        "set": sets,
        "seeds": seeds if seeds != "0" else None,
        "stream": stream,
        "sealed": sealed,
        "judge": judge,
        "naturalness": naturalness,
    }
    changes = [*(PLAIN_SAMPLING if plain_sampling else ()), *(generation or ())]
    asked = [name.strip() for name in sections.split(",") if name.strip()]
    try:
        if keep_audio and output is None:
            raise ValueError("--keep-audio needs the folder to keep it in: --output FOLDER.")
        if limit is not None and limit < 1:
            raise ValueError(f"--limit must be at least 1, got {limit}.")
        if (stream or sealed) and not sets:
            raise ValueError("--stream and --sealed need a set of texts: --set plain.")
        settings = load_settings(
            config,
            overrides or [],
            limit=limit,
            heldout=heldout,
            unheard=unheard,
            recordings=recordings,
            sets=tuple(sets) if sets else None,
            seeds=_read_seeds(seeds) if seeds != "0" else None,
            stream=stream or None,
            judge=judge,
            naturalness=naturalness,
        )
        _evaluate(
            console,
            settings,
            find_judged_parts(bundle, component or [], changes),
            asked,
            command_words(given),
            memory=memory,
            output=output,
            keep_audio=keep_audio,
            sealed=sealed,
            whole=bundle is not None and not (component or changes or limit),
        )
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def load_settings(
    path: Path | None, overrides: Sequence[str], limit: int | None = None, **changes: Any
) -> EvaluationConfig:
    """Read a configuration.

    Args:
        path: default that of the embedded voice.
        overrides: `key=value` each.
        limit: at most so many sentences, recordings and texts.
        changes: fields that replace those of the file, where they are not None.

    Raises:
        ConfigError: the file or an override is wrong.
        ValueError: a set of texts cannot be read.
    """
    import dataclasses

    from tokenlm.checkpoint.resolve import packaged_configs
    from tokenlm.config import load_config
    from training.evaluation.config import EvaluationConfig
    from training.evaluation.judges import require

    require("jiwer")
    settings = load_config(EvaluationConfig, path or packaged_configs() / DEFAULT_CONFIG, overrides)
    if limit is not None:
        changes |= {
            "num_items": min(limit, settings.num_items),
            "num_recordings": min(limit, settings.num_recordings),
            "num_lines": limit,
        }
    known = {name: value for name, value in changes.items() if value is not None}
    settings = dataclasses.replace(settings, **known)
    if settings.sets:  # before torch is loaded
        from training.evaluation.sets import find_text_sets

        find_text_sets(settings.sets)
    return settings


def _read_seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--seeds are whole numbers with commas between, not {text!r}.") from None
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds names a seed twice: {text}.")
    return seeds


def find_judged_parts(
    bundle: str | None, components: Sequence[Path], generation: Sequence[str]
) -> Parts:
    """The components that are judged; torch is loaded here."""
    import os

    from training.evaluation.parts import find_parts

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return find_parts(bundle, components, generation)


def _evaluate(
    console: Console,
    settings: EvaluationConfig,
    parts: Parts,
    asked: list[str],
    arguments: list[str],
    *,
    memory: Path | None,
    output: Path | None,
    keep_audio: bool,
    sealed: bool,
    whole: bool,
) -> None:
    # Imported here: the command line starts without torch.
    import tempfile

    from training.config import runs_folder
    from training.evaluation import run
    from training.evaluation.report import print_table
    from training.evaluation.sealed import break_seal, check_seal, record_completion
    from training.evaluation.sets import find_text_sets

    chosen = run.choose_sections(asked, parts, settings)
    run.check_judge_is_no_reward(parts, settings.judge)
    is_sealed = check_seal(find_text_sets(settings.sets), asked=sealed, whole=whole)
    if is_sealed:
        parts.check()
        break_seal(parts.folder, command_line("", arguments))
    with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
        folder = None
        if output is not None:
            folder = output / "audio" if keep_audio else Path(scratch)
        results = run.evaluate(
            settings,
            parts,
            chosen,
            console=console,
            memory=memory or runs_folder() / "transcripts.jsonl",
            audio_folder=folder,
        )
        if is_sealed:
            record_completion(parts.folder)
        print_table(results.figures, console)
        if output is not None:
            _write(output, settings, results, arguments, keep_audio=keep_audio)
            console.print(f"Written to {output}.")


def _write(
    output: Path,
    settings: EvaluationConfig,
    results: Any,
    arguments: list[str],
    *,
    keep_audio: bool,
) -> None:
    import dataclasses

    from tokenlm.config import to_dict
    from training.evaluation.conditions import write_prompt_lengths
    from training.evaluation.judges import recognizer_version
    from training.evaluation.report import PAGE_FILE, write_html, write_report

    sections = {figure.section for figure in results.figures}
    # Rows with their faults are those of suites that the judges scored as they are.
    scored = [row for row in results.rows if "faults" in row]
    judge = recognizer_version(settings.judge)
    facts = [
        f"Made by: {command_line('', arguments)}",
        f"Words are judged by {judge}.",
    ]
    write_html(output / PAGE_FILE, "Evaluation", results.figures, scored, facts=facts)
    rows = [
        {**row, "audio": row["audio"] if keep_audio else None} if "audio" in row else row
        for row in results.rows
    ]
    nameless = dataclasses.replace(
        settings, heldout=None, unheard=None, recordings=None, sets=(), judge=judge
    )
    write_report(
        output,
        results.figures,
        rows,
        commands={name: command_line(name, arguments) for name in sections},
        facts={"config": to_dict(nameless)},
    )
    write_prompt_lengths(output, results.figures)


def command_words(given: dict[str, Any]) -> list[str]:
    """Words of a command line that say options again.

    Args:
        given: values by option; those that are None, False or empty are left out, a list repeats
            its option, and those of the empty name are words of their own.
    """
    words: list[str] = []
    for name, value in given.items():
        if value is True:
            words.append(f"--{name}")
        elif value not in (None, False):
            for one in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(one)] if name else [str(one)]
    return words


def command_line(section: Section | str, arguments: Sequence[str]) -> str:
    """The command that measures one section again; an empty name leaves the sections out.

    It is printed in model cards, so what lies in the folder of the runs is named by its variable,
    and what lies in the working folder without it.
    """
    shown = [_quoted(argument) for argument in arguments]
    named = section not in ("", "script")  # sets of texts are named by --set
    return " ".join(["tokenlm", "evaluate", *shown, *(["--sections", section] if named else [])])


def _quoted(argument: str) -> str:
    from training.config import runs_folder

    kind, colon, rest = argument.partition(":")
    if colon and Path(rest).is_absolute():  # a judge in a folder
        return f"{kind}:{_quoted(rest)}"
    path = Path(argument)
    if path.is_absolute():
        if path.is_relative_to(runs_folder()):
            rest = path.relative_to(runs_folder()).as_posix()
            return f"$TOKENLM_RUNS/{shlex.quote(rest)}"
        if path.is_relative_to(Path.cwd()):
            return shlex.quote(path.relative_to(Path.cwd()).as_posix())
    return shlex.quote(argument)
