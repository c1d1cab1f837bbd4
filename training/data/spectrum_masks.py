"""Masks over time and bands of a mel spectrogram (SpecAugment: Park et al., 2019, section 2).

What is masked becomes the mean, which is 0 where the level was normalised. An encoder that cannot
rely on any one moment or band learns more from few hours.

Shapes: T frames, M mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SpectrumMaskConfig:
    """How many masks an utterance gets, and how large they are at most."""

    num_band_masks: int = 0
    """Masks over neighbouring bands."""
    max_bands: int = 15
    """Widest of them."""
    time_masks_per_second: float = 0.0
    """Masks over neighbouring frames, for each second of the utterance."""
    max_frames: int = 10
    """Longest of them."""

    def __post_init__(self) -> None:
        for name in ("num_band_masks", "time_masks_per_second"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("max_bands", "max_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def is_empty(self) -> bool:
        """Whether nothing is ever masked."""
        return not self.num_band_masks and not self.time_masks_per_second


def draw_spectrum_mask(
    num_frames: int,
    num_mels: int,
    frame_rate: float,
    config: SpectrumMaskConfig,
    generator: torch.Generator,
) -> Tensor:
    """Draw which part of a spectrogram is kept: bool (T, M).

    Args:
        num_frames: Frames of the utterance.
        num_mels: Bands.
        frame_rate: Frames per second.
        config: How much is masked.
        generator: The draws.
    """
    keep = torch.ones(num_frames, num_mels, dtype=torch.bool)
    num_time_masks = round(config.time_masks_per_second * num_frames / frame_rate)
    for count, most, axis in (
        (config.num_band_masks, config.max_bands, 1),
        (num_time_masks, config.max_frames, 0),
    ):
        size = keep.shape[axis]
        for width, start in torch.rand(count, 2, generator=generator).tolist():
            length = min(round(width * most), size)
            keep.narrow(axis, int(start * (size - length + 1)), length).fill_(False)
    return keep
