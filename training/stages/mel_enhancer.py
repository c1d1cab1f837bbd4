"""Stage mel_enhancer: a U-Net from the mel of noisy speech to that of clean speech.

    tokenlm train mel_enhancer voice_isolator=RUN/export/voice_isolator

With a voice isolator the net learns to mend what the isolator leaves, as it will be used.
Shapes: B batch, S samples, T mel frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from tokenlm.audio.mel import MelSpectrogram
from tokenlm.checkpoint.component import save_component
from tokenlm.checkpoint.registry import load_model
from tokenlm.models.enhancer import MelEnhancer, MelEnhancerConfig, VoiceIsolator
from tokenlm.models.vocoder import HiFT, Vocoder
from training.config import RunConfig
from training.data.augment import AugmentConfig
from training.data.degraded import DegradedCrops
from training.data.split import DataConfig, open_split, rejects_file
from training.loop.task import Phase, Prepared, StepInfo, Task
from training.loop.tracking import write_audio_sample, write_mel_picture
from training.losses.spectral import mel_loss


@dataclass(frozen=True, kw_only=True)
class MelEnhancerStageConfig(RunConfig):
    """Configuration of the stage."""

    data: DataConfig
    model: MelEnhancerConfig = field(default_factory=MelEnhancerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What is done to the clean speech, and what validation hears."""
    voice_isolator: Path | None = None
    """Component folder of the voice isolator that comes before; None gives the net the noise."""
    vocoder: Path | None = None
    """Component folder of a vocoder, to make the samples audible."""
    crop_frames: int = 128
    """Mel frames of a training crop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_frames < 1:
            raise ValueError(f"crop_frames must be positive, not {self.crop_frames}")


class MelEnhancerTask(Task):
    """Trains a `MelEnhancer`."""

    name = "mel_enhancer"

    def __init__(self, config: MelEnhancerStageConfig) -> None:
        self.config = config
        self.mel = MelSpectrogram(config.model.mel)
        self._isolator: VoiceIsolator | None = None
        self._valid: DegradedCrops | None = None

    def build(self) -> None:
        """See `Task`."""
        config = self.config
        self.modules = {"mel_enhancer": MelEnhancer(config.model)}
        if config.voice_isolator is not None:
            self._isolator = load_model(config.voice_isolator, VoiceIsolator)
            rate = self._isolator.config.sample_rate
            if rate != config.model.mel.sample_rate:
                raise ValueError(
                    f"voice_isolator: {config.voice_isolator} hears {rate} Hz, but model.mel has "
                    f"{config.model.mel.sample_rate} Hz"
                )

    def to(self, device: torch.device) -> None:
        """See `Task`."""
        super().to(device)
        self.mel.to(device)
        if self._isolator is not None:
            self._isolator.to(device)

    def dataset(self, split: str) -> DegradedCrops | None:
        """See `Task`."""
        config = self.config
        mel = config.model.mel
        utterances = open_split(config.data, split, mel.sample_rate, rejects=rejects_file(config))
        if utterances is None:
            return None
        crops = DegradedCrops(utterances, config.crop_frames * mel.hop_length, config.augment)
        if split == "valid":
            self._valid = crops
        return crops

    def collate(self, items: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """See `Task`."""
        noisy, target = (torch.stack(part) for part in zip(*items, strict=True))
        return {"noisy": noisy, "target": target}

    def prepare(self, batch: dict[str, Tensor], step: StepInfo) -> Prepared:
        """See `Task`."""
        noisy, target = self._mels(batch)
        counts = {"mel_enhancer/mel": float(noisy.shape[0])}
        return Prepared(tensors={"noisy": noisy, "target": target}, counts=counts)

    def _mels(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the net is given, and what it is to make of it, (B, T, M) each."""
        noisy = batch["noisy"]
        if self._isolator is not None:
            noisy = self._isolator(noisy)
        return self.mel(noisy), self.mel(batch["target"])

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("enhance", ("mel_enhancer",), self._losses)]

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        noisy, target = prepared.tensors["noisy"], prepared.tensors["target"]
        return {"mel_enhancer/mel": mel_loss(self.modules["mel_enhancer"](noisy), target)}

    def evaluate(
        self, batches: Iterable[dict[str, Tensor]], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Mean distance of log-mels to those of the clean speech, before and after."""
        before = after = count = 0.0
        for batch in batches:
            noisy, target = self._mels(batch)
            before += float(mel_loss(noisy, target))
            after += float(mel_loss(modules["mel_enhancer"](noisy), target))
            count += noisy.shape[0]
        count = max(count, 1)
        return {"mel_distance_before": before / count, "mel_distance": after / count}

    def samples(self, folder: Path) -> None:
        """Mels of three validation crops, and their sound if there is a vocoder."""
        if self._valid is None:
            return
        named = self.config.vocoder
        vocoder = load_model(named, Vocoder, HiFT) if named else None
        for index in range(min(3, len(self._valid))):
            batch = self.collate([self._valid[index]])
            batch = {name: part.to(self.device) for name, part in batch.items()}
            given, target = self._mels(batch)
            enhanced = self.modules["mel_enhancer"](given).cpu()
            mels = {"given": given[0].cpu(), "enhanced": enhanced[0], "clean": target[0].cpu()}
            write_mel_picture(folder / f"{index}.png", mels)
            if vocoder is not None:
                rate = vocoder.config.mel.sample_rate
                write_audio_sample(folder / f"{index}.wav", vocoder(enhanced)[0], rate)

    def export(self, folder: Path) -> None:
        """Writes the component `mel_enhancer`."""
        save_component(
            folder / "mel_enhancer",
            kind="mel_enhancer",
            config=self.config.model,
            state_dict=self.modules["mel_enhancer"].state_dict(),
            dtype=torch.float16,
        )
