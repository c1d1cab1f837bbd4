"""Figures that every table has, and the same of the recordings of the same sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from training.evaluation.naturalness import SCORES
from training.evaluation.statistics import Figure, beside, mean_figure
from training.evaluation.suite import Row

HIGH_BAND = "high_band_db"
SOUND = {**SCORES, HIGH_BAND: "energy from 8 to 11.5 kHz over that below, in dB"}
"""Columns of rows that say how speech sounds, and how they are read."""
_OF_SPEECH = (
    "errors", "words", "char_errors", "characters", "word_error_rate", "lost_or_doubled", "faults",
    "similarity", "nearest", "num_candidates", "speaking_rate", "seconds", *SOUND,
)  # fmt: skip
"""Columns that are those of the recording where a recording is summarised in place of speech."""

Summary = Callable[[Sequence[Row], int], list[Figure]]


def voices_of(rows: Sequence[Row]) -> list[str]:
    """The voice that each row was spoken in, as far as rows share voices."""
    return [str(row.get("speaker", row["prompt"])) for row in rows]


def sound_figures(rows: Sequence[Row], prefix: str = "", *, seed: int = 0) -> list[Figure]:
    """Means of the columns `SOUND` that all rows have.

    Args:
        rows: of one section and set.
        prefix: of the names of the figures.
        seed: of the intervals.
    """
    section, group = rows[0]["section"], rows[0]["group"]
    return [
        mean_figure(
            section,
            group,
            f"{prefix}{name}",
            [float(row[name]) for row in rows],
            voices_of(rows),
            seed=seed,
            note=note,
        )
        for name, note in SOUND.items()
        if all(name in row for row in rows)
    ]


def summarise_beside(
    summarise: Summary, rows: Sequence[Row], originals: Mapping[str, Row], seed: int = 0
) -> list[Figure]:
    """Figures of rows, each with that of the recordings of the same sentences.

    Args:
        summarise: makes figures of rows.
        rows: whose `original` names the recording of their sentence.
        originals: rows of the recordings, by that name. Where one is missing no figure has another
            one beside it.
        seed: of the intervals.
    """
    figures = summarise(rows, seed)
    if not all(row.get("original") in originals for row in rows):
        return figures
    recorded = [
        {**row, **{key: own[key] for key in _OF_SPEECH if key in own}, "original_errors": 0}
        for row in rows
        for own in [originals[row["original"]]]
    ]
    kept = [figure for figure in summarise(recorded, seed) if not _is_of_both(figure)]
    return beside(figures, kept)


def _is_of_both(figure: Figure) -> bool:
    """Whether a figure is of the system or compares it with something: recordings have none."""
    parts = ("_over_", "to_original", "catastrophic", "real_time_factor", "first_audio", "slope")
    return any(part in figure.name for part in parts)
