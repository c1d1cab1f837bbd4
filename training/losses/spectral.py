"""Losses of a vocoder: multi-resolution STFT (Yamamoto et al., 2020), log-mel, pitch.

Shapes: B batch, S samples, T frames, F bins. Every loss is a sum over the items of the batch of a
mean over their values, so that it is divided by the number of items.
"""

from __future__ import annotations

import torch
from torch import Tensor


def magnitude_spectrum(waveform: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """STFT magnitudes (B, F, T) of (B, S)."""
    window = torch.hann_window(n_fft, device=waveform.device, dtype=waveform.dtype)
    spectrum = torch.stft(waveform, n_fft, hop_length, window=window, return_complex=True)
    # The small constant keeps the gradient of the magnitude finite at zero.
    return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()


def stft_loss(
    generated: Tensor, target: Tensor, resolutions: tuple[tuple[int, int], ...]
) -> tuple[Tensor, Tensor]:
    """Spectral convergence and log-magnitude distance, averaged over resolutions.

    Args:
        generated: (B, S).
        target: (B, S).
        resolutions: (n_fft, hop_length) of each analysis.

    Returns:
        Two sums over B: ||T - G|| / ||T|| (Frobenius, of the whole item), and the mean absolute
        difference of log magnitudes.
    """
    convergence = generated.new_zeros(())
    log_magnitude = generated.new_zeros(())
    for n_fft, hop_length in resolutions:
        ours = magnitude_spectrum(generated, n_fft, hop_length)
        theirs = magnitude_spectrum(target, n_fft, hop_length)
        difference = torch.linalg.vector_norm(theirs - ours, dim=(1, 2))
        norm = torch.linalg.vector_norm(theirs, dim=(1, 2))
        convergence = convergence + (difference / norm.clamp(min=1e-3)).sum()
        distance = (theirs.clamp(min=1e-4).log() - ours.clamp(min=1e-4).log()).abs()
        log_magnitude = log_magnitude + distance.mean(dim=(1, 2)).sum()
    return convergence / len(resolutions), log_magnitude / len(resolutions)


def mel_loss(generated: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of log-mels (B, T, M), summed over B."""
    return (generated - target).abs().mean(dim=(1, 2)).sum()


def pitch_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference in hertz of pitches (B, T), summed over B; 0 is not voiced."""
    return (predicted - target).abs().mean(dim=1).sum()
