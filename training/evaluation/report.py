"""The report of an evaluation: `metrics.json`, a row for each utterance, a table, an HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tokenlm.atomic import write_text
from tokenlm.checkpoint.card import Metric
from tokenlm.report import (
    Html,
    heading,
    html,
    new_plot,
    note,
    paragraph,
    picture,
    sound,
    table,
    write_page,
)
from training.evaluation.error_rate import FAULTS
from training.evaluation.judges import judge_versions
from training.evaluation.statistics import MAX_P_VALUE, Comparison, Figure
from training.evaluation.suite import Row

METRICS_FILE = "metrics.json"
ROWS_FILE = "utterances.jsonl"
PAGE_FILE = "report.html"
NUM_WORST = 20
COMPARISON_NOTE = (
    f"Paired by item; marked where p, corrected for the number of metrics (Holm), is at most "
    f"{MAX_P_VALUE:g}."
)

_PERCENT = ("rate", "utilisation")
_PER_SECOND = ("speaking_rate",)
_SECTIONS = " --sections "


def write_report(
    folder: Path,
    figures: Sequence[Figure],
    rows: Sequence[Row],
    *,
    commands: dict[str, str],
    facts: dict[str, Any],
) -> Path:
    """Write both files, each whole or not at all.

    Args:
        folder: created if missing.
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
    own = {(row["section"], row["group"]) for row in rows}
    old = [
        row for row in _read_rows(folder / ROWS_FILE) if (row["section"], row["group"]) not in own
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in [*old, *map(_rounded, rows)]]
    write_text(folder / ROWS_FILE, "".join(line + "\n" for line in lines))
    write_text(path, text + "\n")
    return path


def card_metrics(path: Path) -> dict[str, Metric]:
    """Figures of a `metrics.json` for the model card of a bundle, each with its command.

    Shares and error rates are in percent. Commands that differ by their section alone are one.
    """
    metrics = {}
    rows = [row for row in _read_figures(path) if row["value"] is not None]
    commands = _joined_commands([row["command"] for row in rows])
    for row in rows:
        is_percent = _is_percent(row["name"])
        scaled: dict[str, Any] = {
            key: None if row.get(key) is None else row[key] * (100 if is_percent else 1)
            for key in ("value", "low", "high", "original")
        }
        metrics[f"{row['group']}/{row['section']}/{row['name']}"] = Metric(
            **scaled,
            unit="%" if is_percent else "",
            num_items=row["num_items"],
            command=commands[row["command"]],
            note=row["note"],
        )
    return metrics


def _joined_commands(commands: Sequence[str]) -> dict[str, str]:
    """Commands by those of single sections, in which all sections are named at once."""
    sections: dict[str, list[str]] = {}
    parts = {command: command.partition(_SECTIONS)[::2] for command in commands}
    for base, section in parts.values():
        own = sections.setdefault(base, [])
        if section and section not in own:
            own.append(section)
    return {
        command: base + (f"{_SECTIONS}{','.join(sections[base])}" if section else "")
        for command, (base, section) in parts.items()
    }


def write_html(
    path: Path,
    title: str,
    figures: Sequence[Figure],
    rows: Sequence[Row],
    *,
    facts: Sequence[str] = (),
    comparisons: Sequence[Comparison] = (),
    num_worst: int = NUM_WORST,
) -> Path:
    """Write a page with the figures, plots, and the worst utterances to be heard.

    Args:
        path: of the page.
        title: of the page.
        figures: in a table.
        rows: of suites that were scored; those with `audio` can be heard among the worst.
        facts: sentences about the evaluation.
        comparisons: with another system, in a table of their own.
        num_worst: utterances that are shown with their sound.
    """
    body = [paragraph(fact) for fact in facts]
    body += [heading("Figures"), _figures_table(figures)]
    if comparisons:
        body += [
            heading("Beside another system"),
            paragraph(COMPARISON_NOTE),
            _comparison_table(comparisons),
        ]
    if rows:
        body += _plots(rows)
        body += [heading("The worst"), _worst_table(worst_rows(rows, num_worst))]
    return write_page(path, title, body)


def worst_rows(rows: Sequence[Row], num: int) -> list[Row]:
    """The rows that went wrong most: lost ones first, then by word errors."""
    wrong = [row for row in rows if row["errors"]]
    ranked = sorted(
        wrong, key=lambda row: (-row["catastrophic"], -row["word_error_rate"], str(row["item"]))
    )
    return ranked[:num]


def _comparison_table(comparisons: Sequence[Comparison]) -> Html:
    head = ("metric", "first", "second", "difference", "95 % interval", "p", "corrected p", "n")
    rows = [
        (
            Html(f"<b>{html(one.name)}</b>") if one.is_significant else one.name,
            f"{one.first:.4f}",
            f"{one.second:.4f}",
            f"{one.difference:+.4f}",
            f"{one.low:+.4f} to {one.high:+.4f}",
            f"{one.p_value:.4f}",
            "" if one.holm_p_value is None else f"{one.holm_p_value:.4f}",
            str(one.num_items),
        )
        for one in comparisons
    ]
    return table(head, rows, numbers=range(1, len(head)))


def _figures_table(figures: Sequence[Figure]) -> Html:
    rows = []
    for figure in figures:
        row = figure.row()
        value = "-" if row["value"] is None else f"{row['value']:.4f}"
        interval = ""
        if row["low"] is not None and row["high"] is not None:
            interval = f"{row['low']:.4f} to {row['high']:.4f}"
        original = "" if row["original"] is None else f"{row['original']:.4f}"
        numbers = (value, interval, original, str(figure.num_items))
        rows.append((figure.section, figure.group, figure.name, *numbers, note(figure.note)))
    head = ("section", "test set", "figure", "value", "95 % interval", "recordings", "n", "")
    return table(head, rows, numbers=(3, 4, 5, 6))


def _worst_table(rows: Sequence[Row]) -> Html:
    cells = []
    for row in rows:
        audio = row.get("audio")
        heard = note(f"heard: {row['heard']}")
        name = f"{row['group']} {row['item']}"
        cells.append(
            (
                f"{name}, seed {row['seed']}" if "seed" in row else f"{name}, {row['section']}",
                Html(f"{html(row['text'])}<br>{heard}"),
                f"{row['errors']} of {row['words']}",
                ", ".join(kind.replace("_", " ") for kind in row["faults"]) or "words",
                sound(None if audio is None else Path(audio)),
            )
        )
    return table(("line", "text", "wrong words", "kind", "sound"), cells, numbers=(2,))


def _plots(rows: Sequence[Row]) -> list[Html]:
    groups = sorted({row["group"] for row in rows})
    plot, (left, right) = new_plot(1, 2, (10, 3.2))
    bins = [0.05 * step for step in range(25)]
    for group in groups:
        own = [row for row in rows if row["group"] == group]
        left.hist([min(row["word_error_rate"], 1.2) for row in own], bins, alpha=0.6, label=group)
        right.scatter(
            [row["characters"] for row in own],
            [row["speaking_rate"] for row in own],
            s=8,
            alpha=0.5,
            label=group,
        )
    left.set(xlabel="word error rate (1.2 and above in the last bar)", ylabel="utterances")
    right.set(xlabel="characters of the text", ylabel="characters per second", xscale="log")
    left.legend()
    shown = [heading("Words and pace"), picture("Words and pace", plot)]
    for group in groups:
        own = [row for row in rows if row["group"] == group]
        title = f"Failures by category: {group}"
        shown += [heading(title), picture(title, _plot_failures(own))]
    return shown


def _plot_failures(rows: Sequence[Row]) -> Any:
    categories = sorted({row.get("category", "") for row in rows})
    plot, [axes] = new_plot(1, 1, (10, 3.6))
    kinds = ("catastrophic", *FAULTS)
    for place, kind in enumerate(kinds):
        shares = []
        for category in categories:
            own = [row for row in rows if row.get("category", "") == category]
            hits = sum(
                bool(row["catastrophic"]) if kind == "catastrophic" else kind in row["faults"]
                for row in own
            )
            shares.append(hits / len(own))
        middles = [index + (place - len(kinds) / 2) * 0.11 for index in range(len(categories))]
        axes.bar(middles, shares, 0.11, label=kind.replace("_", " "))
    axes.set_xticks(range(len(categories)), [name or "all" for name in categories], rotation=20)
    axes.set(ylabel="share of utterances")
    axes.legend(fontsize=8, ncols=4)
    return plot


def print_table(figures: Sequence[Figure], console: Console) -> None:
    """Show the figures by section and test set, beside those of recordings of the same texts."""
    shown = Table(title="Evaluation", title_justify="left")
    for column in ("section", "test set", "figure"):
        shown.add_column(column, no_wrap=True)
    for column in ("value", "95 % interval", "recordings", "n"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("note", overflow="fold")
    last = ""
    for figure in figures:
        if figure.section != last and last:
            shown.add_section()
        interval = ""
        if figure.low is not None and figure.high is not None:
            interval = f"{_number(figure, figure.low)} – {_number(figure, figure.high)}"
        shown.add_row(
            figure.section if figure.section != last else "",
            figure.group,
            figure.name,
            _number(figure, figure.value),
            interval,
            "" if figure.original is None else _number(figure, figure.original),
            str(figure.num_items),
            figure.note,
        )
        last = figure.section
    console.print(shown)


def _number(figure: Figure, value: float) -> str:
    if value != value:
        return "-"
    if _is_percent(figure.name):
        return f"{100 * value:.1f} %"
    return f"{value:.3f}"


def _is_percent(name: str) -> bool:
    return name.endswith(_PERCENT) and name not in _PER_SECOND


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


def _rounded(row: Row) -> Row:
    """A row whose numbers have four digits behind the point."""
    return {
        key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()
    }
