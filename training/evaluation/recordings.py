"""Cloning real recordings: any folder of them with their words serves as prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokenlm.audio.io import load_audio
from training.data.manifest import ManifestError, Utterance, read_manifest
from training.evaluation.conditions import Bars, Row, Says, judged_row, word_and_voice_figures
from training.evaluation.figure import Figure
from training.evaluation.judges import SAMPLE_RATE
from training.evaluation.prompts import read_prompt
from training.evaluation.speech import Jury
from training.evaluation.testset import Item, TestSet

SECTION = "recordings"
MANIFEST_FILE = "manifest.jsonl"
MIN_SECONDS = 1.0
"""Of a recording; a shorter one says too little about a voice."""
MAX_SECONDS = 10.0
"""A longer one would be cut, and its text with it."""


def read_recordings(path: Path, num: int) -> list[Utterance]:
    """Recordings that serve as prompts, evenly over their manifest.

    Args:
        path: a manifest, or the folder of its `manifest.jsonl`.
        num: recordings at most.

    Raises:
        ManifestError: there is no manifest, it has a bad row or none, or a recording does not
            have one to ten seconds.
        AudioError: a recording cannot be read.
    """
    if path.is_dir():
        if not (path / MANIFEST_FILE).is_file():
            raise ManifestError(
                f"{path} has no {MANIFEST_FILE}: one line for each recording, with id, audio, "
                "text, speaker and duration."
            )
        path = path / MANIFEST_FILE
    rows = read_manifest(path, strict=True).utterances
    if not rows:
        raise ManifestError(f"{path}: the manifest has no rows.")
    chosen = [rows[index * len(rows) // num] for index in range(num)] if len(rows) > num else rows
    for row in chosen:
        seconds = load_audio(row.audio, SAMPLE_RATE).shape[0] / SAMPLE_RATE
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise ManifestError(
                f"{path}: the recording {row.id!r} has {seconds:.2f} s; prompts have "
                f"{MIN_SECONDS:g} to {MAX_SECONDS:g} s."
            )
    return chosen


def deal_sentences(test_set: TestSet, recordings: list[Utterance], num_each: int) -> list[Item]:
    """Items whose prompts are the recordings, each with the next sentences of the test set."""
    sentences = test_set.items
    return [
        Item(
            index=place * num_each + number,
            original=sentences[(place * num_each + number) % len(sentences)].original,
            prompt=recording,
        )
        for place, recording in enumerate(recordings)
        for number in range(num_each)
    ]


def measure_recordings(
    test_set: TestSet,
    recordings: list[Utterance],
    num_each: int,
    jury: Jury,
    speaker: Says,
    bars: Bars,
) -> tuple[list[Figure], list[Row]]:
    """Word errors of held-out sentences in the voices of recordings, and similarity to these.

    Args:
        test_set: whose sentences are said.
        recordings: of `read_recordings`.
        num_each: sentences said with each.
        jury: the judges.
        speaker: what is judged.
        bars: shows how far it is.

    Raises:
        ValueError: a voice cannot be made of a recording.
    """
    items = deal_sentences(test_set, recordings, num_each)
    prompts = {row.id: read_prompt(row) for row in recordings}
    # Ids of the recordings may be those of the manifest of sentences.
    prompts = {name: replace(prompt, name=f"recording {name}") for name, prompt in prompts.items()}
    spoken, judged = bars(len(items))
    found = jury.judge(
        SECTION,
        replace(test_set, items=items),
        lambda item: speaker.say(item.original.text, prompts[item.prompt.id], item.index),
        speaker.sample_rate,
        spoken,
        judged,
    )
    rows = [
        judged_row(SECTION, test_set.name, one, jury.voice_of(one.item.prompt)) for one in found
    ]
    return word_and_voice_figures(rows, seed=jury.seed, reference="the recording"), rows
