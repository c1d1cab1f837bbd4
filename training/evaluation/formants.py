"""Whether the formants of the speech follow those of the prompt.

A prompt is resampled by several factors, which move its formants and pitch together, and the same
sentence is said with each. The slope of the logarithm of what the speech was moved by, over that of
the factor, is 1 where a voice is followed all the way and 0 where it is ignored.

How far the formants of one recording lie above those of another is a ratio of frequencies. The
long-term envelopes of both are put on an axis of the logarithm of frequency, on which a longer or
shorter vocal tract is a shift, and the shift at which they fit best is looked for. An envelope that
shows harmonics would make the pitch the measure, so each frame is first smoothed over its own
pitch: what is left moves with the formants alone.

Shapes: S samples, T frames, F bins of the transform, G points of the logarithmic axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from tokenlm.modules.exact import mix
from training.evaluation.cloning import item_columns
from training.evaluation.judges import SAMPLE_RATE
from training.evaluation.prompts import Prompt, read_prompt, transpose
from training.evaluation.sets import RecordingSet
from training.evaluation.statistics import Figure, ratio_figure
from training.evaluation.suite import MIN_SECONDS, Request, Row, Speech, Suite

SECTION = "formants"
MAX_WARP = 1.25
"""Largest ratio that is looked for, and the inverse of the smallest."""
LOW_HZ = 500.0
"""Lower end of what is compared: below it the smoothing is wider than what it should leave."""
HIGH_HZ = 5000.0
"""Upper end: above it few voices have formants, and resampling moves the edge of the band."""
MIN_VOICED_FRAMES = 20
"""Frames of 10 ms without which an envelope is no long-term one."""

_N_FFT = 1024
_WINDOW = 640
_HOP = 160
_SMOOTHING = 0.5
"""Deviation of the Gaussian that smooths the power, in pitches: harmonics become ripples of 1 %.
In pitches, not in hertz, as what resampling moves must be blurred in the same proportion."""
_SMOOTHING_STEP = 0.03
"""Of the logarithm of that deviation."""
_STEP = 0.002
"""Of the axis of the natural logarithm of frequency."""
_PITCH_HZ = (60.0, 400.0)
_MIN_PERIODICITY = 0.4
"""Of a voiced frame, at most 1. White noise stays below it; a harsh voice is often above."""
_SAME_PERIOD = 0.9
"""The shortest lag that is this periodic, of the most periodic one, is the period: its multiples
are as good."""
_MIN_LEVEL_DB = -30.0
_FLOOR = 1e-5
"""Power added to that of a frame, whose mean is 1: what lies 50 dB lower is noise."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Warps over the factors, of one prompt or of one sentence said with it."""

    speaker: str
    warps: dict[float, float]
    """What the frequencies of the sound were multiplied by, beside the sound at the factor 1, by
    what those of the prompt were multiplied by; of speaking rates, the rate by that factor."""


def formant_suite(recordings: RecordingSet, factors: Sequence[float], seed: int) -> Suite:
    """The sentences of a set, each after its prompt moved by each factor.

    Args:
        recordings: the set.
        factors: with 1 among them.
        seed: which the seed of each sentence follows from, the same for all factors.

    Raises:
        AudioError: a prompt cannot be read.
    """
    moved = {
        name: {factor: transpose(prompt, factor) for factor in factors}
        for name, prompt in ((name, read_prompt(row)) for name, row in recordings.prompts.items())
    }
    requests = [
        Request(
            id=item.index,
            text=item.original.text,
            prompt=moved[item.prompt.speaker][factor],
            seed=mix(seed, item.index),
            file=f"x{factor:g}/{item.index:03d}",
            columns={**item_columns(item), "factor": factor},
        )
        for item in recordings.items
        for factor in factors
    ]
    return Suite(section=SECTION, group=recordings.name, requests=requests, folder=SECTION)


def score_formants(suite: Suite, speeches: Iterable[Speech]) -> list[Row]:
    """How far each sentence was moved, beside the same one after the prompt at the factor 1."""
    envelopes: dict[str | int, dict[float, np.ndarray | None]] = {}
    for speech in speeches:
        request = speech.request
        is_long_enough = speech.seconds >= MIN_SECONDS
        envelope = spectral_envelope(speech.samples()) if is_long_enough else None
        envelopes.setdefault(request.id, {})[request.columns["factor"]] = envelope
    warps = {name: find_warps(own) for name, own in envelopes.items()}
    return [
        {
            "section": SECTION,
            "group": suite.group,
            "item": request.id,
            **request.columns,
            "text": request.text,
            "warp": warps[request.id].get(request.columns["factor"]),
        }
        for request in suite.requests
    ]


def formant_figures(suite: Suite, rows: Sequence[Row], seed: int = 0) -> list[Figure]:
    """The slope of the speech, and of the prompts themselves, which shows that the measure holds.

    Args:
        suite: what was spoken.
        rows: of `score_formants`.
        seed: of the intervals.
    """
    curves: dict[str | int, Curve] = {}
    prompts: dict[str, dict[float, Prompt]] = {}
    for request, row in zip(suite.requests, rows, strict=True):
        factor, speaker = row["factor"], row["speaker"]
        prompts.setdefault(speaker, {})[factor] = request.prompt
        curve = curves.setdefault(request.id, Curve(speaker=speaker, warps={}))
        if row["warp"] is not None:
            curve.warps[factor] = row["warp"]
    own = [
        Curve(speaker=speaker, warps=find_warps({x: _envelope(moved[x]) for x in moved}))
        for speaker, moved in prompts.items()
    ]
    factors = sorted({row["factor"] for row in rows})
    missing = sum(row["warp"] is None for row in rows)
    lost = f"; {missing} of {len(rows)} without a voice to measure left out" if missing else ""
    span = f"prompts resampled by {factors[0]:g} to {factors[-1]:g}"
    return [
        slope_figure(
            SECTION,
            "slope",
            suite.group,
            list(curves.values()),
            seed,
            f"of ln output warp on ln prompt warp; {span}{lost}",
        ),
        slope_figure(
            SECTION,
            "slope_of_prompts",
            suite.group,
            own,
            seed,
            "the same measure of the resampled prompts themselves, which should be 1; envelopes "
            f"from {LOW_HZ:g} to {HIGH_HZ:g} Hz",
        ),
    ]


def find_warps(envelopes: Mapping[float, np.ndarray | None]) -> dict[float, float]:
    """Warps by factor, beside the envelope at the factor 1; without it there are none."""
    reference = envelopes[1.0]
    return {
        factor: estimate_warp(envelope, reference)
        for factor, envelope in envelopes.items()
        if envelope is not None and reference is not None
    }


def _envelope(prompt: Prompt) -> np.ndarray | None:
    samples = prompt.samples(SAMPLE_RATE).numpy()
    return spectral_envelope(samples) if len(samples) >= MIN_SECONDS * SAMPLE_RATE else None


def slope_figure(
    section: str, name: str, group: str, curves: Sequence[Curve], seed: int, note: str
) -> Figure:
    """Least-squares slope over all curves, each with a level of its own.

    A curve has its own level because an error of the sound at the factor 1 moves all of it. Voices
    are resampled for the interval, as the sentences of one voice share its prompts.

    Args:
        section: of the figure.
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
        if len(curve.warps) < 2:
            continue
        x, y = np.log(list(curve.warps)), np.log(list(curve.warps.values()))
        x = x - x.mean()
        above[curve.speaker] = above.get(curve.speaker, 0.0) + float(x @ y)
        below[curve.speaker] = below.get(curve.speaker, 0.0) + float(x @ x)
        num_points += len(curve.warps)
    if not below:
        value = float("nan")
        return Figure(section=section, group=group, name=name, value=value, num_items=0, note=note)
    figure = ratio_figure(
        section, group, name, list(above.values()), list(below.values()), seed=seed
    )
    if len(below) < 2:
        # One voice says nothing of how voices differ.
        figure = replace(figure, low=None, high=None)
    return replace(figure, num_items=num_points, note=f"{note}; {len(below)} voices, resampled")


def spectral_envelope(samples: np.ndarray) -> np.ndarray | None:
    """Long-term envelope of the voiced frames of a recording.

    Args:
        samples: (S,) at `SAMPLE_RATE`, of any level.

    Returns:
        Decibels (G,) on a logarithmic axis of frequency; None where fewer than `MIN_VOICED_FRAMES`
        are voiced.
    """
    if samples.shape[0] < _WINDOW:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), _WINDOW)[::_HOP]
    frames = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(_WINDOW)
    pitch = _pitch(frames)
    voiced = pitch > 0
    if voiced.sum() < MIN_VOICED_FRAMES:
        return None
    power = np.abs(np.fft.rfft(frames[voiced], _N_FFT)) ** 2
    steps = np.round(np.log(_SMOOTHING * pitch[voiced]) / _SMOOTHING_STEP).astype(int)
    for step in np.unique(steps):
        power[steps == step] = power[steps == step] @ _smoother(int(step))
    # Every frame counts alike, the loud vowels no more than the others.
    power /= power.mean(axis=1, keepdims=True)
    decibels = 10.0 * np.log10(power + _FLOOR).mean(axis=0)
    return np.interp(np.exp(_AXIS), _BINS, decibels)


def estimate_warp(envelope: np.ndarray, reference: np.ndarray) -> float:
    """Ratio of the frequencies of one envelope to those of another.

    The correlation of the two is taken at every shift, each moved by half of it, without their
    means and slopes over the band: tilt and level are not formants. A parabola finds the best
    shift between the points.

    Args:
        envelope: (G,) of `spectral_envelope`.
        reference: (G,) likewise.

    Returns:
        Above 1 where the formants are higher than the reference's; at most `MAX_WARP`, at least
        its inverse.
    """
    scores = np.array([_fit(envelope, reference, shift) for shift in _SHIFTS])
    best = int(scores.argmax())
    offset = 0.0
    if 0 < best < len(scores) - 1:
        before, here, after = scores[best - 1 : best + 2]
        bend = before - 2.0 * here + after
        offset = 0.5 * (before - after) / bend if bend < 0 else 0.0
    warp = np.exp((_SHIFTS[best] + offset) * 2.0 * _STEP)
    return float(np.clip(warp, 1.0 / MAX_WARP, MAX_WARP))


def _pitch(frames: np.ndarray) -> np.ndarray:
    """Hertz (T,) of windowed frames (T, S); 0 where one is quiet or not periodic."""
    power = np.abs(np.fft.rfft(frames, 2 * _WINDOW)) ** 2
    correlation = np.fft.irfft(power)[:, :_WINDOW]
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(_WINDOW), 2 * _WINDOW)) ** 2)[:_WINDOW]
    # A window makes the correlation fall with the lag, of periodic sound, too.
    correlation = correlation / np.maximum(correlation[:, :1], 1e-20) / (window / window[0])
    shortest, longest = (round(SAMPLE_RATE / hertz) for hertz in reversed(_PITCH_HZ))
    candidates = correlation[:, shortest : longest + 1]
    # Only peaks: at short lags everything resembles itself.
    inner = np.full(candidates.shape, -1.0)
    middle = candidates[:, 1:-1]
    is_peak = (middle >= candidates[:, :-2]) & (middle > candidates[:, 2:])
    inner[:, 1:-1] = np.where(is_peak, middle, -1.0)
    periodicity = inner.max(axis=1)
    lags = shortest + (inner >= _SAME_PERIOD * periodicity[:, None]).argmax(axis=1)
    level = (frames**2).mean(axis=1)
    loud = level > level.max() * 10.0 ** (_MIN_LEVEL_DB / 10.0)
    return np.where(loud & (periodicity > _MIN_PERIODICITY), SAMPLE_RATE / lags, 0.0)


@lru_cache(maxsize=128)
def _smoother(step: int) -> np.ndarray:
    """A matrix (F, F) that smooths power with a Gaussian."""
    deviation = np.exp(step * _SMOOTHING_STEP)
    matrix = np.exp(-0.5 * ((_BINS[:, None] - _BINS[None]) / deviation) ** 2)
    return matrix / matrix.sum(axis=0)


def _fit(envelope: np.ndarray, reference: np.ndarray, shift: int) -> float:
    """Correlation of the two when one is moved down and the other up by `shift` points."""
    first = _flat(envelope[_MARGIN + shift : _MARGIN + shift + _WIDTH])
    second = _flat(reference[_MARGIN - shift : _MARGIN - shift + _WIDTH])
    return float(first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-12))


def _flat(part: np.ndarray) -> np.ndarray:
    """Without mean and slope, and fading out, so that no shift gains by what enters at an end."""
    return (part - _LINE @ (_LINE.T @ part)) * _TAPER


_BINS = np.arange(_N_FFT // 2 + 1) * (SAMPLE_RATE / _N_FFT)
_MARGIN = int(np.ceil(np.log(MAX_WARP) / (2.0 * _STEP)))
_SHIFTS = range(-_MARGIN, _MARGIN + 1)
_WIDTH = round(float(np.log(HIGH_HZ / LOW_HZ)) / _STEP) + 1
_AXIS = np.log(LOW_HZ) + _STEP * np.arange(-_MARGIN, _WIDTH + _MARGIN)
_TAPER = np.sin(np.linspace(0.0, np.pi, _WIDTH)) ** 0.5
_LINE = np.linalg.qr(np.stack([np.ones(_WIDTH), np.linspace(-1.0, 1.0, _WIDTH)], axis=1))[0]
