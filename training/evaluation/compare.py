"""The verb `tokenlm compare` (entry-point group `tokenlm.commands`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from training.evaluation.command import LOG_WIDTH


def compare(
    first: Annotated[Path, typer.Argument(help="Output folder of an evaluation: the baseline.")],
    second: Annotated[Path, typer.Argument(help="Output folder of another system's evaluation.")],
    output: Annotated[Path | None, typer.Option(help="Folder of compare.json and a page.")] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
) -> None:
    """Compare two systems on the test sets that both were judged on, item by item."""
    try:
        comparisons = compare_folders(first, second, seed=seed)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    for name, own in comparisons.items():
        print_comparison(name, own, console)
    if output is not None:
        _write(output, first, second, comparisons)
        console.print(f"Written to {output}.")


def compare_folders(first: Path, second: Path, *, seed: int = 0) -> dict[str, list[Any]]:
    """Comparisons by test set; different prompts are a warning, see `warn_of_prompts`.

    The p-values are corrected for all metrics of all sets.

    Args:
        first: output folder of `tokenlm evaluate --set …`.
        second: another one.
        seed: of the intervals.

    Raises:
        ValueError: a folder holds no rows of a set of texts, or they have none in common.
    """
    for folder in (first, second):  # before torch is loaded
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder.")
    from training.evaluation.statistics import correct_p_values
    from training.evaluation.texts import compare_rows

    one, two = read_text_rows(first), read_text_rows(second)
    names = [name for name in one if name in two]
    if not names:
        raise ValueError(
            f"{first} and {second} have no test set in common: {', '.join(one)} and "
            f"{', '.join(two)}."
        )
    warn_of_prompts(one, two)
    compared = {name: compare_rows(one[name], two[name], seed=seed) for name in names}
    corrected = iter(correct_p_values([c for own in compared.values() for c in own]))
    return {name: [next(corrected) for _ in own] for name, own in compared.items()}


def read_text_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of sets of texts in an output folder, by test set.

    Raises:
        ValueError: there are none.
    """
    from training.evaluation.judges import OVRL
    from training.evaluation.report import ROWS_FILE
    from training.evaluation.texts import SECTION

    path = folder / ROWS_FILE
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; `tokenlm evaluate --output` writes it.")
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["section"] == SECTION:
            if "naturalness" in row:  # what earlier versions called it
                row[OVRL] = row.pop("naturalness")
            rows.setdefault(row["group"], []).append(row)
    if not rows:
        raise ValueError(f"{path} holds no rows of a test set (`tokenlm evaluate --set`).")
    return rows


def warn_of_prompts(
    first: Mapping[str, list[dict[str, Any]]], second: Mapping[str, list[dict[str, Any]]]
) -> None:
    """Say on standard error where two systems spoke to different prompts.

    Args:
        first: rows by test set, as of `read_text_rows`.
        second: those of the other system.
    """
    from training.evaluation.texts import other_prompts

    for name, rows in first.items():
        others = other_prompts(rows, second.get(name, []))
        if others:
            typer.echo(
                f"warning: {name}: {len(others)} items, {others[0]} for one, were spoken to other "
                "prompts by the second system: the difference is that of the prompts, too.",
                err=True,
            )


def print_comparison(name: str, comparisons: list[Any], console: Console) -> None:
    """Show the comparisons of one test set; those that are significant are marked."""
    from rich.table import Table

    from training.evaluation.report import COMPARISON_NOTE

    table = Table(title=f"{name}: second less first, paired by item", title_justify="left")
    table.caption, table.caption_justify = COMPARISON_NOTE, "left"
    table.add_column("metric", no_wrap=True)
    for column in (
        "first", "second", "difference", "95 % interval", "ratio", "p", "corrected p", "n",
    ):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)
    for one in comparisons:
        table.add_row(
            f"{one.name}{' *' if one.is_significant else ''}",
            f"{one.first:.4f}",
            f"{one.second:.4f}",
            f"{one.difference:+.4f}",
            f"{one.low:+.4f} – {one.high:+.4f}",
            f"{one.ratio:.2f}" if one.first else "-",
            f"{one.p_value:.4f}",
            "" if one.holm_p_value is None else f"{one.holm_p_value:.4f}",
            str(one.num_items),
        )
    console.print(table)


def _write(output: Path, first: Path, second: Path, by_set: dict[str, list[Any]]) -> None:
    from dataclasses import asdict

    from tokenlm.atomic import write_text
    from training.evaluation.report import PAGE_FILE, write_html

    output.mkdir(parents=True, exist_ok=True)
    rows = {
        name: [
            {**asdict(one), "difference": one.difference, "significant": one.is_significant}
            for one in comparisons
        ]
        for name, comparisons in by_set.items()
    }
    write_text(output / "compare.json", json.dumps(rows, indent=1) + "\n")
    for name, comparisons in by_set.items():
        folder = output if len(by_set) == 1 else output / name
        title = f"{second.name} beside {first.name}: {name}"
        write_html(folder / PAGE_FILE, title, [], [], comparisons=comparisons)
