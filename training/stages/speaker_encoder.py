"""Stage speaker_encoder: who speaks, learned from speaker labels with a margin.

    tokenlm train speaker_encoder

Shapes: B batch, S samples, E embedding channels, K speakers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tokenlm.checkpoint.component import save_component
from tokenlm.config import ConfigError
from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from training.config import RunConfig
from training.data.augment import AugmentConfig
from training.data.collate import pad_waveforms
from training.data.dataset import AudioItem, UtteranceDataset
from training.data.split import DataConfig, open_split, rejects_file
from training.loop.task import Phase, Prepared, StepInfo, Task
from training.losses.margin import margin_softmax_loss, sphereface2_bias, sphereface2_loss
from training.losses.scores import equal_error


@dataclass(frozen=True, kw_only=True)
class SpeakerEncoderStageConfig(RunConfig):
    """Configuration of the stage."""

    data: DataConfig
    model: SpeakerEncoderConfig = field(default_factory=SpeakerEncoderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: Literal["margin_softmax", "sphereface2"] = "margin_softmax"
    """Which of many speakers it is, or for each speaker whether it is they."""
    margin: float = 0.2
    """Radians; of `sphereface2` a difference of cosines."""
    margin_warmup_steps: int = 500
    """The margin grows from 0 over these steps."""
    scale: float = 30.0
    positive_share: float = 0.7
    """Weight of the own speaker against that of all others, of `sphereface2` alone."""
    similarity_power: float = 3.0
    """Exponent that spreads similarities, of `sphereface2` alone."""
    min_crop_seconds: float = 1.0
    max_crop_seconds: float = 3.0
    curriculum_steps: int = 0
    """The shortest crops are as long as the longest at first, and get to `min_crop_seconds` over
    these steps: long recordings, which are easier, come first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_crop_seconds <= self.max_crop_seconds:
            raise ConfigError("min_crop_seconds must be above 0 and at most max_crop_seconds.")
        if not 0 < self.positive_share < 1:
            raise ConfigError("positive_share must be between 0 and 1.")
        if self.similarity_power <= 0 or self.scale <= 0:
            raise ConfigError("similarity_power and scale must be above 0.")
        if self.curriculum_steps < 0:
            raise ConfigError("curriculum_steps must not be negative.")


class _Centres(nn.Linear):
    """Centres of the speakers (K, E) with the one bias of `sphereface2_loss`."""

    def __init__(self, config: SpeakerEncoderStageConfig, num_speakers: int) -> None:
        super().__init__(config.model.embedding_dim, num_speakers, bias=False)
        start = sphereface2_bias(
            num_speakers,
            margin=config.margin,
            scale=config.scale,
            positive_share=config.positive_share,
            power=config.similarity_power,
        )
        self.bias = nn.Parameter(torch.tensor([start]))


class SpeakerEncoderTask(Task):
    """Trains a `SpeakerEncoder`."""

    name = "speaker_encoder"

    def __init__(self, config: SpeakerEncoderStageConfig) -> None:
        self.config = config
        self._datasets: dict[str, UtteranceDataset | None] = {}
        self._speakers: dict[str, int] = {}

    def build(self) -> None:
        """See `Task`."""
        config = self.config
        for split in ("train", "valid"):
            self._datasets[split] = open_split(
                config.data,
                split,
                config.model.mel.sample_rate,
                config.augment,
                rejects=rejects_file(config),
            )
        train = self._datasets["train"]
        assert train is not None
        names, _ = train.utterances.table.coded("speaker")
        if len(names) < 2:
            raise ValueError(f"{config.data.train}: a speaker encoder needs at least two speakers")
        self._speakers = {name: n for n, name in enumerate(names) if name is not None}
        centres = (
            _Centres(config, len(names))
            if config.loss == "sphereface2"
            else nn.Linear(config.model.embedding_dim, len(names), bias=False)
        )
        self.modules = {"speaker_encoder": SpeakerEncoder(config.model), "centres": centres}

    def dataset(self, split: str) -> UtteranceDataset | None:
        """See `Task`."""
        return self._datasets[split]

    def collate(self, items: list[AudioItem]) -> dict[str, Any]:
        """See `Task`."""
        waveform, lengths = pad_waveforms([item.waveform for item in items])
        speakers = [item.utterance.speaker for item in items]
        labels = torch.tensor([self._speakers.get(speaker, -1) for speaker in speakers])
        return {"waveform": waveform, "lengths": lengths, "labels": labels, "speakers": speakers}

    def prepare(self, batch: dict[str, Any], step: StepInfo) -> Prepared:
        """Cuts a random crop out of every utterance."""
        config = self.config
        rate = config.model.mel.sample_rate
        shortest = self._min_crop_seconds(step.step)
        crops = []
        for index, length in enumerate(batch["lengths"].tolist()):
            draws = torch.rand(2, generator=step.generator(index))
            span = config.max_crop_seconds - shortest
            size = min(int((shortest + float(draws[0]) * span) * rate), length)
            start = int(float(draws[1]) * (length - size))
            crops.append(batch["waveform"][index, start : start + size])
        waveform, lengths = pad_waveforms(crops)
        ramp = min(step.step / max(config.margin_warmup_steps, 1), 1.0)
        tensors = {
            "waveform": waveform,
            "lengths": lengths.to(waveform.device),
            "labels": batch["labels"],
            "margin": config.margin * ramp,
        }
        return Prepared(tensors=tensors, counts={"speaker/margin": float(len(crops))})

    def _min_crop_seconds(self, step: int) -> float:
        config = self.config
        if step >= config.curriculum_steps:
            return config.min_crop_seconds
        rest = 1.0 - step / config.curriculum_steps
        return config.min_crop_seconds + rest * (config.max_crop_seconds - config.min_crop_seconds)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("identify", ("speaker_encoder", "centres"), self._losses)]

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors = prepared.tensors
        embedding = self.modules["speaker_encoder"](tensors["waveform"], tensors["lengths"])
        centres = self.modules["centres"]
        assert isinstance(centres, nn.Linear)
        config = self.config
        labels, margin = tensors["labels"], tensors["margin"]
        if config.loss == "sphereface2":
            loss = sphereface2_loss(
                embedding,
                centres.weight,
                centres.bias,
                labels,
                margin=margin,
                scale=config.scale,
                positive_share=config.positive_share,
                power=config.similarity_power,
            )
        else:
            loss = margin_softmax_loss(
                embedding, centres.weight, labels, margin=margin, scale=config.scale
            )
        return {"speaker/margin": loss}

    def evaluate(
        self, batches: Iterable[dict[str, Any]], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Equal error rate over all pairs of validation utterances."""
        embeddings, speakers = [], []
        for batch in batches:
            embeddings.append(modules["speaker_encoder"](batch["waveform"], batch["lengths"]))
            speakers += batch["speakers"]
        return {"equal_error_rate": equal_error_rate(torch.cat(embeddings).cpu(), speakers)}

    def export(self, folder: Path) -> None:
        """Writes the component `speaker_encoder`."""
        save_component(
            folder / "speaker_encoder",
            kind="speaker_encoder",
            config=self.config.model,
            state_dict=self.modules["speaker_encoder"].state_dict(),
            dtype=torch.float16,
        )


def equal_error_rate(embeddings: Tensor, speakers: list[str]) -> float:
    """Where misses and false alarms are equally frequent, over all pairs.

    Args:
        embeddings: (B, E) unit vectors.
        speakers: who speaks in each.

    Returns:
        The rate; NaN where there are no pairs of one speaker, or of two.
    """
    scores = (embeddings @ embeddings.T).double().numpy()
    same = np.array([[a == b for b in speakers] for a in speakers])
    upper = np.triu(np.ones_like(same), k=1)
    own, other = scores[same & upper], scores[~same & upper]
    return equal_error(own, other)
