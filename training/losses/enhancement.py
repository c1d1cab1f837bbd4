"""Losses of speech enhancement: compressed spectra (Braun and Tashev, 2020), SI-SDR.

Shapes: B batch, S samples. Every loss is a sum over the items of the batch, so that it is divided
by the number of items.
"""

from __future__ import annotations

import torch
from torch import Tensor

_POWER = 0.3
_FLOOR = 1e-8


def compressed_spectral_loss(
    estimate: Tensor, target: Tensor, n_fft: int, hop_length: int
) -> tuple[Tensor, Tensor]:
    """Squared distance of spectra whose magnitudes are raised to 0.3, as loudness is.

    Both waveforms are divided by the level of the target, so that soft recordings count as much.

    Args:
        estimate: (B, S).
        target: (B, S).
        n_fft: samples of a spectral frame.
        hop_length: samples between frames.

    Returns:
        Two sums over B of means over frames and bins: of magnitudes, and of complex values.
    """
    level = target.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-4)
    window = torch.hann_window(n_fft, device=target.device)

    def compress(waveform: Tensor) -> tuple[Tensor, Tensor]:
        spectrum = torch.stft(
            waveform / level, n_fft, hop_length, window=window, return_complex=True
        )
        size = (spectrum.real.square() + spectrum.imag.square() + _FLOOR).sqrt()
        return size**_POWER, spectrum * size ** (_POWER - 1.0)

    size, values = compress(estimate)
    target_size, target_values = compress(target)
    magnitude = (size - target_size).square().mean(dim=(1, 2)).sum()
    difference = values - target_values
    complex_part = (difference.real.square() + difference.imag.square()).mean(dim=(1, 2)).sum()
    return magnitude, complex_part


def si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al., 2019) in dB.

    Args:
        estimate: (B, S).
        target: (B, S).

    Returns:
        (B,); that of a silent target is meaningless.
    """
    estimate = estimate - estimate.mean(dim=1, keepdim=True)
    target = target - target.mean(dim=1, keepdim=True)
    share = (estimate * target).sum(dim=1, keepdim=True)
    part = share / target.square().sum(dim=1, keepdim=True).clamp(min=_FLOOR) * target
    rest = (estimate - part).square().sum(dim=1).clamp(min=_FLOOR)
    return 10.0 * (part.square().sum(dim=1).clamp(min=_FLOOR) / rest).log10()
