"""Stage text_directedness: whether a text that has a phrase calls the device.

    tokenlm train text_directedness phrases='[hey token, token]'

Its texts are made of templates (`training.data.directed_texts`); real ones are given as `texts`.

Shapes: B batch, L characters.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.checkpoint.component import save_component
from tokenlm.config import ConfigError
from tokenlm.models.directedness import USES, TextDirectedness, TextDirectednessConfig
from training.config import RunConfig
from training.data.collate import pad_tokens
from training.data.directed_texts import draw_use, read_texts
from training.data.exclusion import evaluation_exclusion
from training.data.phrases import normal_phrase
from training.loop.task import Phase, Prepared, StepInfo, Task

logger = logging.getLogger(__name__)

NUM_VALID = 200


@dataclass(frozen=True, kw_only=True)
class TextDirectednessStageConfig(RunConfig):
    """Configuration of the stage."""

    phrases: tuple[str, ...]
    texts: Path | None = None
    """Texts (JSONL with `text` and `use`) to train on in place of those of templates."""
    valid_texts: Path | None = None
    """The same, to evaluate on; None takes templates and commands that training never sees."""
    num_texts: int = 4000
    """Texts of templates."""
    model: TextDirectednessConfig = field(default_factory=TextDirectednessConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.phrases or self.num_texts < 1:
            raise ConfigError("phrases and num_texts: at least one")


class LabelledTexts:
    """Map-style dataset of texts as characters, each with its use."""

    def __init__(self, texts: list[tuple[str, str]], model: TextDirectedness) -> None:
        """Take texts and uses; those without a letter are left out."""
        coded = [(model.encode(text), USES.index(use)) for text, use in texts]
        self._items = [item for item in coded if item[0]]
        # A character counts as a second, so that batches are filled evenly.
        self.durations = np.array([float(len(characters)) for characters, _ in self._items])

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[list[int], int]:
        return self._items[index]


def _without_evaluation(texts: list[tuple[str, str]], split: str) -> list[tuple[str, str]]:
    """Texts and uses but for those that `training.data.exclusion` keeps from all training.

    Raises:
        ConfigError: none is left.
    """
    exclusion = evaluation_exclusion()
    kept = [(text, use) for text, use in texts if not exclusion.excludes(text)]
    if len(kept) < len(texts):
        left_out = len(texts) - len(kept)
        logger.warning("%s: %d of %d texts are of test sets: left out", split, left_out, len(texts))
    if not kept:
        raise ConfigError(f"{split}: all texts are of test sets; none is left")
    return kept


class TextDirectednessTask(Task):
    """Trains a `TextDirectedness`."""

    name = "text_directedness"

    def __init__(self, config: TextDirectednessStageConfig) -> None:
        self.config = config
        self._datasets: dict[str, LabelledTexts] = {}

    def build(self) -> None:
        """See `Task`."""
        config = self.config
        model = TextDirectedness(config.model)
        phrases = [normal_phrase(phrase) for phrase in config.phrases]
        files = {"train": config.texts, "valid": config.valid_texts}
        for split, path in files.items():
            if path is not None:
                texts = read_texts(path)
            else:
                rng = random.Random(f"{split}:{config.seed}")
                count = config.num_texts if split == "train" else NUM_VALID
                held = split == "valid"
                texts = [draw_use(rng, phrases, is_heldout=held) for _ in range(count)]
            self._datasets[split] = LabelledTexts(_without_evaluation(texts, split), model)
        self.modules = {"text_directedness": model}

    def dataset(self, split: str) -> LabelledTexts:
        """See `Task`."""
        return self._datasets[split]

    def collate(self, items: list[tuple[list[int], int]]) -> dict[str, Tensor]:
        """See `Task`."""
        characters, _ = pad_tokens([characters for characters, _ in items])
        return {"characters": characters, "uses": torch.tensor([use for _, use in items])}

    def prepare(self, batch: dict[str, Tensor], step: StepInfo) -> Prepared:
        """See `Task`."""
        counts = {"text_directedness/use": float(len(batch["uses"]))}
        return Prepared(tensors=dict(batch), counts=counts)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("classify", ("text_directedness",), self._losses)]

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors = prepared.tensors
        log_probs = self.modules["text_directedness"](tensors["characters"])
        loss = functional.nll_loss(log_probs, tensors["uses"], reduction="sum")
        return {"text_directedness/use": loss}

    def evaluate(
        self, batches: Iterable[dict[str, Tensor]], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Share of the texts whose use is mistaken, of all and of each use."""
        wrong: list[Tensor] = []
        uses: list[Tensor] = []
        for batch in batches:
            best = modules["text_directedness"](batch["characters"]).argmax(dim=-1)
            wrong.append(best != batch["uses"])
            uses.append(batch["uses"])
        errors, labels = torch.cat(wrong).float(), torch.cat(uses)
        metrics = {"error_rate": float(errors.mean())}
        for number, use in enumerate(USES):
            if bool((labels == number).any()):
                metrics[f"error_rate/{use}"] = float(errors[labels == number].mean())
        return metrics

    def export(self, folder: Path) -> None:
        """Writes the component `text_directedness`."""
        save_component(
            folder / "text_directedness",
            kind="text_directedness",
            config=self.config.model,
            state_dict=self.modules["text_directedness"].state_dict(),
            dtype=torch.float16,
        )
