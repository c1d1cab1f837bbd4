"""Stage vocoder: mel spectrogram to waveform, spectral losses first, then adversarial ones.

    tokenlm train vocoder

Shapes: B batch, S samples, T mel frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenlm.audio.mel import MelConfig, MelSpectrogram
from tokenlm.checkpoint.component import save_component
from tokenlm.checkpoint.registry import KINDS
from tokenlm.models.vocoder import HiFTConfig, VocoderConfig
from training.config import OptimConfig, RunConfig
from training.data.dataset import UtteranceDataset
from training.data.split import DataConfig, open_split, rejects_file
from training.loop.task import Phase, Prepared, StepInfo, Task, frozen
from training.loop.tracking import write_audio_sample, write_mel_picture
from training.losses.adversarial import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    relative_loss,
)
from training.losses.discriminators import WaveformDiscriminator
from training.losses.spectral import mel_loss, stft_loss
from training.stages.lora import (
    LoraSettings,
    add_lora_to_weights,
    merged_state,
    with_additions,
)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Sizes of the discriminators."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (16, 32, 64, 128)
    spectrum_channels: int = 16


@dataclass(frozen=True, kw_only=True)
class WaveformConfig(RunConfig):
    """Configuration that the stages of all kinds of vocoders share."""

    data: DataConfig
    model: VocoderConfig | HiFTConfig
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    lora: LoraSettings | None = None
    """Train low-rank additions to the weights of the vocoder in place of all of them."""
    discriminator_optim: OptimConfig | None = None
    """Optimizer of the discriminators; None takes `optim`."""
    crop_frames: int = 48
    """Mel frames of a training crop."""
    adversarial_start_step: int = 10_000
    """Discriminators are listened to from this step on."""
    discriminator_start_step: int | None = None
    """Discriminators train from this step on; None is `adversarial_start_step`."""
    relative_limit: float = 0.0
    """Limit of the relative adversarial losses; 0 leaves them out."""
    resolutions: tuple[tuple[int, int], ...] = ((256, 64), (512, 128), (1024, 256), (2048, 512))
    """(n_fft, hop_length) of the STFT losses; without any there are none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relative_limit < 0:
            raise ValueError(f"relative_limit must not be negative, got {self.relative_limit}")
        if (self.discriminator_start_step or 0) > self.adversarial_start_step:
            raise ValueError(
                "discriminator_start_step must not come after adversarial_start_step: untrained "
                "discriminators have nothing to say"
            )


@dataclass(frozen=True, kw_only=True)
class VocoderStageConfig(WaveformConfig):
    """Configuration of the stage."""

    model: VocoderConfig = field(default_factory=VocoderConfig)


class VocoderTask(Task):
    """Trains the vocoder of a kind."""

    name = "vocoder"
    kind = "vocoder"
    """Of the component that is trained."""

    def __init__(self, config: WaveformConfig) -> None:
        self.config = config
        self.mel = MelSpectrogram(config.model.mel)
        full_band = MelConfig(
            sample_rate=config.model.mel.sample_rate,
            n_fft=1024,
            win_length=1024,
            hop_length=256,
            num_mels=80,
            fmax=None,
        )
        self.loss_mel = MelSpectrogram(full_band)
        self._valid: UtteranceDataset | None = None

    def build(self) -> None:
        """See `Task`."""
        sizes = self.config.discriminator
        self.modules = {
            "vocoder": KINDS[self.kind][1](self.config.model),
            "discriminator": WaveformDiscriminator(
                periods=sizes.periods,
                period_channels=sizes.period_channels,
                spectrum_channels=sizes.spectrum_channels,
            ),
        }

        if self.config.lora is not None:
            add_lora_to_weights(self.modules["vocoder"], self.config.lora)

    def adapt_initial(self, module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Task`: plain weights also fit a module with LoRA."""
        return with_additions(module, state)

    def dataset(self, split: str) -> _Crops | None:
        """See `Task`."""
        config = self.config
        rate, rejects = config.model.mel.sample_rate, rejects_file(config)
        utterances = open_split(config.data, split, rate, rejects=rejects)
        if utterances is None:
            return None
        if split == "valid":
            self._valid = utterances
        return _Crops(utterances, config)

    def collate(self, items: list[Tensor]) -> Tensor:
        """See `Task`."""
        return torch.stack(items)

    def prepare(self, batch: Tensor, step: StepInfo) -> Prepared:
        """See `Task`."""
        names = ["vocoder/mel", "vocoder/convergence", "vocoder/log_magnitude"]
        names += ["vocoder/adversarial", "vocoder/feature_matching", "vocoder/discriminator"]
        names += ["vocoder/relative", "vocoder/discriminator_relative"]
        self._to(batch.device)
        tensors: dict[str, Any] = {"waveform": batch, "mel": self.mel(batch)}
        tensors["adversarial"] = step.step >= self.config.adversarial_start_step
        return Prepared(tensors=tensors, counts=dict.fromkeys(names, float(batch.shape[0])))

    def _to(self, device: torch.device) -> None:
        self.mel.to(device)
        self.loss_mel.to(device)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        config = self.config
        starts_at = config.discriminator_start_step
        if starts_at is None:
            starts_at = config.adversarial_start_step
        return [
            Phase(
                "discriminate",
                ("discriminator",),
                self._discriminate,
                starts_at=starts_at,
                optim=config.discriminator_optim,
            ),
            Phase("generate", ("vocoder",), self._generate),
        ]

    def render(self, prepared: Prepared) -> tuple[Tensor, dict[str, Tensor]]:
        """Generated waveforms (B, S), and losses of what the vocoder makes on the way to them."""
        vocoder, mel, model = self.modules["vocoder"], prepared.tensors["mel"], self.config.model
        if isinstance(model, VocoderConfig) and model.chunk_frames:
            return vocoder(mel, original=prepared.tensors["waveform"]), {}
        return vocoder(mel), {}

    def _discriminate(self, prepared: Prepared) -> dict[str, Tensor]:
        waveform = prepared.tensors["waveform"]
        with torch.no_grad():
            generated, _ = self.render(prepared)
        real, _ = self.modules["discriminator"](waveform)
        fake, _ = self.modules["discriminator"](generated)
        losses = {"vocoder/discriminator": discriminator_loss(real, fake)}
        limit = self.config.relative_limit
        if limit:
            losses["vocoder/discriminator_relative"] = relative_loss(real, fake, limit)
        return losses

    def _generate(self, prepared: Prepared) -> dict[str, Tensor]:
        waveform = prepared.tensors["waveform"]
        generated, losses = self.render(prepared)
        losses["vocoder/mel"] = mel_loss(self.loss_mel(generated), self.loss_mel(waveform))
        if self.config.resolutions:
            convergence, log_magnitude = stft_loss(generated, waveform, self.config.resolutions)
            losses["vocoder/convergence"] = convergence
            losses["vocoder/log_magnitude"] = log_magnitude
        if prepared.tensors["adversarial"]:
            # Apart from the generated: no gradient runs through what the real one looks like.
            with torch.no_grad():
                real_scores, real = self.modules["discriminator"](waveform)
            with frozen(self.modules["discriminator"]):
                scores, features = self.modules["discriminator"](generated)
            losses["vocoder/adversarial"] = generator_loss(scores)
            limit = self.config.relative_limit
            if limit:
                losses["vocoder/relative"] = relative_loss(scores, real_scores, limit)
            losses["vocoder/feature_matching"] = feature_matching_loss(real, features)
        return losses

    def evaluate(
        self, batches: Iterable[Tensor], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Mean distance of log-mels between copy-synthesis and original."""
        total = count = 0.0
        for batch in batches:
            self._to(batch.device)
            generated = modules["vocoder"](self.mel(batch))
            total += float(mel_loss(self.loss_mel(generated), self.loss_mel(batch)))
            count += batch.shape[0]
        return {"mel_distance": total / max(count, 1)}

    def samples(self, folder: Path) -> None:
        """Copy-synthesis of three validation utterances, with pictures."""
        if self._valid is None:
            return
        for index in range(min(3, len(self._valid))):
            waveform = self._valid.waveform(index)[None]
            self._to(self.device)
            mel = self.mel(waveform.to(self.device))
            generated = self.modules["vocoder"](mel).cpu()
            rate = self.config.model.mel.sample_rate
            write_audio_sample(folder / f"{index}.wav", generated[0], rate)
            again = self.mel(generated.to(self.device))
            write_mel_picture(
                folder / f"{index}.png", {"original": mel[0].cpu(), "generated": again[0].cpu()}
            )

    def export(self, folder: Path) -> None:
        """Writes the component `vocoder`."""
        vocoder = self.modules["vocoder"]
        save_component(
            folder / "vocoder",
            kind=self.kind,
            config=self.config.model,
            state_dict=merged_state(vocoder),
            dtype=torch.float16,
        )


class _Crops:
    """Random crops of utterances (S,), shorter ones padded with zeros; the middle in validation."""

    def __init__(self, utterances: UtteranceDataset, config: WaveformConfig) -> None:
        self.utterances = utterances
        self.num_samples = config.crop_frames * config.model.mel.hop_length
        seconds = self.num_samples / config.model.mel.sample_rate
        self.durations = np.full(len(utterances), seconds)

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> Tensor:
        waveform = self.utterances.waveform(index)
        return self._crop(waveform, max(waveform.shape[0] - self.num_samples, 0) // 2)

    def draw(self, index: int, generator: torch.Generator) -> Tensor:
        """A crop at a random place."""
        waveform = self.utterances.waveform(index)
        room = max(waveform.shape[0] - self.num_samples, 0)
        start = int(torch.randint(room + 1, (1,), generator=generator))
        return self._crop(waveform, start)

    def _crop(self, waveform: Tensor, start: int) -> Tensor:
        crop = waveform[start : start + self.num_samples]
        return nn.functional.pad(crop, (0, self.num_samples - crop.shape[0]))
