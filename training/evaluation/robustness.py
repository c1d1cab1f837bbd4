"""The sections that ask what a voice stands: other prompts than the usual ones, and long texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.manifest import Utterance
from training.evaluation.conditions import Bars, Row, Says, first_items
from training.evaluation.config import EvaluationConfig, Section
from training.evaluation.damaged_prompts import measure_damaged_prompts
from training.evaluation.figure import Figure
from training.evaluation.formants import measure_formants
from training.evaluation.long_text import measure_long_text
from training.evaluation.prompt_lengths import length_prompts, measure_prompt_lengths
from training.evaluation.prompts import Prompt
from training.evaluation.recordings import measure_recordings, read_recordings
from training.evaluation.sections import Track
from training.evaluation.speech import Jury
from training.evaluation.testset import TestSet

JUDGED: tuple[Section, ...] = ("long_text", "prompt_lengths", "damaged_prompts", "recordings")
"""Those that the judges hear; the formants need none."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the sections are measured on, read before anything is spoken."""

    test_set: TestSet
    lengths: dict[str, dict[str, Prompt]]
    """Prompts by length and speaker."""
    recordings: list[Utterance]
    """Real recordings."""


def read_inputs(
    config: EvaluationConfig, sections: Sequence[Section], test_set: TestSet, sample_rate: int
) -> Inputs:
    """Read what sections need, so that a mistake is told at once.

    Args:
        config: of the evaluation.
        sections: those that are measured.
        test_set: whose voices and sentences are taken.
        sample_rate: of the prompts that are cut, in hertz.

    Raises:
        ValueError: a recording or manifest cannot be used, or a voice has too few recordings.
    """
    lengths: dict[str, dict[str, Prompt]] = {}
    if "prompt_lengths" in sections:
        own = first_items(test_set, config.num_prompt_length_items)
        lengths = length_prompts(own, config.prompt_length_seconds, sample_rate)
    recordings: list[Utterance] = []
    if "recordings" in sections:
        if config.recordings is None:
            raise ValueError("the section recordings needs config.recordings, their manifest.")
        recordings = read_recordings(config.recordings, config.num_recordings)
    return Inputs(test_set=test_set, lengths=lengths, recordings=recordings)


def measure_judged(
    section: Section,
    config: EvaluationConfig,
    inputs: Inputs,
    jury: Jury,
    speaker: Says,
    bars: Bars,
) -> tuple[list[Figure], list[Row]]:
    """Measure one of `JUDGED`."""
    test_set = inputs.test_set
    if section == "long_text":
        voices = first_items(test_set, len(test_set.items))
        return measure_long_text(
            voices, config.num_long_texts, config.long_text_seconds, jury, speaker, bars
        )
    if section == "prompt_lengths":
        own = first_items(test_set, config.num_prompt_length_items)
        return measure_prompt_lengths(own, inputs.lengths, jury, speaker, bars)
    if section == "damaged_prompts":
        own = first_items(test_set, config.num_damaged_prompt_items)
        return measure_damaged_prompts(own, jury, speaker, bars)
    assert section == "recordings"
    return measure_recordings(
        test_set, inputs.recordings, config.num_items_per_recording, jury, speaker, bars
    )


def measure_formant_follow(
    config: EvaluationConfig,
    inputs: Inputs,
    speaker: Says,
    track: Track,
    audio_folder: Path | None = None,
) -> tuple[list[Figure], list[Row]]:
    """Measure the section `formants`."""
    own = first_items(inputs.test_set, config.num_formant_items)
    return measure_formants(own, config.formant_factors, speaker, config.seed, track, audio_folder)
