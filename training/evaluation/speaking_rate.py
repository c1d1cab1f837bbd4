"""Whether speech is as fast as its prompt: the same sentences after prompts said slower and faster.

Only the rate of a prompt is changed, its pitch and words stay, so nothing else moves the speech.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.evaluation.conditions import condition_suite, word_and_voice_figures
from training.evaluation.formants import Curve, slope_figure
from training.evaluation.prompts import read_prompt, stretch
from training.evaluation.sets import RecordingSet
from training.evaluation.statistics import Figure
from training.evaluation.suite import Row, Suite

SECTION = "speaking_rate"


def speaking_rate_suite(recordings: RecordingSet, factors: Sequence[float], seed: int) -> Suite:
    """The sentences of a set after their prompts are said slower and faster.

    Args:
        recordings: the set.
        factors: of the speaking rate of the prompts.
        seed: of the sentences.

    Raises:
        AudioError: a prompt cannot be read.
    """
    plain = {name: read_prompt(row) for name, row in recordings.prompts.items()}
    prompts = {
        f"{factor:g}": {name: stretch(prompt, factor) for name, prompt in plain.items()}
        for factor in factors
    }
    return condition_suite(SECTION, recordings, prompts, plain, seed)


def speaking_rate_figures(rows: Sequence[Row], seed: int = 0) -> list[Figure]:
    """Whether the speech is as fast as its prompt: 1 follows it all the way, 0 not at all."""
    curves: dict[str | int, Curve] = {}
    for row in rows:
        curve = curves.setdefault(row["item"], Curve(speaker=row["speaker"], warps={}))
        curve.warps[float(row["condition"])] = row["speaking_rate"]
    factors = sorted({float(row["condition"]) for row in rows})
    note = (
        "of ln characters per second on ln speaking rate of the prompt, "
        f"{factors[0]:g} to {factors[-1]:g} of its own"
    )
    group = rows[0]["group"]
    return [
        slope_figure(SECTION, "slope", group, list(curves.values()), seed, note),
        *word_and_voice_figures(rows, seed=seed),
    ]
