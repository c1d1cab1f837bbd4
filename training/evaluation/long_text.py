"""Whether a voice holds over a long text that is said in one go.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenlm.audio.level import rms_dbfs
from tokenlm.modules.exact import mix
from tokenlm.synthesis.voice import quietest_cut
from training.data.manifest import Utterance
from training.evaluation.cloning import Prompts
from training.evaluation.error_rate import errors_by_part, spoken_words
from training.evaluation.judges import SAMPLE_RATE
from training.evaluation.sets import RecordingSet
from training.evaluation.statistics import Figure, mean_figure, ratio_figure
from training.evaluation.suite import Advance, Judges, Request, Row, Speech, Suite, similarity

SECTION = "long_text"
MAX_PIECE_SECONDS = 20.0
"""A long recording is transcribed in pieces, cut in its pauses."""
WITHIN = 0.05
"""Change of similarity up to which a voice counts as held."""


def long_sentences(recordings: RecordingSet, seconds: float, number: int) -> list[Utterance]:
    """Sentences that take about so long to say, one after another.

    Args:
        recordings: whose recordings' sentences are taken, but those of its prompts. They are said
            again from the first on where the manifest has too few.
        seconds: by the durations of the recordings.
        number: of the text; each begins where the one before has ended.
    """
    used = {spoken_words(prompt.text) for prompt in recordings.prompts.values()}
    distinct: dict[str, Utterance] = {}
    for row in sorted(recordings.recordings, key=lambda row: row.id):
        words = spoken_words(row.text)
        if words and words not in used:
            distinct.setdefault(words, row)
    # A set has items, which are none of the prompts' sentences, so there are some.
    rows = list(distinct.values())
    place = 0
    for _ in range(number + 1):
        chosen, total = [], 0.0
        while total < seconds:
            chosen.append(rows[place % len(rows)])
            total += chosen[-1].duration
            place += 1
    return chosen


def long_text_suite(
    recordings: RecordingSet, prompts: Prompts, num_texts: int, seconds: float, seed: int
) -> Suite:
    """A long text for each of the first voices of a set.

    Args:
        recordings: whose sentences are said.
        prompts: by speaker.
        num_texts: voices.
        seconds: about the length of each text.
        seed: which the seed of each text follows from.
    """
    requests = []
    for number, (name, prompt) in enumerate(list(prompts.items())[:num_texts]):
        sentences = tuple(row.text for row in long_sentences(recordings, seconds, number))
        requests.append(
            Request(
                id=number,
                text=" ".join(sentences),
                prompt=prompt,
                seed=mix(seed, number),
                parts=sentences,
                file=name,
                columns={"speaker": name},
            )
        )
    return Suite(section=SECTION, group=recordings.name, requests=requests, folder=SECTION)


def score_long_texts(
    suite: Suite,
    speeches: Iterable[Speech],
    judges: Judges,
    advance: Advance = lambda: None,
    edge_seconds: float = 10.0,
) -> list[Row]:
    """Errors by sentence, and how the end of each text differs from its start.

    Args:
        suite: what was spoken.
        speeches: of `speak`.
        judges: the judges.
        advance: called after each text.
        edge_seconds: of start and end that are compared.
    """
    waiting: list[tuple[Row, Request, list[float], list[Future[str]]]] = []
    for speech in speeches:
        request, samples = speech.request, speech.samples()
        waveform = torch.from_numpy(samples)
        pieces = list(cut_in_pauses(waveform, SAMPLE_RATE))
        row = {
            "section": SECTION,
            "group": suite.group,
            "item": request.id,
            "prompt": request.prompt.name,
            **request.columns,
            "text": request.text,
            "seconds": round(speech.seconds, 3),
            "edge_seconds": edge_seconds,
            **_similarities(samples, judges.embed_prompt(request.prompt), judges, edge_seconds),
            "level_change_db": _level_change(waveform, edge_seconds),
        }
        seconds = [piece.shape[0] / SAMPLE_RATE for piece in pieces]
        futures = [judges.submit(piece.numpy()) for piece in pieces]
        waiting.append((row, request, seconds, futures))
    rows: list[Row] = []
    for row, request, seconds, futures in waiting:
        transcripts = [future.result() for future in futures]
        transcript = " ".join(transcripts)
        counts = errors_by_part(request.parts, transcript, judges.clean_for(request.text))
        advance()
        rows.append(
            {
                **row,
                "rate_change": _rate_change(transcripts, seconds, edge_seconds),
                "heard": transcript,
                "errors": sum(count.errors for count in counts),
                "words": sum(count.length for count in counts),
                "sentence_errors": [count.errors for count in counts],
                "sentence_words": [count.length for count in counts],
            }
        )
    return rows


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


def _similarities(
    samples: np.ndarray, prompt: np.ndarray, judges: Judges, edge_seconds: float
) -> dict[str, Any]:
    """How similar start and end of a recording (S,) are to a prompt (E,) and to one another."""
    size = round(edge_seconds * SAMPLE_RATE)
    first, last = judges.embed(samples[:size]), judges.embed(samples[-size:])
    start, end = similarity(first, prompt), similarity(last, prompt)
    return {
        "similarity_end_to_start": round(similarity(last, first), 4),
        "similarity_start": round(start, 4),
        "similarity_end": round(end, 4),
        "similarity_change": round(abs(end - start), 4),
    }


def _level_change(waveform: Tensor, edge_seconds: float) -> float | None:
    """Decibels between start and end of a recording (S,), without sign; None of silence."""
    size = round(edge_seconds * SAMPLE_RATE)
    change = rms_dbfs(waveform[-size:]) - rms_dbfs(waveform[:size])
    return round(abs(change), 3) if math.isfinite(change) else None


def _rate_change(
    transcripts: Sequence[str], seconds: Sequence[float], edge_seconds: float
) -> float | None:
    """Share by which the speaking rate differs between start and end, without sign.

    Args:
        transcripts: of the pieces, in order.
        seconds: of the pieces.
        edge_seconds: of start and end.

    Returns:
        None where nothing is heard at one of them.
    """

    def rate(order: Sequence[int]) -> float:
        letters, total = 0, 0.0
        for place in order:
            letters, total = letters + len(spoken_words(transcripts[place])), total + seconds[place]
            if total >= edge_seconds:
                break
        return letters / total

    places = range(len(seconds))
    first, last = rate(places), rate(places[::-1])
    return round(abs(last / first - 1.0), 4) if first and last else None


def long_text_figures(rows: Sequence[Row], seed: int = 0) -> list[Figure]:
    """Similarity of the end to the start, its change against the prompt, and the words."""
    group = rows[0]["group"]
    edge = f"{rows[0]['edge_seconds']:g} s"
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
        "rate_change": f"share by which letters per second of last and first {edge} differ",
        "level_change_db": f"dB between last and first {edge}",
    }
    figures = []
    for name, note in notes.items():
        values = [float(row[name]) for row in rows if row[name] is not None]
        if values:
            figures.append(mean_figure(SECTION, group, name, values, seed=seed, note=note))
    errors = [float(count) for row in rows for count in row["sentence_errors"]]
    words = [float(count) for row in rows for count in row["sentence_words"]]
    voices = [str(row["speaker"]) for row in rows for _ in row["sentence_words"]]
    note = f"{sum(errors):.0f} of {sum(words):.0f} words wrong in {len(rows)} texts, by sentence"
    return [
        *figures,
        ratio_figure(
            SECTION, group, "word_error_rate", errors, words, voices, seed=seed, note=note
        ),
    ]
