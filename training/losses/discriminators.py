"""Discriminators of waveforms: by period (HiFi-GAN) and by STFT (UnivNet, Jang et al., 2021).

Shapes: B batch, S samples. Each discriminator returns a score map (B, …) and its inner features.
They train a vocoder and are not part of any bundle.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from training.losses.spectral import magnitude_spectrum

SLOPE = 0.1


class PeriodDiscriminator(nn.Module):
    """Sees a waveform folded into rows of `period` samples."""

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        sizes = (1, *channels)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0)))
            for a, b in zip(sizes, channels, strict=False)
        )
        self.score = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, S) to a score map and features."""
        excess = waveform.shape[1] % self.period
        if excess:
            waveform = functional.pad(waveform, (0, self.period - excess))
        x = waveform.view(waveform.shape[0], 1, -1, self.period)
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return self.score(x), features


class SpectrumDiscriminator(nn.Module):
    """Sees the STFT magnitudes of one resolution."""

    def __init__(self, n_fft: int, hop_length: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = hop_length
        # The first layer halves both axes: at full resolution it would cost as much as all others.
        strides = ((2, 2), (2, 1), (2, 2), (2, 1))
        sizes = (1, *(channels for _ in strides))
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(sizes[i], sizes[i + 1], (5, 3), stride, padding=(2, 1)))
            for i, stride in enumerate(strides)
        )
        self.score = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, S) to a score map and features."""
        x = magnitude_spectrum(waveform, self.n_fft, self.hop_length)
        # A square root of the magnitude evens out the dynamic range of speech.
        x = x.sqrt()[:, None]
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return self.score(x), features


class WaveformDiscriminator(nn.Module):
    """All discriminators of a vocoder."""

    def __init__(
        self,
        *,
        periods: tuple[int, ...] = (2, 3, 5, 7, 11),
        period_channels: tuple[int, ...] = (16, 32, 64, 128),
        resolutions: tuple[tuple[int, int], ...] = ((512, 128), (1024, 256), (2048, 512)),
        spectrum_channels: int = 16,
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            [PeriodDiscriminator(period, period_channels) for period in periods]
            + [SpectrumDiscriminator(n, hop, spectrum_channels) for n, hop in resolutions]
        )

    def forward(self, waveform: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """(B, S) to the scores and the features of all discriminators."""
        outputs = [discriminator(waveform) for discriminator in self.discriminators]
        return [score for score, _ in outputs], [features for _, features in outputs]
