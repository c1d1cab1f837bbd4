"""Stage voice_isolator: a mask that keeps the nearest voice of a recording.

    tokenlm train voice_isolator

Clean speech is laid under noise, other voices and rooms while it is read; the target is its direct
sound. Shapes: B batch, S samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenlm.checkpoint.component import save_component
from tokenlm.models.enhancer import VoiceIsolator, VoiceIsolatorConfig
from training.config import RunConfig
from training.data.augment import AugmentConfig
from training.data.degraded import DegradedCrops
from training.data.split import DataConfig, open_split, rejects_file
from training.loop.task import Phase, Prepared, StepInfo, Task
from training.loop.tracking import write_audio_sample
from training.losses.enhancement import compressed_spectral_loss, si_sdr

LOSSES: tuple[str, ...] = ("isolator/magnitude", "isolator/spectrum", "isolator/distortion")


@dataclass(frozen=True, kw_only=True)
class VoiceIsolatorStageConfig(RunConfig):
    """Configuration of the stage."""

    data: DataConfig
    model: VoiceIsolatorConfig = field(default_factory=VoiceIsolatorConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What is done to the clean speech, and what validation hears."""
    crop_seconds: float = 3.0
    """Length of a training crop."""
    n_fft: int = 960
    """Samples of a spectral frame of the losses."""
    max_si_sdr: float = 30.0
    """In dB: crops that are cleaner do not count for the loss of distortion."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_seconds <= 0:
            raise ValueError(f"crop_seconds must be positive, not {self.crop_seconds}")


class VoiceIsolatorTask(Task):
    """Trains a `VoiceIsolator`."""

    name = "voice_isolator"

    def __init__(self, config: VoiceIsolatorStageConfig) -> None:
        self.config = config
        self._valid: DegradedCrops | None = None

    def build(self) -> None:
        """See `Task`."""
        self.modules = {"voice_isolator": VoiceIsolator(self.config.model)}

    def dataset(self, split: str) -> DegradedCrops | None:
        """See `Task`."""
        config = self.config
        rate = config.model.sample_rate
        utterances = open_split(config.data, split, rate, rejects=rejects_file(config))
        if utterances is None:
            return None
        crops = DegradedCrops(utterances, round(config.crop_seconds * rate), config.augment)
        if split == "valid":
            self._valid = crops
        return crops

    def collate(self, items: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """See `Task`."""
        noisy, target = (torch.stack(part) for part in zip(*items, strict=True))
        return {"noisy": noisy, "target": target}

    def prepare(self, batch: dict[str, Tensor], step: StepInfo) -> Prepared:
        """See `Task`."""
        counts = dict.fromkeys(LOSSES, float(batch["noisy"].shape[0]))
        return Prepared(tensors=dict(batch), counts=counts)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("isolate", ("voice_isolator",), self._losses)]

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        noisy, target = prepared.tensors["noisy"], prepared.tensors["target"]
        estimate = self.modules["voice_isolator"](noisy)
        n_fft = self.config.n_fft
        magnitude, spectrum = compressed_spectral_loss(estimate, target, n_fft, n_fft // 4)
        distortion = -si_sdr(estimate, target).clamp(max=self.config.max_si_sdr)
        # A silent crop has no direction that an estimate could keep.
        heard = target.square().mean(dim=1) > 1e-9
        return {
            "isolator/magnitude": magnitude,
            "isolator/spectrum": spectrum,
            "isolator/distortion": (distortion * heard).sum(),
        }

    def evaluate(
        self, batches: Iterable[dict[str, Tensor]], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Mean SI-SDR in dB of the degraded speech, of what is made of it, and the gain."""
        before: list[Tensor] = []
        after: list[Tensor] = []
        for batch in batches:
            estimate = modules["voice_isolator"](batch["noisy"])
            before.append(si_sdr(batch["noisy"], batch["target"]).cpu())
            after.append(si_sdr(estimate, batch["target"]).cpu())
        limit = self.config.max_si_sdr
        first, second = torch.cat(before), torch.cat(after)
        bad = first < limit  # crops that were left clean have nothing to gain
        if not bool(bad.any()):
            bad = torch.ones_like(bad)
        gain = (second - first)[bad]
        return {
            "si_sdr_noisy": float(first[bad].mean()),
            "si_sdr": float(second[bad].mean()),
            "si_sdr_gain": float(gain.mean()),
        }

    def samples(self, folder: Path) -> None:
        """Three validation crops: noisy, isolated, clean."""
        if self._valid is None:
            return
        rate = self.config.model.sample_rate
        for index in range(min(3, len(self._valid))):
            noisy, target = self._valid[index]
            isolated = self.modules["voice_isolator"](noisy[None].to(self.device))[0].cpu()
            sounds: dict[str, Any] = {"noisy": noisy, "isolated": isolated, "clean": target}
            for name, sound in sounds.items():
                write_audio_sample(folder / f"{index}-{name}.wav", sound, rate)

    def export(self, folder: Path) -> None:
        """Writes the component `voice_isolator`."""
        save_component(
            folder / "voice_isolator",
            kind="voice_isolator",
            config=self.config.model,
            state_dict=self.modules["voice_isolator"].state_dict(),
            dtype=torch.float16,
        )
