"""Crops of clean speech, and what is heard of it through noise and rooms.

Shapes: S samples.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.data.augment import AugmentConfig, augment_with_target
from training.data.dataset import UtteranceDataset
from training.loop.randomness import make_generator


class DegradedCrops:
    """Pairs of a degraded crop (S,) and the clean speech that is in it (S,).

    In training the crop is at a random place and degraded anew each time. `dataset[i]` is the
    middle of the utterance, always degraded in the same way. Shorter utterances get silence behind,
    which is degraded like the rest.
    """

    def __init__(
        self, utterances: UtteranceDataset, num_samples: int, augmentation: AugmentConfig
    ) -> None:
        """Take the utterances, the length of a crop, and what is done to it."""
        self.utterances = utterances
        self.num_samples = num_samples
        self.augmentation = augmentation
        self.durations = np.full(len(utterances), num_samples / utterances.sample_rate)

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """The pair of one utterance that validation hears."""
        return self._pair(index, None, make_generator("degraded", index))

    def draw(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A pair of one utterance, with draws from `generator`."""
        return self._pair(index, generator, generator)

    def _pair(
        self, index: int, place: torch.Generator | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        waveform = self.utterances.waveform(index)
        room = max(waveform.shape[0] - self.num_samples, 0)
        start = room // 2
        if place is not None:
            start = int(torch.randint(room + 1, (1,), generator=place))
        crop = waveform[start : start + self.num_samples]
        crop = functional.pad(crop, (0, self.num_samples - crop.shape[0]))
        return augment_with_target(
            crop,
            self.utterances.sample_rate,
            generator,
            self.augmentation,
            self.utterances.draw_waveform,
        )
