"""How loud a waveform is, and what follows from it.

Shapes: S samples. Levels are in decibels below full scale (dBFS), a sine of full scale at -3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WINDOW_SECONDS = 0.02
_HIGH_PASS_ORDER = 4
SPEECH_LUFS = -23.0
"""Loudness of evened speech: that of broadcasts (EBU R 128)."""
_MAX_GAIN_DB = 15.0
_ABSOLUTE_GATE = -70.0
_LOUDNESS_OFFSET = 0.691
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


def loudness_lufs(waveform: Tensor, sample_rate: int) -> float:
    """How loud a waveform (S,) is to the ear, in LUFS; minus infinity for silence.

    Integrated loudness after ITU-R BS.1770-4: power behind the K-weighting, over blocks of 0.4 s
    that are neither silent nor more than 10 dB below the mean of the others. A waveform shorter
    than a block is one.
    """
    size = min(round(0.4 * sample_rate), waveform.shape[0])
    if size == 0:
        return -math.inf
    power = _k_weighted(waveform, sample_rate).unfold(0, size, max(size // 4, 1)).square().mean(-1)
    power = power[power > 10.0 ** ((_ABSOLUTE_GATE + _LOUDNESS_OFFSET) / 10.0)]
    if power.shape[0] == 0:
        return -math.inf
    power = power[power > power.mean() / 10.0]
    return 10.0 * math.log10(power.mean().item()) - _LOUDNESS_OFFSET


def even_out(waveform: Tensor, sample_rate: int, target: float = SPEECH_LUFS) -> Tensor:
    """Bring a waveform (S,) to a loudness in LUFS; silence stays silence."""
    loudness = loudness_lufs(waveform, sample_rate)
    if not math.isfinite(loudness):
        return waveform
    return amplify(waveform, max(-_MAX_GAIN_DB, min(target - loudness, _MAX_GAIN_DB)))


def _k_weighted(waveform: Tensor, sample_rate: int) -> Tensor:
    """A waveform (S,) with the gain of the two filters of BS.1770, and another phase."""
    num_samples = waveform.shape[0]
    # Room for what rings behind the end, and a length of small factors.
    length = math.ceil((num_samples + sample_rate // 4) / 4096) * 4096
    bins = torch.fft.rfft(waveform.detach().cpu().double(), n=length)
    frequencies = torch.arange(bins.shape[0], dtype=torch.float64) * sample_rate / length
    # The analogue filters that the standard's coefficients (for 48 kHz) come from, warped for the
    # rate: a shelf for the head, and a high-pass.
    gain = torch.ones_like(frequencies)
    for cutoff, quality, low, band, high in (
        (1681.974450955533, 0.7071752369554196, 1.0, 1.258720930232562, 1.584864701130855),
        (38.13547087602444, 0.5003270373238773, 0.0, 0.0, 1.0),
    ):
        k = math.tan(math.pi * cutoff / sample_rate)
        s = 1j * torch.tan(math.pi * frequencies / sample_rate) / k
        gain = gain * ((high * s * s + band / quality * s + low) / (s * s + s / quality + 1)).abs()
    return torch.fft.irfft(bins * gain.nan_to_num(nan=1.0), n=length)[:num_samples]


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
    start, stop = sound_span(waveform, sample_rate, threshold_db, pad_seconds)
    return waveform[start:stop]


def sound_span(
    waveform: Tensor, sample_rate: int, threshold_db: float = -42.0, pad_seconds: float = 0.08
) -> tuple[int, int]:
    """The samples that `trim_silence` keeps: the first, and the one behind the last."""
    size = max(round(_WINDOW_SECONDS * sample_rate), 1)
    if waveform.shape[0] < size:
        return 0, waveform.shape[0]
    hop = max(size // 2, 1)
    power = waveform.detach().float().unfold(0, size, hop).square().mean(-1)
    loudest = power.max()
    if loudest <= 0:
        return 0, waveform.shape[0]
    loud = torch.nonzero(power >= loudest * 10.0 ** (threshold_db / 10.0))[:, 0]
    pad = round(pad_seconds * sample_rate)
    start = max(int(loud[0]) * hop - pad, 0)
    # The last window may leave a rest of less than a hop behind it, which it then speaks for.
    rest = waveform.shape[0] if int(loud[-1]) == power.shape[0] - 1 else 0
    stop = max(int(loud[-1]) * hop + size, rest)
    return start, min(stop + pad, waveform.shape[0])


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
