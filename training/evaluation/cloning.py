"""Held-out sentences in held-out voices: cloned, or by one step of the chain.

The sections `originals`, `cloned`, `resynthesis` and `copy_synthesis` are the same suite, spoken by
four systems; the other three are compared with the recordings themselves.

Shapes: E embedding channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokenlm.modules.exact import mix
from training.evaluation.error_rate import is_catastrophic
from training.evaluation.prompts import Prompt
from training.evaluation.sets import Item, RecordingSet
from training.evaluation.statistics import Figure, mean_figure, ratio_figure, share_figure
from training.evaluation.suite import (
    Judges,
    Request,
    Row,
    Score,
    Suite,
    similarity,
    sound_figures,
    voices_of,
)

Prompts = dict[str, Prompt]
"""Prompts by speaker."""


def speaker_prompts(recordings: RecordingSet) -> Prompts:
    """The prompts of a set, as the files that they are."""
    return {
        speaker: Prompt(name=row.id, text=row.text, path=row.audio)
        for speaker, row in recordings.prompts.items()
    }


def item_columns(item: Item) -> dict[str, Any]:
    """What the row of an item says of it."""
    return {
        "original": item.original.id,
        "prompt": item.prompt.id,
        "speaker": item.prompt.speaker,
    }


def cloning_suite(section: str, recordings: RecordingSet, prompts: Prompts, seed: int) -> Suite:
    """The sentences of a set, each in its voice.

    Args:
        section: what is measured.
        recordings: the set.
        prompts: by speaker.
        seed: which the seed of each sentence follows from.
    """
    requests = [
        Request(
            id=item.index,
            text=item.original.text,
            prompt=prompts[item.prompt.speaker],
            seed=mix(seed, item.index),
            reference=item.original.audio,
            file=f"{item.index:03d}",
            columns=item_columns(item),
        )
        for item in recordings.items
    ]
    return Suite(section=section, group=recordings.name, requests=requests, folder=section)


def find_nearest(
    scores: Sequence[Score], prompts: Prompts, others: Prompts, judges: Judges, num_candidates: int
) -> None:
    """Add to each row which of several voices the speech is nearest to.

    Args:
        scores: of a `cloning_suite`.
        prompts: of the set.
        others: prompts among which the own one has to be found; none: those of the set. The warps
            of a single person are too alike to be told apart by any judge, so that an unheard
            person has to be found among other persons.
        judges: the judges.
        num_candidates: voices that are compared, the own one and the most similar of the others.
    """
    own = {speaker: judges.embed_prompt(prompt) for speaker, prompt in prompts.items()}
    rest = {speaker: judges.embed_prompt(prompt) for speaker, prompt in others.items()} or own
    for one in scores:
        speaker = one.row["speaker"]
        names = hardest(speaker, own[speaker], rest, num_candidates - 1)
        candidates = {speaker: own[speaker], **{name: rest[name] for name in names}}
        one.row["nearest"] = nearest(one.embedding, candidates)
        one.row["num_candidates"] = len(candidates)


def compare_with_originals(scores: Sequence[Score], originals: Sequence[Score]) -> None:
    """Add to each row how the recording of its sentence was scored."""
    for one, original in zip(scores, originals, strict=True):
        one.row["original_errors"] = original.count.errors
        one.row["similarity_to_original"] = round(similarity(one.embedding, original.embedding), 4)
        one.row["catastrophic"] = is_catastrophic(one.count, original.count)


def cloning_figures(rows: Sequence[Row], seed: int = 0) -> list[Figure]:
    """Figures of the rows of one section and set."""
    section, group, voices = rows[0]["section"], rows[0]["group"], voices_of(rows)

    def values(key: str) -> list[float]:
        return [float(row[key]) for row in rows]

    def mean(name: str, numbers: list[float], note: str = "") -> Figure:
        return mean_figure(section, group, name, numbers, voices, seed=seed, note=note)

    def share(name: str, numbers: list[float], note: str) -> Figure:
        return share_figure(section, group, name, numbers, voices, note=note)

    def ratio(name: str, above: str, below: str, note: str = "") -> Figure:
        return ratio_figure(
            section, group, name, values(above), values(below), voices, seed=seed, note=note
        )

    figures = [ratio("word_error_rate", "errors", "words")]
    if "original_errors" in rows[0]:
        figures += [
            ratio(
                "word_errors_over_original",
                "errors",
                "original_errors",
                "word errors over those of the engine's own reading",
            ),
            share(
                "catastrophic_failure_rate",
                values("catastrophic"),
                "word error rate above 0.5 and 0.5 above the engine's own",
            ),
            mean("similarity_to_original", values("similarity_to_original")),
        ]
    most = max(row["num_candidates"] for row in rows)
    return [
        *figures,
        mean(
            "speaker_similarity",
            values("similarity"),
            "cosine to the prompt by resemblyzer, not comparable with published tables",
        ),
        share(
            "nearest_voice_rate",
            [float(row["nearest"] == row["speaker"]) for row in rows],
            f"share whose nearest of {most} prompts is their own",
        ),
        *sound_figures(rows, seed=seed),
    ]


def nearest(embedding: np.ndarray, candidates: Mapping[str, np.ndarray]) -> str:
    """Name of the candidate (E,) most similar to an embedding (E,); the first of equals."""
    return max(candidates, key=lambda name: similarity(embedding, candidates[name]))


def hardest(
    name: str, embedding: np.ndarray, others: Mapping[str, np.ndarray], num_others: int
) -> list[str]:
    """The `num_others` of `others` that are most similar to `embedding`, most similar first."""
    ranked = sorted(
        (other for other in others if other != name),
        key=lambda other: (-similarity(embedding, others[other]), other),
    )
    return ranked[:num_others]
