"""Synthetic-speech detector: whether a recording sounds as if it had come out of these models.

Statistics of the log-mel over time into one linear layer, a logistic regression. The statistics are
such that a microphone or a room, which filter all frames alike, change few of them: how much each
bin moves over time, how fast, and how uneven neighbouring bins are. It knows the models that it was
trained on, and no others.

Shapes: B batch, S samples, T mel frames, M mel bins, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tokenlm.audio.mel import MelConfig, MelSpectrogram
from tokenlm.models.speech_tokenizer import analysis_mel

LOUD_SHARE = 0.6
"""Of the frames, the loudest ones that count: pauses say most of the room."""
MIN_FRAMES = 50
"""Shorter recordings have no statistics."""


@dataclass(frozen=True, kw_only=True)
class SyntheticDetectorConfig:
    """Sizes of a `SyntheticDetector`."""

    mel: MelConfig = field(default_factory=analysis_mel)
    max_mel: int = 76
    """Bins from below that are looked at. The highest are left out: what is there depends on how a
    recording was stored."""


class SyntheticDetector(nn.Module):
    """Waveform at 16 kHz to the logit of being synthetic."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: SyntheticDetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelSpectrogram(config.mel)
        size = 5 * config.max_mel - 3
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.classify = nn.Linear(size, 1)

    def features(self, waveform: Tensor) -> Tensor:
        """Features (F,) of one recording (S,), not scaled.

        Raises:
            ValueError: it is shorter than `MIN_FRAMES` frames.
        """
        mel = self.mel(waveform[None])[0, :, : self.config.max_mel]
        if mel.shape[0] < MIN_FRAMES:
            raise ValueError(f"{mel.shape[0]} frames are too few to tell what made them")
        level = mel.mean(dim=1)
        keep = level >= level.quantile(1.0 - LOUD_SHARE)
        loud = mel[keep]
        step, bend = mel.diff(dim=0), mel.diff(dim=0, n=2)
        uneven, rough = mel.diff(dim=1), mel.diff(dim=1, n=2)
        return torch.cat(
            [
                (loud - loud.mean(dim=1, keepdim=True)).std(dim=0),
                step[keep[1:]].abs().mean(dim=0),
                bend[keep[2:]].abs().mean(dim=0),
                uneven[keep].std(dim=0),
                rough[keep].std(dim=0),
            ]
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B,) of features (B, F): above 0 is more like synthetic speech."""
        return self.classify((features - self.mean) / self.scale)[:, 0]

    @torch.inference_mode()
    def probability(self, waveform: Tensor) -> float:
        """Probability that a recording (S,) is synthetic, as often as it was in training.

        Raises:
            ValueError: the recording is too short.
        """
        return float(self(self.features(waveform)[None]).sigmoid())


DETECTOR_KINDS: dict[str, tuple[type, Callable[[Any], nn.Module]]] = {
    "synthetic_detector": (SyntheticDetectorConfig, SyntheticDetector)
}
"""For `load_component`; no bundle has this component, and speaking does not load it."""
