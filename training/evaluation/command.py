"""The verb `tokenlm evaluate` (entry-point group `tokenlm.commands`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from training.evaluation.config import EvaluationConfig

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
    sections: Annotated[
        str,
        typer.Option(
            help="Comma-separated; default all that the components allow, and recordings where "
            "they are given. long_text, prompt_lengths and damaged_prompts take minutes."
        ),
    ] = "",
    limit: Annotated[
        int | None, typer.Option(help="Only the first sentences of each manifest.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of metrics.json and utterances.jsonl.")
    ] = None,
    keep_audio: Annotated[
        bool, typer.Option("--keep-audio", help="Keep the judged speech in the output folder.")
    ] = False,
    memory: Annotated[
        Path | None,
        typer.Option(help="File of earlier transcripts, so that nothing is heard twice."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Test set of texts instead of recordings: plain, hard, development, a .jsonl "
            "file, or the meta.lst of seed-tts-eval. May be repeated.",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Sampling seeds of a test set, e.g. 0,1,2.")] = "0",
    judge: Annotated[
        str,
        typer.Option(
            help="Judge of words of a test set: pocketsphinx, transformers:NAME or "
            "paraformer:FOLDER."
        ),
    ] = "pocketsphinx",
    naturalness: Annotated[
        str | None, typer.Option(help="Judge of naturalness of a test set: speechmos.")
    ] = None,
    sealed: Annotated[
        bool,
        typer.Option(
            "--sealed",
            help="Speak the sealed set (--set sealed): once for each bundle that is published, "
            "which is written down in configs/eval/sealed.log.jsonl.",
        ),
    ] = False,
    freeze: Annotated[
        bool,
        typer.Option(
            "--freeze", help="Fix which lines of a test set count, before anything is judged."
        ),
    ] = False,
    voices: Annotated[
        Path | None,
        typer.Option(
            metavar="CORPUS_CONFIG",
            help="With --freeze, after the lines that count are fixed: deal each to one of the "
            "held-out voices of this corpus in which the judge understands the engine.",
        ),
    ] = None,
    ablate: Annotated[
        bool,
        typer.Option("--ablate", help="Judge every guard of the LM, with and without."),
    ] = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream", help="Speak a test set as streams, to measure the time to first audio."
        ),
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="Output folder of an earlier evaluation to be compared with."),
    ] = None,
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
            help="Draw from what the LM gives, at temperature 1, with bounds on the length and no "
            "other guard; --generation goes on top of it.",
        ),
    ] = False,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="E.g. num_voices=4")
    ] = None,
) -> None:
    """Judge a bundle, or single components, on held-out recordings or a test set of texts."""
    from training.evaluation.judges import require

    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    arguments: list[str] = []
    for name, value in (("bundle", bundle), ("config", config)):
        arguments += [f"--{name}", str(value)] if value is not None else []
    for folder in component or ():
        arguments += ["--component", str(folder)]
    arguments += ["--plain-sampling"] if plain_sampling else []
    for change in generation or ():
        arguments += ["--generation", change]
    changes = [*(PLAIN_SAMPLING if plain_sampling else ()), *(generation or ())]
    for name, value in (
        ("heldout", heldout),
        ("unheard", unheard),
        ("recordings", recordings),
        ("limit", limit),
    ):
        arguments += [f"--{name}", str(value)] if value is not None else []
    arguments += overrides or ()
    try:
        if keep_audio and output is None:
            raise ValueError("--keep-audio needs the folder to keep it in: --output FOLDER.")
        if limit is not None and limit < 1:
            raise ValueError(f"--limit must be at least 1, got {limit}.")
        require("jiwer")
        if voices is not None and not freeze:
            raise ValueError(
                "--voices says to whom lines are dealt when they are frozen: --freeze."
            )
        if sets:
            for name in sets:
                arguments += ["--set", name]
            arguments += ["--seeds", seeds] if seeds != "0" else []
            arguments += ["--stream"] if stream else []
            arguments += ["--sealed"] if sealed else []
            arguments += ["--judge", judge] if judge != "pocketsphinx" else []
            _evaluate_scripts(
                console,
                bundle,
                component or [],
                changes,
                config,
                heldout,
                overrides or [],
                freeze=freeze,
                voices=voices,
                ablate=ablate,
                names=sets,
                seeds=_read_seeds(seeds),
                judge=judge,
                naturalness=naturalness,
                limit=limit,
                against=against,
                memory=memory,
                output=output,
                keep_audio=keep_audio,
                stream=stream,
                sealed=sealed,
                as_it_is=bundle is not None and not (component or changes),
                arguments=arguments,
            )
            return
        if freeze or ablate or stream or sealed or against is not None:
            raise ValueError(
                "--freeze, --ablate, --stream, --sealed and --against need a test set: --set "
                "plain, or --set hard."
            )
        _evaluate(
            console,
            bundle,
            component or [],
            changes,
            config,
            heldout,
            unheard,
            recordings,
            [name.strip() for name in sections.split(",") if name.strip()],
            limit,
            output,
            keep_audio,
            memory,
            overrides or [],
            arguments,
        )
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _read_seeds(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--seeds are whole numbers with commas between, not {text!r}.") from None
    if len(set(found)) < len(found):
        raise ValueError(f"--seeds names a seed twice: {text}.")
    return found


def _evaluate_scripts(
    console: Console,
    bundle: str | None,
    components: list[Path],
    generation: list[str],
    config_path: Path | None,
    heldout: Path | None,
    overrides: list[str],
    *,
    freeze: bool,
    ablate: bool,
    memory: Path | None,
    **options: Any,
) -> None:
    from training.evaluation.script import find_scripts

    settings = _load_settings(config_path, overrides)
    find_scripts(options["names"])  # a mistake is told before torch is loaded
    # Imported here: the command line starts without torch.
    import dataclasses
    import os

    from training.config import runs_folder
    from training.evaluation.parts import find_parts
    from training.evaluation.script_command import (
        ScriptOptions,
        ablate_scripts,
        evaluate_scripts,
        freeze_scripts,
    )

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if heldout is not None:
        settings = dataclasses.replace(settings, heldout=heldout)
    chosen = ScriptOptions(memory=memory or runs_folder() / "transcripts.jsonl", **options)
    if freeze:
        freeze_scripts(chosen, settings.num_processes, console)
        return
    judge = ablate_scripts if ablate else evaluate_scripts
    judge(chosen, settings, find_parts(bundle, components, generation), console)


def _load_settings(path: Path | None, overrides: list[str]) -> EvaluationConfig:
    from tokenlm.checkpoint.resolve import packaged_configs
    from tokenlm.config import load_config
    from training.evaluation.config import EvaluationConfig

    return load_config(EvaluationConfig, path or packaged_configs() / DEFAULT_CONFIG, overrides)


def _evaluate(
    console: Console,
    bundle: str | None,
    components: list[Path],
    generation: list[str],
    config_path: Path | None,
    heldout: Path | None,
    unheard: Path | None,
    recordings: Path | None,
    asked: list[str],
    limit: int | None,
    output: Path | None,
    keep_audio: bool,
    memory: Path | None,
    overrides: list[str],
    arguments: list[str],
) -> None:
    # Imported here: the command line starts without torch.
    import dataclasses
    import os

    from tokenlm.config import to_dict
    from training.config import runs_folder
    from training.evaluation.parts import find_parts
    from training.evaluation.prompt_lengths import write_prompt_lengths
    from training.evaluation.report import print_table, write_report
    from training.evaluation.run import choose_sections, command_line
    from training.evaluation.run import evaluate as run_evaluation

    settings = _load_settings(config_path, overrides)
    changes = {"heldout": heldout, "unheard": unheard, "recordings": recordings}
    settings = dataclasses.replace(
        settings, **{name: value for name, value in changes.items() if value is not None}
    )
    if limit is not None:
        settings = dataclasses.replace(
            settings,
            num_items=min(limit, settings.num_items),
            num_recordings=min(limit, settings.num_recordings),
        )
    parts = find_parts(bundle, components, generation)
    chosen = choose_sections(asked, parts, settings.recordings)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = run_evaluation(
        settings,
        parts,
        chosen,
        console=console,
        memory=memory or runs_folder() / "transcripts.jsonl",
        audio_folder=output / "audio" if keep_audio and output is not None else None,
    )
    print_table(results.figures, console)
    if output is not None:
        names = {figure.section for figure in results.figures}
        written = write_report(
            output,
            results.figures,
            results.rows,
            commands={name: command_line(name, arguments) for name in names},
            facts={"config": to_dict(dataclasses.replace(settings, **dict.fromkeys(changes)))},
        )
        write_prompt_lengths(output, results.figures)
        console.print(f"Written to {written}.")
