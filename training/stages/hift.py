"""Stage hift: the vocoders of CosyVoice 2 and 3, as a rule from imported weights.

    tokenlm train hift

The data and most losses are those of the stage vocoder: the mel loss up to half the sample rate,
least-squares and relative adversarial losses and feature matching (HiFTNet, Li et al., 2023). The
network that predicts the pitch learns from its own loss alone: no gradient runs through the phases
of the sines, which are sums over all frames before.

Shapes: B batch, S samples, T mel frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokenlm.models.vocoder import HiFT, HiFTConfig
from training.config import PrecisionChoice
from training.data.pitch import estimate_pitch
from training.loop.task import Prepared, StepInfo
from training.losses.spectral import pitch_loss
from training.stages.vocoder import VocoderTask, WaveformConfig

_NOISE_FRAMES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class HiFTStageConfig(WaveformConfig):
    """Configuration of the stage; `model` may be the `config.yaml` of an imported vocoder."""

    model: HiFTConfig = field(default_factory=HiFTConfig)
    precision: PrecisionChoice = "fp32"
    """Magnitudes leave the network as logarithms and phases as sines: 16 bits are too coarse."""
    crop_frames: int = 51
    adversarial_start_step: int = 1000
    discriminator_start_step: int | None = 0
    """Discriminators are new where the vocoder is not: they learn first, and speak later."""
    relative_limit: float = 0.04
    resolutions: tuple[tuple[int, int], ...] = ()


class HiFTTask(VocoderTask):
    """Trains a `HiFT`."""

    name = "hift"
    kind = "hift"

    def prepare(self, batch: Tensor, step: StepInfo) -> Prepared:
        """See `Task`."""
        prepared = super().prepare(batch, step)
        mel = self.config.model.mel
        prepared.tensors["pitch"] = estimate_pitch(batch, mel.sample_rate, mel.hop_length)
        # A crop may come from anywhere, and so does its noise: that of the first frames, always
        # the same, could be learned by heart.
        place = torch.randint(_NOISE_FRAMES, (), generator=step.generator(0))
        prepared.tensors["first_sample"] = int(place) * mel.hop_length
        prepared.counts["vocoder/pitch"] = float(batch.shape[0])
        return prepared

    def render(self, prepared: Prepared) -> tuple[Tensor, dict[str, Tensor]]:
        """Generated waveforms (B, S), and the loss of the pitch they were made with."""
        vocoder, mel = self.modules["vocoder"], prepared.tensors["mel"]
        assert isinstance(vocoder, HiFT)
        state = vocoder.init_exact(mel.shape[0])
        state.oscillators.next_sample = prepared.tensors["first_sample"]
        pitch = vocoder.pitch(mel.transpose(1, 2), state.pitch, flush=True)
        excitation = vocoder.source(pitch.detach(), state.oscillators, flush=True)
        generated = vocoder.decode(mel, excitation, state, flush=True)
        return generated, {"vocoder/pitch": pitch_loss(pitch, prepared.tensors["pitch"])}
