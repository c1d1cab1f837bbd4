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
    note: str = ""
    """On what it was measured, against what it is to be read."""

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
    if not metrics:
        return "## Figures\n\nNothing has been measured."
    rows = [
        f"| {_cell(name)} | {f'{metric.value:.4g} {metric.unit}'.strip()} "
        f"| {_cell(metric.note)} | `{_cell(metric.command)}` |"
        for name, metric in metrics.items()
    ]
    head = "## Figures\n\nEach can be measured again with its command.\n\n"
    return head + "| figure | value | on | command |\n|---|---|---|---|\n" + "\n".join(rows)


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
