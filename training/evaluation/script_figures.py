"""Figures of judged scripts: words, failures and their kinds, speakers, speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.evaluation.faults import FAULTS
from training.evaluation.figure import Figure, mean_figure, ratio_figure
from training.evaluation.interval import bootstrap_interval
from training.evaluation.paired import Comparison, compare_means, compare_ratios

SECTION = "script"
NOT_COMPARABLE = (
    "cosine to the prompt by resemblyzer; not comparable with published tables, whose judge is "
    "another (a WavLM with an ECAPA head)"
)

Rows = Sequence[dict[str, Any]]


def by_item(rows: Rows, key: str) -> dict[str, float]:
    """Mean of a value over the seeds of each item, which are not independent of one another."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(key) is not None:
            values.setdefault(row["item"], []).append(float(row[key]))
    return {item: float(np.mean(found)) for item, found in values.items()}


def with_faults(rows: Rows) -> list[dict[str, Any]]:
    """Rows with one number for each kind of failure."""
    return [{**row, **{f"fault_{kind}": kind in row["faults"] for kind in FAULTS}} for row in rows]


def script_figures(rows: Rows, *, seed: int = 0) -> list[Figure]:
    """Figures of the rows of one script; intervals are over items."""
    rows = with_faults(rows)
    group = str(rows[0]["group"])
    num_seeds = len({row["seed"] for row in rows})
    many = f"{num_seeds} seeds each" if num_seeds > 1 else ""

    def mean(name: str, key: str, note: str = "") -> list[Figure]:
        values = list(by_item(rows, key).values())
        if not values:
            return []
        told = "; ".join(part for part in (note, many) if part)
        return [mean_figure(SECTION, group, name, values, seed=seed, note=told)]

    def ratio(name: str, above: str, below: str, note: str = "") -> Figure:
        first, second = by_item(rows, above), by_item(rows, below)
        told = "; ".join(part for part in (note, many) if part)
        numerators, denominators = list(first.values()), [second[item] for item in first]
        return ratio_figure(SECTION, group, name, numerators, denominators, seed=seed, note=told)

    figures = [
        ratio("word_error_rate", "errors", "words", "all wrong words over all words"),
        *mean("mean_word_error_rate", "word_error_rate", "mean over utterances"),
        ratio("char_error_rate", "char_errors", "characters"),
        *mean(
            "catastrophic_failure_rate",
            "catastrophic",
            "word error rate above 0.5 and 0.5 above the engine's own",
        ),
    ]
    for kind in FAULTS:
        figures += mean(f"{kind}_rate", f"fault_{kind}", "share of utterances, by alignment")
    figures += mean("speaker_similarity", "similarity", NOT_COMPARABLE)
    figures += mean("naturalness", "naturalness")
    figures += mean("speaking_rate", "speaking_rate", "characters per second of speech")
    figures.append(ratio("real_time_factor", "work_seconds", "seconds"))
    first_audio = list(by_item(rows, "first_audio_seconds").values())
    if first_audio:
        array = np.array(first_audio)
        low, high = bootstrap_interval(
            len(array), lambda drawn: float(np.median(array[drawn])), seed=seed
        )
        figures.append(
            Figure(
                section=SECTION,
                group=group,
                name="time_to_first_audio",
                value=float(np.median(array)),
                low=low,
                high=high,
                num_items=len(array),
                note="seconds, median",
            )
        )
    return figures


def other_prompts(first: Rows, second: Rows) -> list[str]:
    """Items that both have spoken, but not to the same prompts; what is compared there is both."""
    prompts: list[dict[str, set[str]]] = [{}, {}]
    for found, rows in zip(prompts, (first, second), strict=True):
        for row in rows:
            found.setdefault(row["item"], set()).add(row["prompt"])
    one, two = prompts
    return sorted(item for item in one.keys() & two.keys() if one[item] != two[item])


def compare_rows(first: Rows, second: Rows, *, seed: int = 0) -> list[Comparison]:
    """Compare two systems on the items of one script that both have spoken.

    Raises:
        ValueError: they have no item in common.
    """
    items = sorted({row["item"] for row in first} & {row["item"] for row in second})
    if not items:
        raise ValueError("the two systems have no item in common: nothing can be compared.")
    kept = set(items)
    one = with_faults([row for row in first if row["item"] in kept])
    two = with_faults([row for row in second if row["item"] in kept])

    def values(rows: Rows, key: str, names: list[str]) -> np.ndarray:
        found = by_item(rows, key)
        return np.array([found[item] for item in names])

    sizes = values(one, "words", items)
    compared = [
        compare_ratios(
            "word_error_rate",
            values(one, "errors", items),
            values(two, "errors", items),
            sizes,
            seed=seed,
        )
    ]
    names = {
        "word_error_rate": "mean_word_error_rate",
        "catastrophic": "catastrophic_failure_rate",
        **{f"fault_{kind}": f"{kind}_rate" for kind in FAULTS},
        "similarity": "speaker_similarity",
        "naturalness": "naturalness",
        "speaking_rate": "speaking_rate",
        "work_seconds": "work_seconds",
    }
    for key, name in names.items():
        both = sorted(by_item(one, key).keys() & by_item(two, key).keys())
        if both:
            compared.append(
                compare_means(name, values(one, key, both), values(two, key, both), seed=seed)
            )
    return compared
