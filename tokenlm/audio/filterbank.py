"""Mel filterbanks: triangles over the bins of a Fourier transform.

Shapes: F bins of the transform (n_fft // 2 + 1).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

MelScale = Literal["slaney", "htk"]

# Slaney's scale: linear with 3 mel per 200 Hz up to 1 kHz, then 27 mel per factor 6.4.
_SLANEY_MEL_PER_HERTZ = 3.0 / 200.0
_SLANEY_KNEE_HERTZ = 1000.0
_SLANEY_KNEE_MEL = _SLANEY_KNEE_HERTZ * _SLANEY_MEL_PER_HERTZ
_SLANEY_MEL_PER_LOG = 27.0 / np.log(6.4)


def hertz_to_mel(hertz: np.ndarray, scale: MelScale) -> np.ndarray:
    """Turn frequencies in hertz into mel.

    Args:
        hertz: frequencies, at least 0.
        scale: `slaney` (Auditory Toolbox, Slaney 1998) or `htk` (1127 ln(1 + f / 700)).
    """
    if scale == "htk":
        return 1127.0 * np.log1p(hertz / 700.0)
    above = np.maximum(hertz, _SLANEY_KNEE_HERTZ) / _SLANEY_KNEE_HERTZ
    linear = np.minimum(hertz, _SLANEY_KNEE_HERTZ) * _SLANEY_MEL_PER_HERTZ
    return linear + _SLANEY_MEL_PER_LOG * np.log(above)


def mel_to_hertz(mel: np.ndarray, scale: MelScale) -> np.ndarray:
    """Turn mel into frequencies in hertz; the inverse of `hertz_to_mel`."""
    if scale == "htk":
        return 700.0 * np.expm1(mel / 1127.0)
    above = np.exp(np.maximum(mel - _SLANEY_KNEE_MEL, 0.0) / _SLANEY_MEL_PER_LOG)
    return np.minimum(mel, _SLANEY_KNEE_MEL) / _SLANEY_MEL_PER_HERTZ * above


def mel_filterbank(
    sample_rate: int,
    n_fft: int,
    num_mels: int,
    fmin: float = 0.0,
    fmax: float | None = None,
    *,
    scale: MelScale = "slaney",
    unit_area: bool = True,
    linear_in: Literal["hertz", "mel"] = "hertz",
) -> Tensor:
    """Make a bank of triangular filters, evenly spaced in mel.

    Args:
        sample_rate: of the waveform, in hertz.
        n_fft: length of the Fourier transform, in samples.
        num_mels: number of filters.
        fmin: lower edge of the first filter, in hertz.
        fmax: upper edge of the last filter, in hertz; None for half the sample rate.
        scale: the mel scale.
        unit_area: divide each triangle by half its width in hertz, so that white noise comes out
            flat (Slaney's norm); otherwise each peaks at 1.
        linear_in: the axis on which the sides of a triangle are straight: hertz for most
            front-ends, mel for Kaldi's.

    Returns:
        (num_mels, F) float32.

    Raises:
        ValueError: if the frequencies are not 0 <= fmin < fmax <= sample_rate / 2.
    """
    fmax = sample_rate / 2 if fmax is None else fmax
    if not 0 <= fmin < fmax <= sample_rate / 2:
        raise ValueError(
            f"the filters must lie between 0 and half the sample rate ({sample_rate / 2:g} Hz), "
            f"but fmin is {fmin:g} and fmax is {fmax:g}"
        )
    lowest, highest = hertz_to_mel(np.array([fmin, fmax]), scale)
    edge_mels = np.linspace(lowest, highest, num_mels + 2)
    edges = mel_to_hertz(edge_mels, scale)
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    axis, corners = (
        (bins, edges) if linear_in == "hertz" else (hertz_to_mel(bins, scale), edge_mels)
    )
    lower, centre, upper = (corners[start : start + num_mels, None] for start in range(3))
    rising = (axis - lower) / (centre - lower)
    falling = (upper - axis) / (upper - centre)
    filters = np.maximum(np.minimum(rising, falling), 0.0)
    if unit_area:
        filters *= 2.0 / (edges[2:] - edges[:-2])[:, None]
    return torch.from_numpy(filters.astype(np.float32))
