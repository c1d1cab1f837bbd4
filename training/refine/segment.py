"""Cuts long recordings into clips at their pauses.

Speech is found in windows of 30 ms, by Silero's voice activity detector, or by level alone: windows
that are well above the noise floor of the recording, among which music and other sounds as loud as
speech pass for speech.

Shapes: S samples, W windows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from tokenlm.audio.level import rms_dbfs
from tokenlm.audio.noise import window_levels
from tokenlm.audio.resample import resample
from training.refine.config import RefineConfig

_WINDOW_SECONDS = 0.03
_PAD_SECONDS = 0.1
_ABOVE_FLOOR_DB = 12.0
_SILERO_RATE = 16_000
_SILERO_WINDOW = 512
_SILERO_THRESHOLD = 0.5


def is_speech(levels: Tensor) -> Tensor:
    """Say of windows (W,), by their level in dB, which are speech.

    The threshold is 12 dB above the quietest tenth, at least 30 dB below the loudest parts.
    """
    floor, loud = torch.quantile(levels, 0.1), torch.quantile(levels, 0.95)
    threshold = torch.maximum(floor + _ABOVE_FLOOR_DB, loud - 30.0)
    # Where nothing is quieter, as in a clip without pauses, all of it is speech.
    threshold = torch.where(loud - floor < _ABOVE_FLOOR_DB, floor - 1.0, threshold)
    return levels >= threshold


def silero_windows(waveform: Tensor, sample_rate: int, num_windows: int) -> Tensor:
    """Say of windows (W,) of 30 ms of a recording (S,) in which of them Silero hears speech.

    Raises:
        ValueError: If the package `silero-vad` is not installed.
    """
    samples = resample(waveform, sample_rate, _SILERO_RATE)
    samples = torch.nn.functional.pad(samples, (0, -samples.shape[0] % _SILERO_WINDOW))
    with torch.inference_mode():
        # Its windows are a little longer than ours: each of ours takes the one at its middle.
        probabilities = _load_silero().audio_forward(samples[None], _SILERO_RATE)[0]
    middles = (torch.arange(num_windows) + 0.5) * (_WINDOW_SECONDS * _SILERO_RATE / _SILERO_WINDOW)
    places = middles.long().clamp(max=probabilities.shape[0] - 1)
    return probabilities[places] >= _SILERO_THRESHOLD


@cache
def _load_silero() -> Any:
    # It sets the number of threads of the whole process to 1 when it is imported.
    threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad
    except ImportError as error:
        raise ValueError(
            "detector: silero needs the package silero-vad (pip install silero-vad); "
            "detector: level does without"
        ) from error
    model = load_silero_vad()
    torch.set_num_threads(threads)
    return model


def segments(waveform: Tensor, sample_rate: int, config: RefineConfig) -> list[tuple[int, int]]:
    """Return first and last sample of the clips of a recording.

    Args:
        waveform: (S,).
        sample_rate: In Hz.
        config: Length of the pauses that separate clips, and the longest clip: speech that goes on
            for longer is cut at its quietest place.

    Raises:
        ValueError: If the detector is not installed.
    """
    levels = window_levels(waveform, sample_rate)
    if not levels.numel():
        return []
    pause = max(1, round(config.pause_seconds / _WINDOW_SECONDS))
    longest = max(2, int((config.max_seconds - 2 * _PAD_SECONDS) / _WINDOW_SECONDS))
    runs: list[list[int]] = []
    if config.detector == "silero":
        speech = silero_windows(waveform, sample_rate, levels.shape[0])
    else:
        speech = is_speech(levels)
    for window in torch.nonzero(speech)[:, 0].tolist():
        if runs and window - runs[-1][1] <= pause:
            runs[-1][1] = window
        else:
            runs.append([window, window])
    clips: list[tuple[int, int]] = []
    for start, stop in runs:
        clips += _cut(levels, start, stop + 1, longest)
    size, pad = round(_WINDOW_SECONDS * sample_rate), round(_PAD_SECONDS * sample_rate)
    ends = [[start * size - pad, stop * size + pad] for start, stop in clips]
    for before, after in zip(ends, ends[1:], strict=False):
        if after[0] < before[1]:  # cut within speech: no sound belongs to two clips
            before[1] = after[0] = (before[1] + after[0]) // 2
    return [(max(0, start), min(waveform.shape[0], stop)) for start, stop in ends]


def _cut(levels: Tensor, start: int, stop: int, longest: int) -> list[tuple[int, int]]:
    if stop - start <= longest:
        return [(start, stop)]
    low, high = start + longest // 3, start + longest
    middle = low + int(levels[low:high].argmin())
    return [(start, middle), *_cut(levels, middle, stop, longest)]


def normalise_level(waveform: Tensor, level_dbfs: float) -> Tensor:
    """Bring a clip (S,) to a level, or as near as full scale allows."""
    level = rms_dbfs(waveform)
    if level == float("-inf"):
        return waveform
    gain = 10 ** ((level_dbfs - level) / 20)
    peak = float(waveform.abs().max())
    return waveform * min(gain, 0.99 / peak)
