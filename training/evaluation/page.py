"""The report of a judged script as one HTML page: figures, plots, and the worst lines to be heard.

Nothing is fetched: pictures and sounds are in the page itself.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import soundfile

from tokenlm.atomic import write_text
from training.evaluation.faults import FAULTS
from training.evaluation.figure import Figure
from training.evaluation.paired import Comparison

PAGE_FILE = "report.html"
NUM_WORST = 20

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; width: 100%; margin: 1em 0; }
th, td { text-align: left; padding: .25em .6em; border-bottom: 1px solid #ddd; }
td { vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
img { max-width: 100%; } audio { width: 260px; } .note { color: #666; }
"""


def write_page(
    folder: Path,
    title: str,
    figures: Sequence[Figure],
    rows: Sequence[dict[str, Any]],
    *,
    facts: Sequence[str] = (),
    comparisons: Sequence[Comparison] = (),
    num_worst: int = NUM_WORST,
) -> Path:
    """Write the page.

    Args:
        folder: made where there is none.
        title: of the page.
        figures: those of the scripts.
        rows: of `judge_script`; those with `audio` can be heard among the worst.
        facts: sentences about the evaluation.
        comparisons: with another system, in a table of their own.
        num_worst: lines that are shown with their sound.

    Returns:
        The path of the page.
    """
    body = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(fact)}</p>" for fact in facts)]
    body.append(_figures_table(figures))
    if comparisons:
        body.append(comparison_table(comparisons))
    if rows:
        body += [_picture(name, picture) for name, picture in _plots(rows)]
        body.append(_worst_table(worst_rows(rows, num_worst)))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / PAGE_FILE, page)
    return folder / PAGE_FILE


def worst_rows(rows: Sequence[dict[str, Any]], num: int) -> list[dict[str, Any]]:
    """The rows that went wrong most: lost ones first, then by word errors."""
    wrong = [row for row in rows if row["errors"]]
    ranked = sorted(
        wrong, key=lambda row: (-row["catastrophic"], -row["word_error_rate"], row["item"])
    )
    return ranked[:num]


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """A table of two systems, as HTML."""
    head = "<tr><th>metric<th>first<th>second<th>difference<th>95 % interval<th>p<th>n</tr>"
    lines = []
    for found in comparisons:
        name = escape(found.name)
        shown = f"<b>{name}</b>" if found.is_significant else name
        cells = (
            f"{found.first:.4f}",
            f"{found.second:.4f}",
            f"{found.difference:+.4f}",
            f"{found.low:+.4f} to {found.high:+.4f}",
            f"{found.p_value:.4f}",
            str(found.num_items),
        )
        numbers = "".join(f'<td class="number">{cell}' for cell in cells)
        lines.append(f"<tr><td>{shown}{numbers}</tr>")
    return (
        "<h2>Beside another system</h2><p>Paired by item; bold where the interval excludes 0.</p>"
        f"<table>{head}{''.join(lines)}</table>"
    )


def _figures_table(figures: Sequence[Figure]) -> str:
    lines = []
    for figure in figures:
        row = figure.row()
        value = "-" if row["value"] is None else f"{row['value']:.4f}"
        interval = ""
        if row["low"] is not None and row["high"] is not None:
            interval = f"{row['low']:.4f} to {row['high']:.4f}"
        lines.append(
            f"<tr><td>{escape(figure.group)}<td>{escape(figure.name)}"
            f'<td class="number">{value}<td class="number">{interval}'
            f'<td class="number">{figure.num_items}<td class="note">{escape(figure.note)}</tr>'
        )
    head = "<tr><th>test set<th>figure<th>value<th>95 % interval<th>n<th></tr>"
    return f"<h2>Figures</h2><table>{head}{''.join(lines)}</table>"


def _worst_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        sound = _sound(row.get("audio"))
        faults = ", ".join(name.replace("_", " ") for name in row["faults"]) or "words"
        lines.append(
            f"<tr><td>{escape(row['group'])} {escape(row['item'])}, seed {row['seed']}"
            f"<td>{escape(row['text'])}<br><span class=note>heard: {escape(row['heard'])}</span>"
            f'<td class="number">{row["errors"]} of {row["words"]}'
            f"<td>{escape(faults)}<td>{sound}</tr>"
        )
    head = "<tr><th>line<th>text<th>wrong words<th>kind<th>sound</tr>"
    return f"<h2>The worst</h2><table>{head}{''.join(lines)}</table>"


def _sound(path: str | None) -> str:
    if path is None or not Path(path).is_file():
        return '<span class="note">not kept</span>'
    samples, rate = soundfile.read(path, dtype="int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'


def _picture(name: str, picture: bytes) -> str:
    data = base64.b64encode(picture).decode()
    return f'<h2>{escape(name)}</h2><img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _plots(rows: Sequence[dict[str, Any]]) -> list[tuple[str, bytes]]:
    os.environ.setdefault("MPLBACKEND", "Agg")
    from matplotlib.figure import Figure as Plot

    plots = []
    groups = sorted({row["group"] for row in rows})
    plot = Plot(figsize=(10, 3.2), layout="constrained")
    left, right = plot.subplots(1, 2)
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
    plots.append(("Words and pace", _png(plot)))
    for group in groups:
        own = [row for row in rows if row["group"] == group]
        categories = sorted({row["category"] for row in own})
        plot = Plot(figsize=(10, 3.6), layout="constrained")
        axes = plot.subplots()
        kinds = ("catastrophic", *FAULTS)
        for place, kind in enumerate(kinds):
            shares = []
            for category in categories:
                of = [row for row in own if row["category"] == category]
                hits = sum(
                    bool(row["catastrophic"]) if kind == "catastrophic" else kind in row["faults"]
                    for row in of
                )
                shares.append(hits / len(of))
            middles = [index + (place - len(kinds) / 2) * 0.11 for index in range(len(categories))]
            axes.bar(middles, shares, 0.11, label=kind.replace("_", " "))
        axes.set_xticks(range(len(categories)), [name or "all" for name in categories], rotation=20)
        axes.set(ylabel="share of utterances")
        axes.legend(fontsize=8, ncols=4)
        plots.append((f"Failures by category: {group}", _png(plot)))
    return plots


def _png(plot: Any) -> bytes:
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
