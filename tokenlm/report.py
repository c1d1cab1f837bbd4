"""Reports: HTML pages with tables, plots and audio, tables in Markdown, confidence intervals.

Nothing in a page is fetched: styles, pictures and embedded sounds are part of the file. matplotlib
is imported when a plot is made, without pyplot and its global state.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tokenlm.atomic import atomic_path, write_text

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; width: 100%; margin: 1em 0; }
th, td { text-align: left; padding: .25em .6em; border-bottom: 1px solid #ddd; }
td { vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
img { max-width: 100%; } audio { width: 260px; } .note { color: #666; }
"""


class Html(str):
    """Text that is HTML already; anything else is escaped."""


def html(text: str) -> Html:
    """Escape a text, unless it is `Html`."""
    return text if isinstance(text, Html) else Html(escape(text))


def heading(text: str, level: int = 2) -> Html:
    """A heading."""
    return Html(f"<h{level}>{html(text)}</h{level}>")


def paragraph(text: str) -> Html:
    """A paragraph."""
    return Html(f"<p>{html(text)}</p>")


def note(text: str) -> Html:
    """Text in grey."""
    return Html(f'<span class="note">{html(text)}</span>')


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> Html:
    """A table.

    Args:
        head: titles of the columns.
        rows: cells, as many as there are columns.
        numbers: columns that are set as numbers, to the right.
    """
    lines = ["<tr>" + "".join(f"<th>{html(cell)}" for cell in head) + "</tr>"]
    for row in rows:
        cells = (
            f'<td class="number">{html(cell)}' if column in numbers else f"<td>{html(cell)}"
            for column, cell in enumerate(row)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return Html(f"<table>{''.join(lines)}</table>")


def picture(title: str, plot: Any) -> Html:
    """A plot, as part of the page."""
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Html(f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">')


def sound(path: Path | None) -> Html:
    """A sound file, as part of the page; a note if there is none."""
    if path is None or not path.is_file():
        return note("not kept")
    import soundfile

    samples, rate = soundfile.read(path, dtype="int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    data = base64.b64encode(buffer.getvalue()).decode()
    return Html(f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>')


def linked_sound(path: Path, folder: Path) -> Html:
    """A sound file that a page in `folder` links to."""
    relative = Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    return Html(f'<audio controls preload="none" src="{quote(relative)}"></audio>')


def write_page(path: Path, title: str, body: Sequence[Html]) -> Path:
    """Write a page, whole or not at all.

    Args:
        path: of the HTML file; its folder is created if missing.
        title: of the page and its first heading.
        body: what follows the heading, in order.
    """
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    parts = "\n".join([heading(title, 1), *body])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{parts}\n</body></html>\n',
    )
    return path


def new_plot(num_rows: int, num_columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """A figure of matplotlib and its axes, row by row.

    Args:
        num_rows: of the axes.
        num_columns: of the axes.
        size: width and height in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plot = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(plot)
    return plot, list(plot.subplots(num_rows, num_columns, squeeze=False).flat)


def save_plot(path: Path, plot: Any) -> None:
    """Write a plot to a PNG file, whole or not at all."""
    with atomic_path(path) as temporary:
        plot.savefig(temporary, dpi=110, format="png")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, without a line break at its end."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def bootstrap_interval(
    num_items: int,
    statistic: Callable[[np.ndarray], float],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[float, float]:
    """Give the interval that holds 95 % of a statistic over resampled utterances.

    Args:
        num_items: how many utterances there are.
        statistic: takes the indices (num_items,) of drawn utterances, with repetitions. A draw for
            which it is not finite (a ratio to no errors at all) is left out.
        seed: the same seed gives the same interval.
        num_resamples: how often utterances are drawn.

    Returns:
        Lower and upper end; twice NaN where no draw gave a number.

    Raises:
        ValueError: there are no utterances.
    """
    if num_items < 1:
        raise ValueError("there are no utterances, so there is no interval of what they show.")
    generator = np.random.default_rng(seed)
    drawn = generator.integers(num_items, size=(num_resamples, num_items))
    values = np.array([statistic(indices) for indices in drawn])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
