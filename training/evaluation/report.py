"""The report of an evaluation: `metrics.json`, a row for each utterance, a table to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tokenlm.atomic import write_text
from tokenlm.checkpoint.card import Metric
from training.evaluation.figure import Figure
from training.evaluation.judges import judge_versions

METRICS_FILE = "metrics.json"
ROWS_FILE = "utterances.jsonl"

_PERCENT = ("rate", "utilisation")
_PER_SECOND = ("speaking_rate",)


def write_report(
    folder: Path,
    figures: Sequence[Figure],
    rows: Sequence[dict[str, Any]],
    *,
    commands: dict[str, str],
    facts: dict[str, Any],
) -> Path:
    """Write both files, each whole or not at all.

    Args:
        folder: made where there is none.
        figures: the figures; those of sections that an earlier report in the folder has and this
            one does not are kept, with their commands.
        rows: one for each utterance and section, kept likewise.
        commands: by section, what measures it again.
        facts: about the evaluation as a whole.

    Returns:
        The path of `metrics.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / METRICS_FILE
    new = [{**figure.row(), "command": commands[figure.section]} for figure in figures]
    sections = {(row["section"], row["group"]) for row in new}
    kept = [row for row in _read_figures(path) if (row["section"], row["group"]) not in sections]
    text = json.dumps(
        {**facts, "judges": judge_versions(), "figures": kept + new},
        indent=2,
        ensure_ascii=False,
        allow_nan=False,
    )
    heard = {(row["section"], row["group"]) for row in rows}
    old = [
        row for row in _read_rows(folder / ROWS_FILE) if (row["section"], row["group"]) not in heard
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in [*old, *rows]]
    write_text(folder / ROWS_FILE, "".join(line + "\n" for line in lines))
    write_text(path, text + "\n")
    return path


def card_metrics(path: Path) -> dict[str, Metric]:
    """Figures of a `metrics.json` for the model card of a bundle, each with its command."""
    metrics = {}
    for row in _read_figures(path):
        if row["value"] is None:
            continue
        interval = ""
        if row["low"] is not None and row["high"] is not None:
            interval = f"95 % interval {row['low']:.3g} to {row['high']:.3g}; "
        count = f"{row['num_items']} utterances"
        note = f"{interval}{count}" + (f"; {row['note']}" if row["note"] else "")
        name = f"{row['group']}/{row['section']}/{row['name']}"
        metrics[name] = Metric(value=row["value"], command=row["command"], note=note)
    return metrics


def print_table(figures: Sequence[Figure], console: Console) -> None:
    """Show the figures by section and test set."""
    table = Table(title="Evaluation", title_justify="left")
    for column in ("section", "test set", "figure"):
        table.add_column(column, no_wrap=True)
    for column in ("value", "95 % interval", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    last = ""
    for figure in figures:
        if figure.section != last and last:
            table.add_section()
        interval = ""
        if figure.low is not None and figure.high is not None:
            interval = f"{_number(figure, figure.low)} – {_number(figure, figure.high)}"
        table.add_row(
            figure.section if figure.section != last else "",
            figure.group,
            figure.name,
            _number(figure, figure.value),
            interval,
            str(figure.num_items),
            figure.note,
        )
        last = figure.section
    console.print(table)


def _number(figure: Figure, value: float) -> str:
    if value != value:
        return "-"
    if figure.name.endswith(_PERCENT) and figure.name not in _PER_SECOND:
        return f"{100 * value:.1f} %"
    return f"{value:.3f}"


def _read_figures(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["figures"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a report of an evaluation: {error}") from error


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
