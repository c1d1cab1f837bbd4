"""Whether a voice holds over a long text that is said in one go.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenlm.audio.resample import resample
from tokenlm.synthesis.prompt import quietest_cut
from training.data.manifest import Utterance
from training.evaluation.conditions import Bars, Row, Says
from training.evaluation.config import EDGE_SECONDS
from training.evaluation.error_rate import errors_by_part, spoken_words
from training.evaluation.figure import Figure, mean_figure, ratio_figure
from training.evaluation.judges import SAMPLE_RATE
from training.evaluation.prompts import read_prompt
from training.evaluation.speaker_score import similarity
from training.evaluation.speech import Jury, keep_audio
from training.evaluation.testset import TestSet

SECTION = "long_text"
MAX_PIECE_SECONDS = 20.0
"""The judge of words hears a long recording in pieces, cut in its pauses."""
WITHIN = 0.05
"""Change of similarity up to which a voice counts as held."""


def long_sentences(test_set: TestSet, seconds: float, number: int) -> list[Utterance]:
    """Sentences that take about so long to say, one after another.

    Args:
        test_set: whose recordings' sentences are taken, but those of its prompts. They are said
            again from the first on where the manifest has too few.
        seconds: by the durations of the recordings.
        number: of the text; each begins where the one before has ended.
    """
    used = {spoken_words(prompt.text) for prompt in test_set.prompts.values()}
    distinct: dict[str, Utterance] = {}
    for row in sorted(test_set.recordings, key=lambda row: row.id):
        words = spoken_words(row.text)
        if words and words not in used:
            distinct.setdefault(words, row)
    # A test set has items, which are none of the prompts' sentences, so there are some.
    rows = list(distinct.values())
    place = 0
    for _ in range(number + 1):
        chosen, total = [], 0.0
        while total < seconds:
            chosen.append(rows[place % len(rows)])
            total += chosen[-1].duration
            place += 1
    return chosen


def measure_long_text(
    test_set: TestSet, num_texts: int, seconds: float, jury: Jury, speaker: Says, bars: Bars
) -> tuple[list[Figure], list[Row]]:
    """Similarity of the end to the start, its change against the prompt, and the words.

    Args:
        test_set: whose first voices speak.
        num_texts: voices.
        seconds: about the length of each text.
        jury: the judges.
        speaker: what is judged.
        bars: shows how far it is.

    Raises:
        AudioError: a prompt cannot be read.
        ValueError: a voice cannot be made of a prompt.
    """
    voices = list(test_set.prompts.items())[:num_texts]
    spoken, judged = bars(len(voices))
    waiting = []
    for number, (name, prompt) in enumerate(voices):
        sentences = [row.text for row in long_sentences(test_set, seconds, number)]
        waveform = speaker.say(" ".join(sentences), read_prompt(prompt), number)
        keep_audio(jury.audio_folder, test_set.name, SECTION, name, waveform, speaker.sample_rate)
        samples = resample(waveform, speaker.sample_rate, SAMPLE_RATE)
        pieces = [jury.submit(piece.numpy()) for piece in cut_in_pauses(samples, SAMPLE_RATE)]
        spoken()
        row = {
            "section": SECTION,
            "group": test_set.name,
            "item": number,
            "prompt": prompt.id,
            "speaker": name,
            "text": " ".join(sentences),
            "seconds": round(waveform.shape[0] / speaker.sample_rate, 3),
            **_similarities(samples, jury.voice_of(prompt), jury),
        }
        waiting.append((row, sentences, pieces))
    rows: list[Row] = []
    for row, sentences, pieces in waiting:
        heard = " ".join(piece.result() for piece in pieces)
        counts = errors_by_part(sentences, heard)
        judged()
        rows.append(
            {
                **row,
                "heard": heard,
                "errors": sum(count.errors for count in counts),
                "words": sum(count.length for count in counts),
                "sentence_errors": [count.errors for count in counts],
                "sentence_words": [count.length for count in counts],
            }
        )
    return _figures(rows, jury.seed), rows


def cut_in_pauses(
    waveform: Tensor, sample_rate: int, max_seconds: float = MAX_PIECE_SECONDS
) -> Iterator[Tensor]:
    """Pieces of a recording (S,), in order and without gaps, none longer than `max_seconds`."""
    # A tenth of a second at the least, as the judges need something to hear.
    rest = torch.nn.functional.pad(waveform, (0, max(sample_rate // 10 - waveform.shape[0], 0)))
    while rest.shape[0]:
        piece = quietest_cut(rest, sample_rate, max_seconds)
        yield piece
        rest = rest[piece.shape[0] :]


def _similarities(samples: Tensor, prompt: np.ndarray, jury: Jury) -> dict[str, Any]:
    size = round(EDGE_SECONDS * SAMPLE_RATE)
    samples = torch.nn.functional.pad(samples, (0, max(SAMPLE_RATE // 10 - samples.shape[0], 0)))
    first, last = jury.embed(samples[:size].numpy()), jury.embed(samples[-size:].numpy())
    start, end = similarity(first, prompt), similarity(last, prompt)
    return {
        "similarity_end_to_start": round(similarity(last, first), 4),
        "similarity_start": round(start, 4),
        "similarity_end": round(end, 4),
        "similarity_change": round(abs(end - start), 4),
    }


def _figures(rows: list[Row], seed: int) -> list[Figure]:
    group = rows[0]["group"]
    edge = f"{EDGE_SECONDS:g} s"
    lengths = ", ".join(f"{row['seconds']:.0f}" for row in rows)
    largest = max(row["similarity_change"] for row in rows)
    held = sum(row["similarity_change"] <= WITHIN for row in rows)
    notes = {
        "similarity_end_to_start": f"last {edge} to first {edge}; texts of {lengths} s",
        "similarity_start": f"first {edge} to the prompt",
        "similarity_end": f"last {edge} to the prompt",
        "similarity_change": (
            f"between last and first {edge}, both to the prompt, without sign; largest "
            f"{largest:.3f}, {held} of {len(rows)} voices within {WITHIN:g}"
        ),
    }
    figures = [
        mean_figure(SECTION, group, name, [float(row[name]) for row in rows], seed=seed, note=note)
        for name, note in notes.items()
    ]
    errors = [float(count) for row in rows for count in row["sentence_errors"]]
    words = [float(count) for row in rows for count in row["sentence_words"]]
    note = f"{sum(errors):.0f} of {sum(words):.0f} words wrong in {len(rows)} texts, by sentence"
    return [
        *figures,
        ratio_figure(SECTION, group, "word_error_rate", errors, words, seed=seed, note=note),
    ]
