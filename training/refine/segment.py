"""Cuts long recordings into clips at their pauses.

Speech is found by level: windows of 30 ms that are well above the noise floor of the recording.
This is not a neural detector: music and other sounds as loud as speech pass for speech.

Shapes: S samples, W windows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenlm.audio.level import rms_dbfs
from training.refine.config import RefineConfig
from training.refine.measures import window_levels

_WINDOW_SECONDS = 0.03
_PAD_SECONDS = 0.1
_ABOVE_FLOOR_DB = 12.0


def is_speech(levels: Tensor) -> Tensor:
    """Say of windows (W,), by their level in dB, which are speech.

    The threshold is 12 dB above the quietest tenth, at least 30 dB below the loudest parts.
    """
    floor, loud = torch.quantile(levels, 0.1), torch.quantile(levels, 0.95)
    threshold = torch.maximum(floor + _ABOVE_FLOOR_DB, loud - 30.0)
    # Where nothing is quieter, as in a clip without pauses, all of it is speech.
    threshold = torch.where(loud - floor < _ABOVE_FLOOR_DB, floor - 1.0, threshold)
    return levels >= threshold


def segments(waveform: Tensor, sample_rate: int, config: RefineConfig) -> list[tuple[int, int]]:
    """Return first and last sample of the clips of a recording.

    Args:
        waveform: (S,).
        sample_rate: In Hz.
        config: Length of the pauses that separate clips, and the longest clip: speech that goes on
            for longer is cut at its quietest place.
    """
    levels = window_levels(waveform, sample_rate)
    if not levels.numel():
        return []
    pause = max(1, round(config.pause_seconds / _WINDOW_SECONDS))
    longest = max(2, int((config.max_seconds - 2 * _PAD_SECONDS) / _WINDOW_SECONDS))
    runs: list[list[int]] = []
    for window in torch.nonzero(is_speech(levels))[:, 0].tolist():
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
