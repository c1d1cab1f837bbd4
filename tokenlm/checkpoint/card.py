"""The model card of a bundle: what it is, what it can do by which measurement, what it cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tokenlm.atomic import write_text
from tokenlm.checkpoint.bundle import BundleManifest
from tokenlm.report import markdown_table

CARD_FILE = "README.md"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure and the command that gives it again."""

    value: float
    """The figure."""
    command: str
    """What to run to measure it."""
    unit: str = ""
    """Its unit, empty for a ratio."""
    low: float | None = None
    """Lower end of the 95 % interval, where there is one."""
    high: float | None = None
    """Upper end."""
    original: float | None = None
    """The same of recordings of the same sentences, where there are some."""
    num_items: int | None = None
    """Utterances that it was measured on."""
    note: str = ""
    """How it is to be read."""
    remarks: tuple[str, ...] = ()
    """What else is to be known, such as what was chosen on the same sentences; said once below the
    table, however many figures it is of."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"a figure must be finite, got {self.value}")
        if not self.command.strip():
            raise ValueError("a figure needs the command that measures it")


def write_model_card(
    folder: str | Path,
    manifest: BundleManifest,
    metrics: Mapping[str, Metric | Mapping[str, Any]],
    *,
    limits: Sequence[str] = (),
) -> Path:
    """Write the model card of a bundle; call it before the bundle is finalized.

    Args:
        folder: the bundle.
        manifest: what the card is about.
        metrics: figures by name, each with its command (a `Metric`, or its fields as a mapping).
        limits: sentences about what it cannot do or must not be used for.

    Returns:
        The path of the card.

    Raises:
        ValueError: if a figure has no command or is not a number.
    """
    figures = {name: _metric(name, metric) for name, metric in metrics.items()}
    sections = [
        f"# {manifest.name}",
        manifest.description,
        _usage(manifest),
        _components(manifest),
        _figures(figures),
        _listing("Limits", list(limits)),
        _provenance(manifest.provenance),
        f"## Licence\n\nThe weights are under {manifest.licence}.",
    ]
    text = "\n\n".join(section for section in sections if section)
    path = Path(folder) / CARD_FILE
    write_text(path, f"{_front_matter(manifest)}\n{text}\n")
    return path


def _metric(name: str, metric: Metric | Mapping[str, Any]) -> Metric:
    if isinstance(metric, Metric):
        return metric
    try:
        return Metric(**metric)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The figure {name} of a model card has a value and a command: {error}."
        ) from error


def _front_matter(manifest: BundleManifest) -> str:
    """Make the header by which the hub files a model."""
    facts = {
        "language": manifest.language,
        "license": manifest.licence.lower(),
        "library_name": "tokenlm",
        "pipeline_tag": "text-to-speech",
        "tags": ["text-to-speech", "voice-cloning", "tokenlm"],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---\n"


def _usage(manifest: BundleManifest) -> str:
    rate = f"It makes sound at {manifest.sample_rate:,} Hz; its language is `{manifest.language}`."
    defaults = [f"`{name}` = {value}" for name, value in manifest.generation.items()]
    return rate + (f" Generation defaults: {', '.join(defaults)}." if defaults else "")


def _components(manifest: BundleManifest) -> str:
    rows = [f"| `{name}` | `{kind}` |" for name, kind in manifest.components.items()]
    if not rows:
        return ""
    return "## Components\n\n| folder | kind |\n|---|---|\n" + "\n".join(rows)


def _figures(metrics: Mapping[str, Metric]) -> str:
    """A table with a row for each figure; remarks and commands are said once at its foot."""
    if not metrics:
        return "## Figures\n\nNothing has been measured."
    remarks = list(dict.fromkeys(text for metric in metrics.values() for text in metric.remarks))
    marks = {text: f"[{number}]" for number, text in enumerate(remarks, start=1)}
    columns: dict[str, list[str]] = {
        "figure": [_cell(name) for name in metrics],
        "value": [f"{_number(one.value)} {one.unit}".strip() for one in metrics.values()],
        "95 % interval": [_interval(metric) for metric in metrics.values()],
        "recordings": [
            "" if one.original is None else f"{_number(one.original)} {one.unit}".strip()
            for one in metrics.values()
        ],
        "n": ["" if one.num_items is None else f"{one.num_items}" for one in metrics.values()],
        "": [
            _cell(" ".join([metric.note, *(marks[text] for text in metric.remarks)]))
            for metric in metrics.values()
        ],
    }
    shown = {head: cells for head, cells in columns.items() if any(cells)}
    text = "## Figures\n\n" + markdown_table(list(shown), list(zip(*shown.values(), strict=True)))
    if "recordings" in shown:
        text += "\n\nRecordings: the same sentences as read by the source of the corpus."
    text += "".join(f"\n\n{marks[remark]} {_cell(remark)}" for remark in remarks)
    return f"{text}\n\n{_commands(metrics)}"


def _commands(metrics: Mapping[str, Metric]) -> str:
    by_command: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        own = by_command.setdefault(metric.command, [])
        part = name.rpartition("/")[0] or name
        if part not in own:
            own.append(part)
    if len(by_command) == 1:
        return f"Measured by `{_cell(next(iter(by_command)))}`."
    lines = [f"- {', '.join(own)}: `{_cell(one)}`" for one, own in by_command.items()]
    return "Measured by\n\n" + "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _interval(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"{_number(metric.low)} to {_number(metric.high)}"


def _provenance(provenance: Mapping[str, Any]) -> str:
    lines = []
    for name, value in provenance.items():
        if isinstance(value, (list, tuple)):
            lines.append(f"{name}:")
            lines += [f"  - {item}" for item in value]
        elif isinstance(value, Mapping):
            lines.append(f"{name}:")
            lines += [f"  - {key}: {item}" for key, item in value.items()]
        else:
            lines.append(f"{name}: {value}")
    if not lines:
        return ""
    marked = [line if line.startswith("  ") else f"- {line}" for line in lines]
    return "## Where it comes from\n\n" + "\n".join(marked)


def _listing(title: str, items: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {item}" for item in items) if items else ""


def _cell(text: str) -> str:
    """Fit text into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
