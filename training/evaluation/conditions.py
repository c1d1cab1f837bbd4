"""The same sentences with the same seeds, said with prompts under several conditions.

Only the prompt differs, so the word errors of two conditions are compared sentence by sentence.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from training.evaluation.figure import Figure, mean_figure, ratio_figure
from training.evaluation.prompts import Prompt
from training.evaluation.speaker_score import similarity
from training.evaluation.speech import Advance, Judged, Jury
from training.evaluation.testset import TestSet

Bars = Callable[[int], tuple[Advance, Advance]]
"""Shows bars for a number of utterances; gives what is called for each spoken and judged one."""
Row = dict[str, Any]
"""A line of `utterances.jsonl`."""


class Says(Protocol):
    """What says a text in the voice of a prompt."""

    @property
    def sample_rate(self) -> int:
        """Of its waveforms, in hertz."""
        ...

    def say(self, text: str, prompt: Prompt, index: int) -> Tensor:
        """A waveform (S,); `index` decides the seed."""
        ...


def first_items(test_set: TestSet, num_items: int) -> TestSet:
    """The first items of a test set, and the prompts of their voices."""
    items = test_set.items[:num_items]
    speakers = {item.prompt.speaker for item in items}
    prompts = {name: row for name, row in test_set.prompts.items() if name in speakers}
    return replace(test_set, items=items, prompts=prompts)


def judge_conditions(
    section: str,
    test_set: TestSet,
    prompts: Mapping[str, Mapping[str, Prompt]],
    references: Mapping[str, np.ndarray],
    jury: Jury,
    speaker: Says,
    bars: Bars,
) -> dict[str, list[Row]]:
    """Rows by condition, those of each in the order of the items.

    Args:
        section: what is measured.
        test_set: the items, each said once under each condition.
        prompts: by condition and speaker.
        references: by speaker, the embedding (E,) that speech has to be similar to.
        jury: the judges.
        speaker: what is judged.
        bars: shows how far it is.
    """
    spoken, judged = bars(len(prompts) * len(test_set.items))
    found: dict[str, list[Row]] = {}
    for condition, voices in prompts.items():
        heard = jury.judge(
            f"{section}/{condition}",
            test_set,
            lambda item, voices=voices: speaker.say(
                item.original.text, voices[item.prompt.speaker], item.index
            ),
            speaker.sample_rate,
            spoken,
            judged,
        )
        found[condition] = [
            {
                **judged_row(section, test_set.name, one, references[one.item.prompt.speaker]),
                "condition": condition,
            }
            for one in heard
        ]
    return found


def judged_row(section: str, group: str, judged: Judged, reference: np.ndarray) -> Row:
    """What the judges say of one utterance, beside the embedding (E,) it should be similar to."""
    item = judged.item
    return {
        "section": section,
        "group": group,
        "item": item.index,
        "original": item.original.id,
        "prompt": item.prompt.id,
        "speaker": item.prompt.speaker,
        "text": item.original.text,
        "heard": judged.heard,
        "errors": judged.count.errors,
        "words": judged.count.length,
        "seconds": round(judged.seconds, 3),
        "similarity": round(similarity(judged.embedding, reference), 4),
    }


def word_and_voice_figures(
    rows: Sequence[Row], prefix: str = "", *, seed: int = 0, reference: str = "the prompt"
) -> list[Figure]:
    """Word error rate and similarity of rows of one section and condition.

    Args:
        rows: of `judged_row`.
        prefix: of the names of the figures.
        seed: of the intervals.
        reference: what the similarity is to.
    """
    section, group = rows[0]["section"], rows[0]["group"]
    errors = [float(row["errors"]) for row in rows]
    words = [float(row["words"]) for row in rows]
    return [
        ratio_figure(
            section,
            group,
            f"{prefix}word_error_rate",
            errors,
            words,
            seed=seed,
            note=f"{sum(errors):.0f} of {sum(words):.0f} words wrong",
        ),
        mean_figure(
            section,
            group,
            f"{prefix}speaker_similarity",
            [float(row["similarity"]) for row in rows],
            seed=seed,
            note=f"cosine to {reference} by resemblyzer, not comparable with published tables",
        ),
    ]


def error_ratio_figure(
    name: str, rows: Sequence[Row], plain: Sequence[Row], *, seed: int = 0, note: str
) -> Figure:
    """Word errors under a condition over those under another, the same sentences in pairs.

    Raises:
        ValueError: the rows are not of the same sentences.
    """
    if [row["item"] for row in rows] != [row["item"] for row in plain]:
        raise ValueError(f"{name}: the rows of the two conditions are not of the same sentences.")
    return ratio_figure(
        rows[0]["section"],
        rows[0]["group"],
        name,
        [float(row["errors"]) for row in rows],
        [float(row["errors"]) for row in plain],
        seed=seed,
        note=note,
    )
