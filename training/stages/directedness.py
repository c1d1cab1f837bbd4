"""Stage directedness: whether speech is meant for the device, by its sound.

    tokenlm train directedness data.train=… data.valid=…

Rows of the manifests say it: `"directed": true` or `false`.

Shapes: B batch, S samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.checkpoint.component import save_component
from tokenlm.config import ConfigError
from tokenlm.models.directedness import AcousticDirectedness, AcousticDirectednessConfig
from training.config import RunConfig
from training.data.augment import AugmentConfig
from training.data.collate import pad_waveforms
from training.data.dataset import AudioItem, UtteranceDataset
from training.data.split import DataConfig, open_split, rejects_file
from training.loop.task import Phase, Prepared, StepInfo, Task
from training.losses.scores import equal_error


@dataclass(frozen=True, kw_only=True)
class DirectednessStageConfig(RunConfig):
    """Configuration of the stage."""

    data: DataConfig
    model: AcousticDirectednessConfig = field(default_factory=AcousticDirectednessConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


class DirectednessTask(Task):
    """Trains an `AcousticDirectedness`."""

    name = "directedness"

    def __init__(self, config: DirectednessStageConfig) -> None:
        self.config = config
        self._datasets: dict[str, UtteranceDataset | None] = {}

    def build(self) -> None:
        """See `Task`.

        Raises:
            ConfigError: a row does not say whether it is directed, or all say the same.
        """
        config = self.config
        for split in ("train", "valid"):
            augmentation = config.augment if split == "train" else None
            found = open_split(
                config.data,
                split,
                config.model.fbank.sample_rate,
                augmentation,
                rejects=rejects_file(config),
            )
            self._datasets[split] = found
            if found is None:
                continue
            labels = {row.extra.get("directed") for row in found.utterances}
            if not labels <= {True, False}:
                raise ConfigError(
                    f"data.{split}: every row says whether it is meant for the device: "
                    '"directed": true or false'
                )
            if split == "train" and len(labels) < 2:
                raise ConfigError(f"data.{split}: all rows have the same `directed`")
        self.modules = {"directedness": AcousticDirectedness(config.model)}

    def dataset(self, split: str) -> UtteranceDataset | None:
        """See `Task`."""
        return self._datasets[split]

    def collate(self, items: list[AudioItem]) -> dict[str, Tensor]:
        """See `Task`."""
        waveform, lengths = pad_waveforms([item.waveform for item in items])
        directed = torch.tensor([bool(item.utterance.extra["directed"]) for item in items])
        return {"waveform": waveform, "lengths": lengths, "directed": directed}

    def prepare(self, batch: dict[str, Tensor], step: StepInfo) -> Prepared:
        """See `Task`."""
        counts = {"directedness/directed": float(len(batch["directed"]))}
        return Prepared(tensors=dict(batch), counts=counts)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("tell", ("directedness",), self._losses)]

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors = prepared.tensors
        logits = self.modules["directedness"](tensors["waveform"], tensors["lengths"])
        labels = tensors["directed"].float()
        loss = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return {"directedness/directed": loss}

    def evaluate(
        self, batches: Iterable[dict[str, Tensor]], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Equal error rate of directed and other recordings."""
        logits: list[Tensor] = []
        labels: list[Tensor] = []
        for batch in batches:
            logits.append(modules["directedness"](batch["waveform"], batch["lengths"]).cpu())
            labels.append(batch["directed"].cpu())
        found, directed = torch.cat(logits).double(), torch.cat(labels)
        wrong = ((found > 0) != directed).float()
        rate = equal_error(found[directed].numpy(), found[~directed].numpy())
        return {"error_rate": float(wrong.mean()), "equal_error_rate": rate}

    def export(self, folder: Path) -> None:
        """Writes the component `directedness`."""
        save_component(
            folder / "directedness",
            kind="directedness",
            config=self.config.model,
            state_dict=self.modules["directedness"].state_dict(),
            dtype=torch.float16,
        )
