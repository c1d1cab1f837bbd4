"""The report of a benchmark: a table in Markdown, the figures as JSON, and plots."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from inference.benchmark.measurements import Measurements, Row
from inference.benchmark.timeline import Timeline
from tokenlm import __version__
from tokenlm.atomic import write_text
from tokenlm.report import markdown_table, new_plot, save_plot


def write_report(
    folder: Path, title: str, measurements: Measurements, facts: dict[str, str]
) -> Path:
    """Writes `report.md`, `report.json` and the plots.

    Args:
        folder: created if missing.
        title: what was measured.
        measurements: the rows, and the data of the plots.
        facts: lines above the table, by name; those of `environment` are added.

    Returns:
        The path of `report.md`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = {**facts, **environment()}
    data = {
        "title": title,
        "facts": facts,
        "rows": [row_data(row) for row in measurements.rows],
        "throughput": measurements.throughput,
    }
    write_text(folder / "report.json", json.dumps(data, indent=2, allow_nan=False) + "\n")
    draw(folder / "report.png", measurements)
    path = folder / "report.md"
    write_text(path, markdown(title, measurements.rows, facts))
    return path


def environment() -> dict[str, str]:
    """Versions, and the machine that it was measured on, by name."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "tokenlm": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads",
        "load average at the end": f"{load:.1f}",
    }


def row_data(row: Row) -> dict[str, Any]:
    """A row as an object of JSON: name, value, unit, bounds, verdict, single values, note."""
    return {
        "name": row.name,
        "value": row.value,
        "unit": row.unit,
        "floor": row.floor,
        "aim": row.aim,
        "verdict": row.verdict,
        "values": list(row.values),
        "note": row.note,
    }


def markdown(title: str, rows: Sequence[Row], facts: dict[str, str]) -> str:
    """The report in Markdown: title, facts, and a table of the rows."""
    lines = [f"# Streaming: {title}", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    cells = []
    for row in rows:
        sign = "≥" if row.higher_is_better else "≤"
        bounds = ["" if bound is None else f"{sign} {bound:g}" for bound in (row.floor, row.aim)]
        value = f"{row.value:.4g} {row.unit}".strip()
        spread = ""
        if len(row.values) > 1:
            spread = (
                f"; median of {len(row.values)}, {min(row.values):.4g} to {max(row.values):.4g}"
            )
        cells.append([row.name, value, *bounds, row.verdict, row.note + spread])
    table = markdown_table(["", "value", "floor", "aim", "met", "how"], cells)
    return "\n".join([*lines, "", table, "", "![plots](report.png)", ""])


def draw(path: Path, measurements: Measurements) -> None:
    """Draws arrival of audio, cost, memory and throughput into an image file."""
    plot, (arrival, cost, memory, throughput) = new_plot(2, 2, (11, 7))
    _draw_arrival(arrival, measurements.first)
    long = measurements.long
    cost.plot(_ends(long), [event.cpu_seconds for event in long.events])
    cost.set(xlabel="seconds of speech", ylabel="processor seconds", title="cost of a long session")
    for label, values in (
        ("flow and vocoder", [event.state_bytes for event in long.events]),
        ("cache of the LM", [event.cache_bytes for event in long.events]),
    ):
        memory.plot(_ends(long), [value / 1e6 for value in values], label=label)
    memory.set(xlabel="seconds of speech", ylabel="MB", title="memory of a session")
    memory.legend()
    numbers = list(measurements.throughput)
    throughput.bar([str(number) for number in numbers], list(measurements.throughput.values()))
    throughput.set(
        xlabel="sessions at once", ylabel="seconds of speech in a second", title="throughput"
    )
    save_plot(path, plot)


def _ends(timeline: Timeline) -> list[float]:
    ends, total = [], 0.0
    for event in timeline.events:
        total += event.seconds
        ends.append(total)
    return ends


def _draw_arrival(axes: Any, timeline: Timeline) -> None:
    """Draws the speech received, and played by a player that never runs dry."""
    ends, start = _ends(timeline), timeline.time_to_first_audio
    walls = [event.wall_seconds for event in timeline.events]
    axes.step(walls, ends, where="post", label="received")
    if ends:
        axes.plot([start, start + ends[-1]], [0.0, ends[-1]], label="played")
    axes.set(xlabel="seconds after the request", ylabel="seconds of speech", title="a sentence")
    axes.legend()
