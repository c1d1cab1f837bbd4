"""Stage phrase_checker: phones by CTC, and whether given phrases are said.

    tokenlm train phrase_checker data.train=… phrases='[hey token, token]'

Without phrases it learns to read phones, of which any phrase is made; with them, from such a
checker (`initial`), it learns the branch of these phrases together with CTC on a little data.

Shapes: B batch, S samples, L phones of a text, R phrases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn

from tokenlm.checkpoint import resolve
from tokenlm.checkpoint.component import save_component
from tokenlm.models.phrase_checker import (
    PLACES_PER_FRAME,
    PhraseChecker,
    PhraseCheckerConfig,
)
from tokenlm.models.token_recognizer import greedy_ctc
from tokenlm.text.tokenizer_config import read_tokenizer_config
from tokenlm.text.tokenizers import PhonemeTokenizer
from training.config import RunConfig
from training.data.augment import AugmentConfig
from training.data.collate import pad_tokens, pad_waveforms
from training.data.dataset import UtteranceDataset
from training.data.phrases import contains, normal_phrase
from training.data.split import DataConfig, open_split, rejects_file
from training.data.table import Table
from training.data.texts import normalize_texts, number_texts
from training.loop.task import Phase, Prepared, StepInfo, Task
from training.losses.phrases import branch_loss
from training.losses.recognition import attention_loss, ctc_loss


@dataclass(frozen=True, kw_only=True)
class PhraseCheckerStageConfig(RunConfig):
    """Configuration of the stage."""

    data: DataConfig
    text_tokenizer: Path | None = None
    """Folder of a text tokenizer of phonemes; None takes that of mini-en. Its phones are those of
    the model, whatever `model.phones` says."""
    phrases: tuple[str, ...] = ()
    """Phrases whose branch is learned; a row has one of them where its phones are in those of its
    text."""
    model: PhraseCheckerConfig = field(default_factory=PhraseCheckerConfig)
    num_decoder_layers: int = 1
    """Layers of the attention decoder, which is trained along and not exported."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class PhraseItem:
    """A recording, and what is said in it."""

    waveform: Tensor
    """(S,)"""
    phones: Sequence[int]
    """Indices of the model's phones, 1 and up."""
    has_phrase: tuple[bool, ...]
    """Of each phrase."""


class PhraseItems:
    """Map-style dataset of `PhraseItem`s; `draw` augments their waveforms."""

    def __init__(
        self, recordings: UtteranceDataset, phones: Table, phrases: Sequence[Sequence[int]]
    ) -> None:
        """Take recordings, the numbers of their phones, and those of the phrases."""
        self._recordings, self._phones, self._phrases = recordings, phones, phrases
        self.durations: np.ndarray = recordings.durations

    def __len__(self) -> int:
        return len(self._recordings)

    def __getitem__(self, index: int) -> PhraseItem:
        return self._item(index, self._recordings[index].waveform)

    def draw(self, index: int, generator: torch.Generator) -> PhraseItem:
        """Recording `index`, augmented."""
        return self._item(index, self._recordings.draw(index, generator).waveform)

    def phones(self, index: int) -> list[int]:
        """Numbers of the phones of a recording."""
        return list(self._phones[index]["numbers"])

    def aligned(self, index: int) -> Sequence[tuple[str, float]]:
        """The aligned phones that the manifest has of a recording, each with its end in seconds."""
        return self._recordings.utterances[index].phones or ()

    def has_phrase(self, index: int) -> tuple[bool, ...]:
        """Which of the phrases a recording's text has."""
        phones = self.phones(index)
        return tuple(contains(phones, phrase) for phrase in self._phrases)

    def _item(self, index: int, waveform: Tensor) -> PhraseItem:
        return PhraseItem(waveform, self.phones(index), self.has_phrase(index))


def load_pronunciation(folder: Path | None) -> tuple[Path, PhonemeTokenizer]:
    """The text tokenizer of a config and its folder; that of mini-en where it names none.

    Raises:
        ValueError: it has no phones.
    """
    folder = Path(resolve("mini-en")) / "text_tokenizer" if folder is None else folder
    if read_tokenizer_config(folder).kind != "phonemes":
        raise ValueError(f"text_tokenizer: {folder} has no phones; give one of phonemes")
    return folder, PhonemeTokenizer.from_folder(folder)


def open_items(
    data: DataConfig,
    split: str,
    tokenizer: PhonemeTokenizer,
    folder: Path,
    phrases: Sequence[str],
    augmentation: AugmentConfig | None,
    rejects: Path | None,
) -> PhraseItems | None:
    """The recordings of a split with their phones; None where the config names none.

    Args:
        data: where they are.
        split: "train" or "valid".
        tokenizer: knows their phones.
        folder: of the tokenizer.
        phrases: normalised words.
        augmentation: of "train".
        rejects: file of rows that cannot be used.
    """
    found = open_split(data, split, 16_000, augmentation, rejects=rejects)
    if found is None:
        return None
    numbers = {phone: n for n, phone in enumerate(tokenizer.sounds, start=1)}
    table = found.utterances.table
    normalizer = read_tokenizer_config(folder).normalizer
    phones = number_texts(
        normalize_texts(table, normalizer, data.num_processes),
        "phones",
        lambda text: [numbers[phone] for phone in tokenizer.pronounce(text)],
        folder,
        data.num_processes,
    )
    wanted = [[numbers[phone] for phone in tokenizer.pronounce(phrase)] for phrase in phrases]
    return PhraseItems(found, phones, wanted)


class PhraseCheckerTask(Task):
    """Trains a `PhraseChecker`."""

    name = "phrase_checker"

    def __init__(self, config: PhraseCheckerStageConfig) -> None:
        self.config = config
        self._datasets: dict[str, PhraseItems | None] = {}

    def build(self) -> None:
        """See `Task`."""
        config = self.config
        phrases = tuple(normal_phrase(phrase) for phrase in config.phrases)
        folder, tokenizer = load_pronunciation(config.text_tokenizer)
        for split in ("train", "valid"):
            self._datasets[split] = open_items(
                config.data,
                split,
                tokenizer,
                folder,
                phrases,
                config.augment if split == "train" else None,
                rejects_file(config),
            )
        train = self._datasets["train"]
        assert train is not None
        self.model_config = replace(
            config.model,
            phones=tokenizer.sounds,
            phrases=phrases,
            num_decoder_layers=config.num_decoder_layers,
        )
        self.modules = {"phrase_checker": PhraseChecker(self.model_config)}

    def dataset(self, split: str) -> PhraseItems | None:
        """See `Task`."""
        return self._datasets[split]

    def collate(self, items: list[PhraseItem]) -> dict[str, Tensor]:
        """See `Task`."""
        waveform, lengths = pad_waveforms([item.waveform for item in items])
        phones, num_phones = pad_tokens([item.phones for item in items])
        return {
            "waveform": waveform,
            "lengths": lengths,
            "phones": phones,
            "num_phones": num_phones,
            "has_phrase": torch.tensor([item.has_phrase for item in items], dtype=torch.bool),
        }

    def prepare(self, batch: dict[str, Tensor], step: StepInfo) -> Prepared:
        """See `Task`."""
        count = float(batch["num_phones"].sum())
        counts = {"checker/ctc": count}
        if self.model_config.num_decoder_layers:
            counts["checker/attention"] = count + batch["num_phones"].shape[0]
        if self.model_config.phrases:
            counts["checker/branch"] = float(batch["has_phrase"].numel())
        return Prepared(tensors=dict(batch), counts=counts)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("check", ("phrase_checker",), self._losses)]

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors, checker = prepared.tensors, self.modules["phrase_checker"]
        assert isinstance(checker, PhraseChecker)
        hidden, mask = checker(tensors["waveform"], tensors["lengths"])
        phones, num_phones = tensors["phones"], tensors["num_phones"]
        num_places = mask.sum(dim=1) * PLACES_PER_FRAME
        log_probs = checker.phone_log_probs(hidden)
        losses = {"checker/ctc": ctc_loss(log_probs, phones, num_places, num_phones).sum()}
        if checker.config.num_decoder_layers:
            logits = checker.decode_logits(hidden, phones, mask)
            losses["checker/attention"] = attention_loss(logits, phones, num_phones)
        if checker.config.phrases:
            branch = checker.phrase_log_probs(hidden)
            losses["checker/branch"] = branch_loss(branch, tensors["has_phrase"], mask)
        return losses

    def evaluate(
        self, batches: Iterable[dict[str, Tensor]], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Phone error rate, and of phrases the share of recordings that the branch gets wrong."""
        checker = modules["phrase_checker"]
        assert isinstance(checker, PhraseChecker)
        errors = count = 0
        wrong: list[Tensor] = []
        for batch in batches:
            hidden, mask = checker(batch["waveform"], batch["lengths"])
            best = checker.phone_log_probs(hidden).argmax(dim=-1)
            ends = (mask.sum(dim=1) * PLACES_PER_FRAME).tolist()
            for row, end, said in zip(best, ends, batch["phones"], strict=True):
                target = said[said > 0].tolist()
                errors += Levenshtein.distance(target, greedy_ctc(row[:end].tolist()))
                count += len(target)
            if checker.config.phrases:
                units = checker.phrase_log_probs(hidden)[..., 0]
                found = units.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
                wrong.append((found > float(np.log(0.5))) != batch["has_phrase"])
        metrics = {"phone_error_rate": errors / max(count, 1)}
        if wrong:
            metrics["branch_error_rate"] = float(torch.cat(wrong).float().mean())
        return metrics

    def export(self, folder: Path) -> None:
        """Writes the component `phrase_checker`, without the attention decoder."""
        checker = self.modules["phrase_checker"]
        assert isinstance(checker, PhraseChecker)
        checker = checker.without_decoder()
        save_component(
            folder / "phrase_checker",
            kind="phrase_checker",
            config=checker.config,
            state_dict=checker.state_dict(),
            dtype=torch.float16,
        )

    def state(self) -> dict[str, Any]:
        """See `Task`."""
        return {
            "phones": list(self.model_config.phones),
            "phrases": list(self.model_config.phrases),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Task`.

        Raises:
            ValueError: the run began with other phones or phrases.
        """
        if state != self.state():
            raise ValueError(
                "the run began with other phones or phrases; give those it began with, or a new run"
            )
