"""Components alone: the speech tokenizer, the speaker encoder, and the speed of the whole.

Shapes: S samples, N tokens, n utterances, E embedding channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from tokenlm.audio.io import load_audio
from tokenlm.models.speech_tokenizer import codebook_usage
from training.data.manifest import Utterance, by_speaker
from training.evaluation.error_rate import char_errors
from training.evaluation.judges import SAMPLE_RATE, Embed
from training.evaluation.parts import Parts
from training.evaluation.sets import RecordingSet
from training.evaluation.statistics import Figure, ratio_figure
from training.evaluation.suite import Row, Suite
from training.evaluation.systems import Cloning

Track = Callable[[Iterable[Any]], Iterator[Any]]
"""Iterates over a list and shows progress."""


@torch.inference_mode()
def measure_tokenizer(
    parts: Parts, recordings: RecordingSet, num_items: int, seed: int, track: Track
) -> tuple[list[Figure], list[Row]]:
    """Character error of the tokenizer's own ASR through its codes, and how these are used."""
    tokenizer, recognizer = parts.speech_tokenizer, parts.token_recognizer
    rate = tokenizer.config.mel.sample_rate
    rows, tokens = [], []
    for recording in track(_spread(recordings.recordings, num_items)):
        waveform = load_audio(recording.audio, rate).to(parts.device)
        codes, _ = tokenizer.encode(waveform[None])
        transcript = recognizer.transcribe(codes)[0]
        count = char_errors(recording.text, transcript)
        tokens.append(codes[0].cpu())
        rows.append(
            {
                "section": "tokenizer",
                "group": recordings.name,
                "original": recording.id,
                "speaker": recording.speaker,
                "text": recording.text,
                "heard": transcript,
                "errors": count.errors,
                "characters": count.length,
            }
        )
    all_tokens = torch.cat(tokens)
    size = tokenizer.config.codebook_size
    figures = [
        ratio_figure(
            "tokenizer",
            recordings.name,
            "char_error_rate",
            [float(row["errors"]) for row in rows],
            [float(row["characters"]) for row in rows],
            seed=seed,
            note="of the tokenizer's own ASR through its codes",
        )
    ]
    for name, value in codebook_usage(all_tokens, size).items():
        figures.append(
            Figure(
                section="tokenizer",
                group=recordings.name,
                name=name,
                value=value,
                num_items=len(rows),
                note=f"{len(all_tokens):,} tokens, codebook of {size:,}",
            )
        )
    return figures, rows


@torch.inference_mode()
def measure_speaker_encoder(
    parts: Parts,
    sets: list[RecordingSet],
    num_recordings: int,
    seed: int,
    track: Track,
    judge: Embed | None = None,
) -> list[Figure]:
    """Equal error rate over pairs of recordings of held-out speakers.

    Within a test set every speaker counts, warps of one person too; over all sets together, pairs
    of different speakers are those of different persons.

    Args:
        parts: with the speaker encoder.
        sets: whose recordings are compared.
        num_recordings: of each speaker.
        seed: of the intervals.
        track: shows how far it is.
        judge: measured on the same recordings, for comparison.
    """
    encoder = parts.speaker_encoder
    rate = encoder.config.mel.sample_rate
    chosen = [
        (recordings.name, row)
        for recordings in sets
        for indices in by_speaker(recordings.recordings).values()
        for row in _spread([recordings.recordings[index] for index in indices], num_recordings)
    ]
    own, others = [], []
    for _, row in track(chosen):
        own.append(encoder.embed_recording(load_audio(row.audio, rate).to(parts.device)).cpu())
        if judge is not None:
            others.append(judge(load_audio(row.audio, SAMPLE_RATE).numpy()))
    embeddings_by_judge = {"": np.stack([embedding.numpy() for embedding in own])}
    if others:
        embeddings_by_judge["judge_"] = np.stack(others)
    figures = []
    for prefix, embeddings in embeddings_by_judge.items():
        for recordings in sets:
            within = [i for i, (name, _) in enumerate(chosen) if name == recordings.name]
            figures += _error_figures(
                recordings.name,
                f"{prefix}equal_error_rate",
                embeddings[within],
                [chosen[i][1].speaker for i in within],
                None,
                seed,
            )
        persons = [str(row.extra.get("person", row.speaker)) for _, row in chosen]
        if len(set(persons)) > 1:
            figures += _error_figures(
                "all",
                f"{prefix}equal_error_rate_between_persons",
                embeddings,
                [row.speaker for _, row in chosen],
                persons,
                seed,
            )
    return figures


def _error_figures(
    group: str,
    name: str,
    embeddings: np.ndarray,
    speakers: list[str],
    persons: list[str] | None,
    seed: int,
) -> list[Figure]:
    if len(set(speakers)) < 2:
        return []
    same, different = pair_scores(embeddings, speakers)
    if persons is not None:
        different = pair_scores(embeddings, persons)[1]
        low = high = None
    else:
        low, high = equal_error_interval(embeddings, speakers, seed=seed)
    rate, threshold = equal_error_rate(same, different)
    note = (
        f"{len(set(speakers))} speakers; same {same.mean():.3f}, different "
        f"{different.mean():.3f}, threshold {threshold:.3f}"
    )
    return [
        Figure(
            section="speaker_encoder",
            group=group,
            name=name,
            value=rate,
            low=low,
            high=high,
            num_items=len(speakers),
            note=note,
        )
    ]


def measure_speed(suite: Suite, system: Cloning, track: Track) -> Figure:
    """Seconds of work for a second of speech, on all cores, prompt already prepared.

    Args:
        suite: what is spoken, one request at a time.
        system: what is measured.
        track: shows progress.
    """
    threads = torch.get_num_threads()
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    try:
        system.speak(suite.requests[0])  # The first call pays for what is loaded lazily.
        worked = spoken = 0.0
        for request in track(suite.requests):
            speech = system.speak(request)
            assert speech.work_seconds is not None
            worked += speech.work_seconds
            spoken += speech.seconds
    finally:
        torch.set_num_threads(threads)
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return Figure(
        section=suite.section,
        group=suite.group,
        name="real_time_factor",
        value=worked / max(spoken, 1e-9),
        num_items=len(suite.requests),
        note=f"{spoken:.0f} s of speech, one sentence at a time, {cores} cores{load}",
    )


def _spread(recordings: Sequence[Utterance], num: int) -> list[Utterance]:
    """`num` recordings, evenly over the list, so that no speaker is left out."""
    if len(recordings) <= num:
        return list(recordings)
    return [recordings[index * len(recordings) // num] for index in range(num)]


def pair_scores(embeddings: np.ndarray, speakers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Similarities of all pairs of utterances.

    Args:
        embeddings: (n, E).
        speakers: n names.

    Returns:
        The scores of pairs of the same speaker, and of different ones.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows, columns = np.triu_indices(len(speakers), k=1)
    scores = (unit @ unit.T)[rows, columns]
    names = np.asarray(speakers)
    same = names[rows] == names[columns]
    return scores[same], scores[~same]


def equal_error_rate(same: np.ndarray, different: np.ndarray) -> tuple[float, float]:
    """Where as many pairs of one speaker are rejected as pairs of two are accepted.

    Args:
        same: scores of pairs of the same speaker.
        different: scores of pairs of different speakers.

    Returns:
        The rate (the mean of both where they do not meet), and the threshold.

    Raises:
        ValueError: there are no pairs of one of both kinds.
    """
    if not len(same) or not len(different):
        raise ValueError("an equal error rate needs pairs of one speaker and of different ones.")
    same, different = np.sort(same), np.sort(different)
    thresholds = np.unique(np.concatenate([same, different]))
    rejected = np.searchsorted(same, thresholds, side="left") / len(same)
    accepted = 1.0 - np.searchsorted(different, thresholds, side="left") / len(different)
    best = int(np.argmin(np.abs(rejected - accepted)))
    return float((rejected[best] + accepted[best]) / 2), float(thresholds[best])


def equal_error_interval(
    embeddings: np.ndarray,
    speakers: Sequence[str],
    *,
    seed: int = 0,
    num_resamples: int = 200,
) -> tuple[float, float]:
    """95 % interval of the equal error rate, utterances resampled within each speaker."""
    names = np.asarray(speakers)
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = unit @ unit.T
    generator = np.random.default_rng(seed)
    rows, columns = np.triu_indices(len(names), k=1)
    rates = []
    for _ in range(num_resamples):
        drawn = np.concatenate([generator.choice(group, len(group)) for group in groups])
        first, second = drawn[rows], drawn[columns]
        distinct = first != second
        first, second = first[distinct], second[distinct]
        same = names[first] == names[second]
        picked = scores[first, second]
        if same.any() and not same.all():
            rates.append(equal_error_rate(picked[same], picked[~same])[0])
    if not rates:
        return float("nan"), float("nan")
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)
