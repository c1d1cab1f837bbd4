"""Whether the formants of the speech follow those of the prompt.

A prompt is resampled by several factors, which move its formants and pitch together, and the same
sentence is said with each. The slope of the logarithm of what the speech was moved by, over that of
the factor, is 1 where a voice is followed all the way and 0 where it is ignored.

Shapes: S samples, G points of an envelope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from tokenlm.audio.resample import resample
from training.evaluation.conditions import Row, Says
from training.evaluation.figure import Figure, ratio_figure
from training.evaluation.judges import SAMPLE_RATE
from training.evaluation.prompts import read_prompt, transpose
from training.evaluation.sections import Track
from training.evaluation.spectral_warp import HIGH_HZ, LOW_HZ, estimate_warp, spectral_envelope
from training.evaluation.speech import keep_audio
from training.evaluation.testset import TestSet

SECTION = "formants"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Warps over the factors, of one prompt or of one sentence said with it."""

    speaker: str
    factors: list[float]
    """What the frequencies of the prompt were multiplied by."""
    warps: list[float]
    """What those of the sound were multiplied by, beside the sound at the factor 1."""


def measure_formants(
    test_set: TestSet,
    factors: Sequence[float],
    speaker: Says,
    seed: int,
    track: Track,
    audio_folder: Path | None = None,
) -> tuple[list[Figure], list[Row]]:
    """The slope of the speech, and of the prompts themselves, which shows that the measure holds.

    Args:
        test_set: the items, each said once for each factor.
        factors: with 1 among them.
        speaker: what is judged.
        seed: of the intervals.
        track: shows how far it is.
        audio_folder: keeps the speech.

    Raises:
        AudioError: a prompt cannot be read.
        ValueError: a voice cannot be made of a prompt.
    """
    clean = {name: read_prompt(row) for name, row in test_set.prompts.items()}
    moved = {
        name: {factor: transpose(prompt, factor) for factor in factors}
        for name, prompt in clean.items()
    }
    prompts = [
        _curve(
            name, {factor: _envelope(one.waveform, one.sample_rate) for factor, one in own.items()}
        )
        for name, own in moved.items()
    ]
    rows: list[Row] = []
    curves: list[Curve] = []
    for item in track(test_set.items):
        voice = item.prompt.speaker
        envelopes: dict[float, np.ndarray | None] = {}
        for factor in factors:
            waveform = speaker.say(item.original.text, moved[voice][factor], item.index)
            keep_audio(
                audio_folder,
                test_set.name,
                f"{SECTION}/x{factor:g}",
                f"{item.index:03d}",
                waveform,
                speaker.sample_rate,
            )
            envelopes[factor] = _envelope(waveform, speaker.sample_rate)
        curve = _curve(voice, envelopes)
        curves.append(curve)
        warps = dict(zip(curve.factors, curve.warps, strict=True))
        rows += [
            {
                "section": SECTION,
                "group": test_set.name,
                "item": item.index,
                "original": item.original.id,
                "prompt": item.prompt.id,
                "speaker": voice,
                "text": item.original.text,
                "factor": factor,
                "warp": round(warps[factor], 4) if factor in warps else None,
            }
            for factor in factors
        ]
    span = f"prompts resampled by {min(factors):g} to {max(factors):g}"
    missing = sum(row["warp"] is None for row in rows)
    lost = f"; {missing} of {len(rows)} without a voice to measure left out" if missing else ""
    figures = [
        slope_figure(
            "slope",
            test_set.name,
            curves,
            seed,
            f"of ln output warp on ln prompt warp; {span}{lost}",
        ),
        slope_figure(
            "slope_of_prompts",
            test_set.name,
            prompts,
            seed,
            f"the same measure of the resampled prompts themselves, which should be 1; envelopes "
            f"from {LOW_HZ:g} to {HIGH_HZ:g} Hz",
        ),
    ]
    return figures, rows


def slope_figure(name: str, group: str, curves: Sequence[Curve], seed: int, note: str) -> Figure:
    """Least-squares slope over all curves, each with a level of its own.

    A curve has its own level because an error of the sound at the factor 1 moves all of it. Voices
    are resampled for the interval, as the sentences of one voice share its prompts.

    Args:
        name: of the figure.
        group: test set.
        curves: without any, the value is not a number.
        seed: of the interval.
        note: how it is to be read; the number of voices is added.
    """
    above: dict[str, float] = {}
    below: dict[str, float] = {}
    num_points = 0
    for curve in curves:
        if len(curve.factors) < 2:
            continue
        x, y = np.log(curve.factors), np.log(curve.warps)
        x = x - x.mean()
        above[curve.speaker] = above.get(curve.speaker, 0.0) + float(x @ y)
        below[curve.speaker] = below.get(curve.speaker, 0.0) + float(x @ x)
        num_points += len(curve.factors)
    if not below:
        value = float("nan")
        return Figure(section=SECTION, group=group, name=name, value=value, num_items=0, note=note)
    figure = ratio_figure(
        SECTION, group, name, list(above.values()), list(below.values()), seed=seed
    )
    if len(below) < 2:
        # One voice says nothing of how voices differ.
        figure = replace(figure, low=None, high=None)
    return replace(figure, num_items=num_points, note=f"{note}; {len(below)} voices, resampled")


def _curve(speaker: str, envelopes: dict[float, np.ndarray | None]) -> Curve:
    reference = envelopes[1.0]
    found = {
        factor: estimate_warp(envelope, reference)
        for factor, envelope in envelopes.items()
        if envelope is not None and reference is not None
    }
    return Curve(speaker=speaker, factors=list(found), warps=list(found.values()))


def _envelope(waveform: Tensor, sample_rate: int) -> np.ndarray | None:
    if waveform.shape[0] < sample_rate // 10:
        return None
    return spectral_envelope(resample(waveform, sample_rate, SAMPLE_RATE).numpy())
