"""What each guard is worth: failures and cost without any, with each alone, and with all.

tokenlm evaluate --bundle mini-en --set hard --limit 100 --ablate
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tokenlm.atomic import write_text
from tokenlm.models.lm import NO_GUARDS, GuardConfig, SamplingConfig
from tokenlm.synthesis.components import GenerationConfig
from training.evaluation.interval import mean_interval
from training.evaluation.paired import Comparison, compare_means
from training.evaluation.script_figures import by_item

ABLATION_FILE = "ablation.json"

Variant = Callable[[GenerationConfig], GenerationConfig]


def _with_guards(**changes: Any) -> Variant:
    return lambda plain: replace(plain, guards=replace(plain.guards, **changes))


def _repetition_aware(plain: GenerationConfig) -> GenerationConfig:
    window = SamplingConfig().repetition_window
    return replace(plain, sampling=replace(plain.sampling, repetition_window=window))


def variants(given: GenerationConfig) -> dict[str, GenerationConfig]:
    """Generation settings by the guard that is on: `none`, each alone, `all`.

    Args:
        given: of the bundle. Its guards give the strength of each one that is on in it; a guard
            that is off there is tried at a usual strength.
    """
    usual, own = GuardConfig(), given.guards
    plain = replace(
        given,
        sampling=replace(given.sampling, repetition_window=0),
        guards=replace(NO_GUARDS, silent_tokens=own.silent_tokens),
    )
    alone: dict[str, Variant] = {
        "repetition_aware": _repetition_aware,
        "length_bounds": _with_guards(length_bounds=True),
        "loop_detector": _with_guards(loop_tokens=own.loop_tokens or usual.loop_tokens),
        "guidance": _with_guards(guidance_scale=own.guidance_scale or 0.5),
        "retry": _with_guards(
            max_attempts=max(own.max_attempts, 3), max_read_error=own.max_read_error
        ),
        "best_of": _with_guards(num_candidates=max(own.num_candidates, 2), max_read_error=0.0),
    }
    if own.silent_tokens:
        alone["silent_cap"] = _with_guards(
            max_silent_tokens=own.max_silent_tokens or usual.max_silent_tokens
        )
    found = {"none": plain, **{name: change(plain) for name, change in alone.items()}}
    everything = plain
    for change in alone.values():
        everything = change(everything)
    accepted = replace(everything.guards, max_read_error=own.max_read_error)
    return {**found, "all": replace(everything, guards=accepted)}


def ablation_rows(
    judged: dict[str, Sequence[dict[str, Any]]], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Failures and cost of each variant, beside `none`, on the same lines.

    The cost is processor time where the rows have it: other work on the machine is not in it.

    Args:
        judged: rows of `judge_script` by variant.
        seed: of the intervals.
    """
    table = []
    known = all("processor_seconds" in row for rows in judged.values() for row in rows)
    clock = "processor_seconds" if known else "work_seconds"
    for name, rows in judged.items():
        failed = np.array(list(by_item(rows, "catastrophic").values()))
        low, high = mean_interval(failed, seed=seed)
        errors, words = by_item(rows, "errors"), by_item(rows, "words")
        row: dict[str, Any] = {
            "guard": name,
            "num_items": len(failed),
            "catastrophic_failure_rate": float(failed.mean()),
            "low": low,
            "high": high,
            "word_error_rate": sum(errors.values()) / sum(words.values()),
            clock: sum(by_item(rows, clock).values()),
        }
        if name != "none":
            found = _beside(judged["none"], rows, seed)
            row["beside_none"] = {**asdict(found), "difference": found.difference}
            row["cost"] = row[clock] / max(table[0][clock], 1e-9)
        table.append(row)
    return table


def _beside(
    plain: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], seed: int
) -> Comparison:
    first, second = by_item(plain, "catastrophic"), by_item(rows, "catastrophic")
    items = sorted(first.keys() & second.keys())
    return compare_means(
        "catastrophic_failure_rate",
        np.array([first[item] for item in items]),
        np.array([second[item] for item in items]),
        seed=seed,
    )


def print_ablation(name: str, table: Sequence[dict[str, Any]], console: Console) -> None:
    """Show the ablation on one test set."""
    shown = Table(title=f"Guards on {name}, each alone", title_justify="left")
    shown.add_column("guard", no_wrap=True)
    for column in ("failures", "95 %", "less than none", "95 %", "p", "word errors", "cost"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in table:
        beside = row.get("beside_none")
        shown.add_row(
            row["guard"],
            f"{100 * row['catastrophic_failure_rate']:.1f} %",
            f"{100 * row['low']:.1f} – {100 * row['high']:.1f}",
            "" if beside is None else f"{-100 * beside['difference']:+.1f}",
            "" if beside is None else f"{-100 * beside['high']:+.1f} – {-100 * beside['low']:+.1f}",
            "" if beside is None else f"{beside['p_value']:.3f}",
            f"{100 * row['word_error_rate']:.1f} %",
            _seconds(row) if beside is None else f"{row['cost']:.2f} ×",
        )
    console.print(shown)


def _seconds(row: dict[str, Any]) -> str:
    if "processor_seconds" in row:
        return f"{row['processor_seconds']:.0f} s of a core"
    return f"{row['work_seconds']:.0f} s"


def write_ablation(folder: Path, tables: dict[str, Any]) -> Path:
    """Write `ablation.json`: the rows by test set."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / ABLATION_FILE, json.dumps(tables, indent=1) + "\n")
    return folder / ABLATION_FILE
