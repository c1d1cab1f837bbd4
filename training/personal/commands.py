"""Verbs of `tokenlm personal`. Heavy libraries are imported inside the functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from training.personal.checks import TakeChecker, TakeReport
    from training.personal.config import TakeConfig
    from training.personal.project import Project
    from training.personal.prompts import Coverage, Prompt, Sounds

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the project.")]
BundleOption = Annotated[
    str,
    typer.Option("--bundle", help="Bundle whose models read words and tell persons apart."),
]
RecogniserOption = Annotated[
    str,
    typer.Option(
        "--recogniser",
        help="Compares words in place of the bundle: pocketsphinx, whisper:FOLDER, "
        "transformers:MODEL or paraformer:FOLDER.",
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Thresholds of the checks (YAML).")
]
CalibrationOption = Annotated[
    float | None,
    typer.Option(
        "--calibration",
        help="Sound pressure in dB SPL of 0 dBFS on this microphone, where it is known.",
    ),
]
NumberOption = Annotated[int, typer.Option("-n", "--number", min=1, help="How many sentences.")]
TextsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--texts",
        help="Prose, or JSONL with texts, to choose from in place of the sentences that come along;"
        " may be repeated.",
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        help="Sentences to read: a file of `tokenlm personal prompts`, or one sentence a line.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the order within blocks of 20.")]


def prompts(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File of the prompts (JSONL) to write.")
    ],
    number: NumberOption = 150,
    texts: TextsOption = None,
    seed: SeedOption = 0,
    bundle: Annotated[str, typer.Option("--bundle", help="Bundle that knows the phones.")] = (
        "mini-en"
    ),
) -> None:
    """Choose sentences to read aloud that cover the sounds of the language soon.

    A plot of the coverage is written beside them.
    """
    from tokenlm.report import save_plot
    from training.personal.prompts import BLOCK, coverage_plot, write_prompts

    chosen, covered = _choose(texts, number, seed, bundle)
    write_prompts(output, chosen)
    plot = output.with_suffix(".png")
    save_plot(plot, coverage_plot(covered))
    for row in covered:
        if row.num_takes % BLOCK == 0 or row is covered[-1]:
            typer.echo(str(row))
    if len(chosen) < number:
        typer.echo(f"There are only {len(chosen)} sentences that can be used.")
    typer.echo(f"{output}: {len(chosen)} prompts; {plot}")


def new(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    name: Annotated[str, typer.Option("--name", help="The person, as manifests name the speaker.")],
    prompts: PromptsOption = None,
    number: NumberOption = 150,
    texts: TextsOption = None,
    seed: SeedOption = 0,
    language: Annotated[str, typer.Option(help="Of the sentences.")] = "en",
    bundle: Annotated[str, typer.Option("--bundle", help="Bundle that knows the phones.")] = (
        "mini-en"
    ),
) -> None:
    """Begin a project: a folder that takes are stored in.

    Without --prompts the sentences are chosen as by `tokenlm personal prompts`.
    """
    from training.personal.project import Project
    from training.personal.prompts import read_prompts

    if prompts is not None and texts:
        raise ValueError("give either --prompts or --texts")
    chosen = read_prompts(prompts) if prompts else _choose(texts, number, seed, bundle)[0]
    project = Project.create(folder, chosen, name=name, language=language, seed=seed)
    typer.echo(f"{folder}: {len(project.prompts)} sentences to read")
    _show_next(project)


def add(
    folder: FolderArgument,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Takes. One that is named after a prompt (p0007.wav) is of that one, another of "
            "the next prompt."
        ),
    ],
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Id of the prompt that the file is a take of.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Let the takes count whatever the checks say.")
    ] = False,
    bundle: BundleOption = "mini-en",
    recogniser: RecogniserOption = "",
    config: ConfigOption = None,
    calibration: CalibrationOption = None,
) -> None:
    """Check takes and store them."""
    if prompt is not None and len(files) > 1:
        raise ValueError("--prompt is for one file")
    project = _open(folder, bundle, recogniser, config, calibration)
    names = {one.id for one in project.prompts}
    num_bad = 0
    for path in files:
        asked = prompt or (path.stem if path.stem in names else None)
        if asked is None and (following := project.next_prompt()) is not None:
            asked = following.id
        report = project.add_take(path, asked, keep=keep)
        num_bad += report.outcome == "again" and not keep
        _show_report(asked or "", report)
    _show_next(project)
    if num_bad:
        raise typer.Exit(1)


def skip(
    folder: FolderArgument,
    prompt: Annotated[
        str | None, typer.Argument(help="Id of a prompt.", show_default="the next one")
    ] = None,
) -> None:
    """Pass over a prompt."""
    from training.personal.project import Project

    project = Project.open(folder)
    project.skip(prompt)
    _show_next(project)


def status(
    folder: FolderArgument,
    bundle: Annotated[str, typer.Option("--bundle", help="Bundle that knows the phones.")] = (
        "mini-en"
    ),
    plot: Annotated[
        Path | None, typer.Option(help="Picture (PNG) of the coverage after each take.")
    ] = None,
) -> None:
    """Report how far a project is, what its takes cover, and what is to be done again."""
    from tokenlm.report import save_plot
    from training.personal.checks import OUTCOMES
    from training.personal.project import Project
    from training.personal.prompts import CoverageMeter, coverage_plot

    project = Project.open(folder)
    typer.echo(str(project.state))
    entries = project.entries()
    read = [entry.text for entry in entries if entry.take is not None]
    if read:
        # Of what was to be read, and what was read besides.
        all_texts = [*{one.text: None for one in project.prompts}, *read]
        meter = CoverageMeter(list(dict.fromkeys(all_texts)), _sounds(bundle))
        found = meter.after(read)
        typer.echo(str(found[-1]))
        if found[-1].missing:
            typer.echo(f"not read yet: {' '.join(found[-1].missing)}")
        if plot is not None:
            save_plot(plot, coverage_plot(found))
            typer.echo(str(plot))
    for entry in entries:
        take = entry.take or (entry.takes[-1] if entry.takes and not entry.is_skipped else None)
        for problem in take.report.problems if take else ():
            told = OUTCOMES[problem.outcome]
            if take is entry.take and problem.outcome == "again":
                told = "kept all the same"
            typer.echo(f"{entry.id}: {told}: {problem.reason}; {problem.hint}")
    _show_next(project)


def export(
    folder: FolderArgument,
    output: Annotated[
        Path, typer.Argument(help="Manifest (JSONL) to write, or a .list of GPT-SoVITS.")
    ],
) -> None:
    """Write the takes that count as a manifest, for training, or as a `.list` to be corrected."""
    from training.personal.project import Project

    project = Project.open(folder)
    count = project.export(output)
    typer.echo(f"{output}: {count} takes, {project.state.seconds / 60:.1f} minutes")


def import_recordings(
    folder: FolderArgument,
    files: Annotated[
        list[Path], typer.Argument(help="Recordings of any length, or .list files of GPT-SoVITS.")
    ],
    recogniser: Annotated[
        str,
        typer.Option(
            "--recogniser",
            help="Transcribes: ours:BUNDLE, pocketsphinx, whisper:FOLDER, transformers:MODEL or "
            "paraformer:FOLDER.",
        ),
    ] = "ours:mini-en",
    slicing: Annotated[
        Path | None,
        typer.Option(help="How recordings are cut (YAML of `tokenlm data refine`)."),
    ] = None,
    bundle: BundleOption = "mini-en",
    config: ConfigOption = None,
    calibration: CalibrationOption = None,
) -> None:
    """Slice recordings at their pauses, transcribe and check them, and store them as takes.

    The same command again goes on where it was stopped. Texts are corrected in a .list that
    `tokenlm personal export` writes and this command reads again.
    """
    from tokenlm.config import load_config
    from training.personal.importing import import_files
    from training.refine.config import RefineConfig
    from training.refine.recognisers import make_recogniser

    project = _open(folder, bundle, "", config, calibration)
    cut = load_config(RefineConfig, slicing) if slicing else RefineConfig()
    result = import_files(project, files, make_recogniser(recogniser), cut)
    for reject in result.rejects:
        typer.echo(str(reject))
    typer.echo(str(result))


def record(
    folder: FolderArgument,
    device: Annotated[
        str | None,
        typer.Option(help="Number or name of the microphone.", show_default="the system's"),
    ] = None,
    bundle: BundleOption = "mini-en",
    recogniser: RecogniserOption = "",
    config: ConfigOption = None,
    calibration: CalibrationOption = None,
) -> None:
    """Read the sentences into the microphone, one after another, until you stop.

    Enter begins and ends a take; s skips a sentence, r repeats the one before, k keeps a take that
    was not good enough, q stops. Go on any day by the same command.
    """
    from tokenlm.audio.microphone import Microphone, MicrophoneError
    from training.personal.project import ProjectError

    project = _open(folder, bundle, recogniser, config, calibration)
    last: Prompt | None = None
    prompt = project.next_prompt()
    if prompt is None:
        _show_next(project)
        return
    try:
        opened = Microphone(device)
    except MicrophoneError as error:
        raise ProjectError(f"{error} Its files are taken by `tokenlm personal add`.") from error
    with opened as microphone:
        while prompt is not None:
            typer.echo(f"\n{prompt.text}")
            answer = _ask("Enter: begin, s: skip, r: repeat the one before, q: stop")
            if answer == "q":
                break
            if answer == "s":
                project.skip(prompt.id)
                last, prompt = prompt, project.next_prompt()
                continue
            if answer == "r":
                if last is None:
                    typer.echo("There is none before.")
                else:
                    prompt = last
                continue
            microphone.start()
            _ask("Enter: done")
            sound = microphone.stop()
            if not sound.shape[0]:
                typer.echo("The microphone gave no sound: is it still connected?")
                continue
            if microphone.has_gaps:
                typer.echo(
                    "Parts of this take were lost: the computer was busy. Once more, please."
                )
                continue
            report = _stored(project, prompt, sound, microphone.sample_rate)
            if report is None:
                break
            _show_report(prompt.id, report)
            if report.outcome == "again" and _ask("Enter: once more, k: keep it as it is") == "k":
                if _stored(project, prompt, sound, microphone.sample_rate, keep=True) is None:
                    break
            elif report.outcome == "again":
                continue
            last, prompt = prompt, project.next_prompt()
    typer.echo(str(project.state))


def tune(
    source: Annotated[
        Path, typer.Argument(help="Folder of the project, or a manifest (JSONL) of one person.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Voice file to write.", show_default="NAME.voice in the project"
        ),
    ] = None,
    bundle: Annotated[str, typer.Option("--bundle", help="Bundle that is tuned.")] = "mini-en",
    recipe: Annotated[
        str,
        typer.Option(help="Recipe: evening, short, or a file.", show_default="by the length"),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    on_battery: Annotated[
        bool, typer.Option("--on-battery", help="Go on while the computer runs on its battery.")
    ] = False,
    max_celsius: Annotated[
        float | None, typer.Option(help="Wait while the processor is hotter.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="E.g. parts.flow.optim.max_steps=200"),
    ] = None,
) -> None:
    """Tune a voice on takes: an adapter beside a voice file, spoken by the bundle.

    The same command goes on where it was stopped. It waits while there is a file `pause` in its
    folder, and while the computer runs on its battery.
    """
    from tokenlm.console import ProgressBar, show_logs
    from training.data.manifest import read_manifest
    from training.personal.project import Project
    from training.personal.tuning import TuneProgress, TuningStopped, stop_on_signals
    from training.personal.tuning import tune as run
    from training.run import require_extra

    require_extra()
    show_logs()
    if source.is_dir():
        project = Project.open(source)
        takes = project.utterances()
        output = output or source / f"{project.config.name}.voice"
        work = source / "tuning"
    else:
        takes = list(read_manifest(source, strict=True).utterances)
        output = output or source.with_suffix(".voice")
        work = output.with_suffix(".tuning")
    with ProgressBar("tuning", delay_seconds=0.0) as bar, stop_on_signals() as should_stop:

        def show(progress: TuneProgress) -> None:
            left = progress.seconds_left
            bar.describe(
                progress.part
                if left is None
                else f"{progress.part}, at most {left / 60:.0f} minutes left"
            )
            bar.update(progress.share)

        try:
            result = run(
                takes,
                output,
                work,
                bundle=bundle,
                recipe=recipe,
                overrides=overrides or (),
                seed=seed,
                on_battery=on_battery,
                max_celsius=max_celsius,
                on_progress=show,
                should_stop=should_stop,
            )
        except TuningStopped:
            typer.echo("Stopped; the same command goes on from here.")
            raise typer.Exit(1) from None
    for note in result.notes:
        typer.echo(f"note: {note}")
    for name in ("before", "after"):
        for voice, means in result.report[name].items():
            figures = ", ".join(f"{key} {value:.3f}" for key, value in means.items())
            typer.echo(f"{name:<7} {voice or output.stem}: {figures}")
    size = sum(file.stat().st_size for file in result.adapter.iterdir()) if result.adapter else 0
    made = f"{result.adapter}: {size / 1e6:.1f} MB" if result.adapter else "no adapter"
    typer.echo(f"{result.voice}; {made}")


def _stored(
    project: Project, prompt: Prompt, sound: Tensor, rate: int, *, keep: bool = False
) -> TakeReport | None:
    """Stores a take; where that fails it is tried again until the user stops."""
    from tokenlm.audio.io import AudioError
    from training.personal.project import ProjectError

    while True:
        try:
            return project.add_take(sound, prompt.id, sample_rate=rate, keep=keep)
        except (AudioError, ProjectError) as error:
            typer.echo(f"error: {error}", err=True)
            if _ask("Enter: try again to store this take, q: stop without it") == "q":
                return None


def _ask(question: str) -> str:
    try:
        return input(f"[{question}] ").strip().lower()
    except EOFError:
        return "q"


def _choose(
    texts: list[Path] | None, number: int, seed: int, bundle: str
) -> tuple[list[Prompt], list[Coverage]]:
    from training.personal.prompts import (
        CoverageMeter,
        candidates,
        choose_prompts,
        own_sentences,
        sentences_of,
    )

    pool = candidates(sentences_of(texts) if texts else own_sentences())
    sounds = _sounds(bundle)
    chosen = choose_prompts(pool, sounds, number, seed=seed)
    return chosen, CoverageMeter(pool, sounds).after([prompt.text for prompt in chosen])


def _sounds(bundle: str) -> Sounds:
    from tokenlm.checkpoint.resolve import resolve
    from tokenlm.text.tokenizers import load_text_tokenizer
    from training.personal.prompts import sounds_of

    return sounds_of(load_text_tokenizer(resolve(bundle) / "text_tokenizer"))


def _open(
    folder: Path, bundle: str, recogniser: str, config: Path | None, calibration: float | None
) -> Project:
    """The project, with a checker that has the models of a bundle."""
    from dataclasses import replace

    from tokenlm.config import load_config
    from training.personal.config import TakeConfig
    from training.personal.project import Project

    project = Project.open(folder)  # mistakes are reported before models are loaded
    settings = load_config(TakeConfig, config) if config else TakeConfig()
    if calibration is not None:
        settings = replace(settings, calibration_db=calibration)
    return replace(project, checker=_checker(bundle, recogniser, settings))


def _checker(bundle: str, recogniser: str, settings: TakeConfig) -> TakeChecker:
    from training.personal.checks import bundle_checker

    return bundle_checker(bundle, recogniser=recogniser, config=settings)


def _show_report(prompt: str, report: TakeReport) -> None:
    typer.echo(f"{prompt}: {report}")


def _show_next(project: Project) -> None:
    following = project.next_prompt()
    if following is not None:
        typer.echo(f"next, {following.id}: {following.text}")
    elif project.prompts:
        typer.echo("All sentences are recorded or skipped.")
