"""How loud a waveform is, and what follows from it.

Shapes: S samples. Levels are in decibels below full scale (dBFS), a sine of full scale at -3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WINDOW_SECONDS = 0.02
_HIGH_PASS_ORDER = 4
_SILENCE_DB = -100.0
_KNEE = 0.8
"""Level from which on amplified samples are bent."""


def rms_dbfs(waveform: Tensor) -> float:
    """Measure the level of a waveform (S,) in dBFS; minus infinity for digital silence."""
    if waveform.numel() == 0:
        return -math.inf
    power = waveform.detach().cpu().double().square().mean().item()
    return 10.0 * math.log10(power) if power > 0 else -math.inf


def is_silent(waveform: Tensor, threshold_db: float = -60.0) -> bool:
    """Whether the level of a whole waveform (S,) is below `threshold_db` dBFS."""
    return rms_dbfs(waveform) < threshold_db


def amplify(waveform: Tensor, decibels: float) -> Tensor:
    """Change the level of a waveform.

    What would come near full scale is bent and not clipped; each sample depends on itself alone, so
    that a waveform may be given in pieces.

    Args:
        waveform: (S,), full scale is -1 .. 1.
        decibels: gain; -100 and less is silence.

    Returns:
        (S,); the waveform itself for 0 dB.
    """
    if decibels == 0.0:
        return waveform
    if decibels <= _SILENCE_DB:
        return torch.zeros_like(waveform)
    louder = waveform * 10.0 ** (decibels / 20.0)
    if decibels < 0.0:
        return louder
    room = 1.0 - _KNEE
    bent = _KNEE + room * torch.tanh((louder.abs() - _KNEE) / room)
    return torch.where(louder.abs() > _KNEE, bent * louder.sign(), louder)


def trim_silence(
    waveform: Tensor, sample_rate: int, threshold_db: float = -42.0, pad_seconds: float = 0.08
) -> Tensor:
    """Cut the quiet off both ends of a waveform.

    Quiet are windows of 20 ms whose level is more than `-threshold_db` below that of the loudest
    window, so that a soft recording keeps its soft words.

    Args:
        waveform: (S,).
        sample_rate: in hertz.
        threshold_db: where quiet begins, relative to the loudest window.
        pad_seconds: how much of the quiet stays at either end.

    Returns:
        (S',), a view; the whole waveform where nothing stands out, as in digital silence.
    """
    size = max(round(_WINDOW_SECONDS * sample_rate), 1)
    if waveform.shape[0] < size:
        return waveform
    hop = max(size // 2, 1)
    power = waveform.detach().float().unfold(0, size, hop).square().mean(-1)
    loudest = power.max()
    if loudest <= 0:
        return waveform
    loud = torch.nonzero(power >= loudest * 10.0 ** (threshold_db / 10.0))[:, 0]
    pad = round(pad_seconds * sample_rate)
    start = max(int(loud[0]) * hop - pad, 0)
    # The last window may leave a rest of less than a hop behind it, which it then speaks for.
    rest = waveform.shape[0] if int(loud[-1]) == power.shape[0] - 1 else 0
    stop = max(int(loud[-1]) * hop + size, rest)
    return waveform[start : min(stop + pad, waveform.shape[0])]


def high_pass(waveform: Tensor, sample_rate: int, cutoff: float = 50.0) -> Tensor:
    """Take out rumble and the mean, without moving anything in time.

    The gain is that of a Butterworth filter of fourth order (-3 dB at the cutoff), the phase zero.

    Args:
        waveform: (S,) or (B, S).
        sample_rate: in hertz.
        cutoff: in hertz.

    Returns:
        The same shape, float32.

    Raises:
        ValueError: if the cutoff is not between 0 and half the sample rate.
    """
    if not 0 < cutoff < sample_rate / 2:
        raise ValueError(f"cutoff must be between 0 and {sample_rate / 2:g} Hz, got {cutoff:g}")
    num_samples = waveform.shape[-1]
    if num_samples == 0:
        return waveform.float()
    # Room for the ringing, which would wrap around to the start, and a length of small factors.
    room = math.ceil(16 * sample_rate / cutoff)
    length = math.ceil((num_samples + room) / 4096) * 4096
    bins = torch.fft.rfft(waveform.float(), n=length, dim=-1)
    frequencies = torch.arange(bins.shape[-1], dtype=torch.float32, device=bins.device)
    frequencies *= sample_rate / length
    ratio = (frequencies / cutoff) ** (2 * _HIGH_PASS_ORDER)
    gain = torch.sqrt(ratio / (1.0 + ratio)).nan_to_num(nan=1.0)
    return torch.fft.irfft(bins * gain, n=length, dim=-1)[..., :num_samples]
