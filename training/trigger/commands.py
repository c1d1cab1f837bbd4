"""Verbs of `tokenlm trigger`. Heavy libraries are imported inside the functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ManifestsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--manifest",
        help="Recordings (JSONL) of the phrase, of what sounds close, and of other speech; what is "
        "said is read from their texts. May be repeated.",
    ),
]


def train(
    phrases: Annotated[
        list[str],
        typer.Argument(
            metavar="PHRASE... [STAGE.KEY=VALUE...]",
            help="Phrases, such as 'hey token', the most important first; and settings of the "
            "stages, such as checker.optim.max_steps=500.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the trigger.")],
    manifests: ManifestsOption = None,
    checker: Annotated[
        Path | None,
        typer.Option(help="Component of a phrase checker to start from; default: nothing."),
    ] = None,
    bundle: Annotated[
        str, typer.Option(help="Bundle that speaks the phrases where no manifest is given.")
    ] = "mini-en",
    examples: Annotated[int, typer.Option(help="How many recordings it speaks.")] = 400,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Make a detector and a checker of phrases, from nothing.

    The same command again goes on where it was stopped.
    """
    from tokenlm.console import show_logs
    from training.run import require_extra
    from training.trigger.train import TriggerRecipe, net_sizes, train_trigger

    show_logs()
    require_extra()
    settings: dict[str, tuple[str, ...]] = {}
    for word in phrases:
        if "=" not in word:
            continue
        key, _, value = word.partition("=")
        stage, dot, name = key.partition(".")
        if not dot:
            raise ValueError(f"{word}: of which stage? write checker.{word} or detector.{word}")
        settings[stage] = (*settings.get(stage, ()), f"{name}={value}")
    recipe = TriggerRecipe(
        phrases=tuple(word for word in phrases if "=" not in word),
        manifests=tuple(manifests or ()),
        checker=checker,
        bundle=bundle,
        num_examples=examples,
        seed=seed,
        settings=settings,
    )
    trigger = train_trigger(recipe, output)
    for name, size in net_sizes(trigger, output).items():
        typer.echo(f"{name}: {size}")
    for phrase, limits in trigger.config.thresholds.items():
        typer.echo(
            f"{phrase}: detector from {limits.detector:.2f}, "
            f"checker from {limits.checker.threshold:.2f}"
        )
    typer.echo(f"{output}: listen with it: tokenlm listen {output}")


def evaluate(
    trigger: Annotated[Path, typer.Argument(help="Folder of a trigger.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report.")],
    manifests: ManifestsOption = None,
    speech: Annotated[
        list[Path] | None,
        typer.Option("--speech", help="Ordinary speech and noise (JSONL). May be repeated."),
    ] = None,
    max_hours: Annotated[
        float, typer.Option(help="Hours of ordinary speech that are heard.")
    ] = float("inf"),
) -> None:
    """Measure false rejects and false accepts of a trigger on recordings it was not trained on."""
    if not manifests and not speech:
        raise ValueError("give recordings: --manifest, --speech or both.")
    from tokenlm.console import show_logs
    from tokenlm.trigger.cascade import Trigger
    from training.trigger.evaluate import evaluate as measure
    from training.trigger.evaluate import write_report
    from training.trigger.train import net_sizes

    show_logs()
    loaded = Trigger.load(trigger)
    outcomes = measure(loaded, manifests or [], speech or [], max_hours=max_hours)
    typer.echo(write_report(outcomes, output, size=net_sizes(loaded, trigger)))


def directed(
    trigger: Annotated[Path, typer.Argument(help="Folder of a trigger, which gets the nets.")],
    manifest: Annotated[
        Path,
        typer.Option(help='Recordings (JSONL) with "directed": true or false, to calibrate on.'),
    ],
    acoustic: Annotated[
        Path | None, typer.Option(help="Component of the stage directedness.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Component of the stage text_directedness.")
    ] = None,
) -> None:
    """Give a trigger nets that tell speech meant for the device; calibrate their combination."""
    from tokenlm.console import show_logs
    from training.trigger.directed import add_directedness

    show_logs()
    figures = add_directedness(trigger, manifest, acoustic=acoustic, text=text)
    for name, value in figures.items():
        typer.echo(f"{name}: equal error rate {100 * value:.1f} %")
