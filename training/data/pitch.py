"""Pitch of recordings, as the target of a vocoder that predicts it, and how periodic they are.

Shapes: B batch, S samples, T frames, W samples of a window, L lags. After YIN (de Cheveigné and
Kawahara, 2002), without its last step (a better estimate nearby).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LOWEST_HZ = 60.0
HIGHEST_HZ = 700.0
THRESHOLD = 0.15
"""Aperiodic share of the power up to which a frame is voiced."""
QUIET_DB = -50.0
"""Frames that lie this far below the loudest of their recording have no pitch."""


def estimate_pitch(
    waveform: Tensor, sample_rate: int, hop_length: int, *, threshold: float = THRESHOLD
) -> Tensor:
    """Pitch of every frame in hertz, 0 where it is not voiced.

    Args:
        waveform: (B, S).
        sample_rate: in hertz.
        hop_length: samples of a frame.
        threshold: aperiodic share of the power up to which a frame is voiced.

    Returns:
        (B, S // hop_length); frame t is what lies around sample (t + 1/2) * hop_length.
    """
    return estimate_periodicity(waveform, sample_rate, hop_length, threshold=threshold)[0]


def estimate_periodicity(
    waveform: Tensor, sample_rate: int, hop_length: int, *, threshold: float = THRESHOLD
) -> tuple[Tensor, Tensor]:
    """Pitch of every frame, and the periodic share of its power.

    Args: see `estimate_pitch`.

    Returns:
        Both (B, S // hop_length): hertz, 0 where a frame is not voiced; and 0 .. 1, 0 where it is
        quiet.
    """
    longest, shortest = int(sample_rate / LOWEST_HZ), int(sample_rate / HIGHEST_HZ)
    window = 2 * longest
    size = window + longest
    num_frames = waveform.shape[1] // hop_length
    left = (size - hop_length) // 2
    needed = (num_frames - 1) * hop_length + size
    padded = functional.pad(waveform.float(), (left, max(needed - left - waveform.shape[1], 0)))
    frames = padded.unfold(1, size, hop_length)[:, :num_frames]
    difference = _differences(frames, window, longest)
    power = frames.square().mean(dim=2)
    loud = power > power.amax(dim=1, keepdim=True) * 10 ** (QUIET_DB / 10)
    lags = torch.arange(1, longest + 1, device=waveform.device)
    # Over the mean of all shorter lags: 1 where there is no period, 0 where all is one.
    share = difference[..., 1:] * lags / difference[..., 1:].cumsum(dim=2).clamp(min=1e-12)
    middle = share[..., 1:-1]
    is_dip = (middle <= share[..., :-2]) & (middle < share[..., 2:]) & (middle < threshold)
    is_dip = is_dip & (lags[1:-1] >= shortest)
    first = is_dip.int().argmax(dim=2, keepdim=True)
    before, at, behind = (share.gather(2, first + offset) for offset in range(3))
    # The bottom of the parabola through the three points.
    shift = (before - behind) / (2 * (before - 2 * at + behind)).clamp(min=1e-12)
    period = (first + 2 + shift.clamp(-1, 1))[..., 0]
    pitch = torch.where(is_dip.any(dim=2) & loud, sample_rate / period, 0.0)
    lowest = middle[..., shortest - 2 :].amin(dim=2)  # of the lags from `shortest` on
    return pitch, torch.where(loud, 1.0 - lowest, 0.0).clamp(min=0.0)


def _differences(frames: Tensor, window: int, longest: int) -> Tensor:
    """Squared difference (B, T, L + 1) of a window at the start of each frame and the same later.

    Args:
        frames: (B, T, W + L).
        window: W.
        longest: L, the largest lag.
    """
    size = frames.shape[2]
    spectrum = torch.fft.rfft(frames, n=2 * size)
    first = torch.fft.rfft(frames[..., :window], n=2 * size)
    products = torch.fft.irfft(spectrum * first.conj(), n=2 * size)[..., : longest + 1]
    # In double precision: sums of neighbouring windows are differences of large numbers.
    sums = functional.pad(frames.double().square().cumsum(dim=2), (1, 0))
    power = sums[..., window:] - sums[..., : longest + 1]
    return (power[..., :1] + power - 2 * products.double()).clamp(min=0).to(frames.dtype)
