"""Stage speech_tokenizer: a recogniser with a quantizer in its middle learns to read speech.

    tokenlm train speech_tokenizer

The quantizer is blended in after the recogniser has begun to learn: with rounding from the first
step CTC stays on its plateau (training/LOG.md). Where the manifest has aligned phones, a small
head reads them off single codes, which makes codes easy to predict from text.

Shapes: B batch, S samples, N tokens, C digits of a code, P phones, L characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.checkpoint.component import save_component
from tokenlm.models.speech_tokenizer import (
    FRAMES_PER_TOKEN,
    SpeechTokenizer,
    SpeechTokenizerConfig,
    codebook_usage,
)
from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.text.transcripts import decode_characters, encode_characters
from training.config import RunConfig
from training.data.augment import AugmentConfig
from training.data.collate import pad_tokens, pad_waveforms
from training.data.dataset import AudioItem, UtteranceDataset
from training.data.spectrum_masks import SpectrumMaskConfig, draw_spectrum_mask
from training.data.split import DataConfig, open_split, rejects_file
from training.data.texts import spell
from training.loop.task import Phase, Prepared, StepInfo, Task
from training.losses.code_usage import code_usage_loss
from training.losses.recognition import attention_loss, ctc_loss

LABELS_PER_TOKEN = 2
"""Phones are read at this many points of each token."""


@dataclass(frozen=True, kw_only=True)
class SpeechTokenizerStageConfig(RunConfig):
    """Configuration of the stage."""

    data: DataConfig
    model: SpeechTokenizerConfig = field(default_factory=SpeechTokenizerConfig)
    recognizer: TokenRecognizerConfig = field(default_factory=TokenRecognizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    spectrum_mask: SpectrumMaskConfig = field(default_factory=SpectrumMaskConfig)
    """What is hidden from the encoder in training; by default nothing."""
    blend_start_step: int = 500
    """Until this step the recogniser reads continuous digits."""
    blend_end_step: int = 1500
    """From this step on it reads rounded ones."""
    phone_head_dim: int = 128
    export_decoder: bool = True
    """Whether the exported recogniser keeps its attention decoder, which transcribing by CTC does
    not need."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.levels != self.recognizer.levels:
            raise ValueError(
                f"model.levels {self.model.levels} and recognizer.levels "
                f"{self.recognizer.levels} must be equal"
            )
        if not 0 <= self.blend_start_step <= self.blend_end_step:
            raise ValueError("blend_start_step must not be after blend_end_step")


def phone_labels(
    phones: Sequence[tuple[str, float]] | None,
    num_tokens: int,
    token_rate: int,
    index: Mapping[str, int],
) -> Tensor:
    """The phone at `LABELS_PER_TOKEN` evenly spread points of every token.

    Args:
        phones: (phone, end in seconds) in order, or None where the engine gave none.
        num_tokens: tokens of the utterance.
        token_rate: tokens per second.
        index: number of each phone.

    Returns:
        (N, LABELS_PER_TOKEN) integers, -1 where unknown.
    """
    labels = torch.full((num_tokens * LABELS_PER_TOKEN,), -1, dtype=torch.long)
    if not phones:
        return labels.view(num_tokens, LABELS_PER_TOKEN)
    ends = torch.tensor([end for _, end in phones], dtype=torch.float64)
    step = 1.0 / (token_rate * LABELS_PER_TOKEN)
    times = (torch.arange(labels.shape[0], dtype=torch.float64) + 0.5) * step
    which = torch.searchsorted(ends, times, right=True)
    known = which < len(phones)
    numbers = torch.tensor([index.get(phone, -1) for phone, _ in phones])
    labels[known] = numbers[which[known]]
    return labels.view(num_tokens, LABELS_PER_TOKEN)


def phone_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of phones summed over the known labels.

    Args:
        logits: (B, N, LABELS_PER_TOKEN * P).
        labels: (B, N, LABELS_PER_TOKEN), -1 where unknown.
    """
    by_label = logits.unflatten(2, (LABELS_PER_TOKEN, -1)).flatten(0, 2)
    return functional.cross_entropy(
        by_label.float(), labels.flatten(), ignore_index=-1, reduction="sum"
    )


class SpeechTokenizerTask(Task):
    """Trains `SpeechTokenizer` and `TokenRecognizer` together."""

    name = "speech_tokenizer"

    def __init__(self, config: SpeechTokenizerStageConfig) -> None:
        self.config = config
        self._datasets: dict[str, UtteranceDataset | None] = {}
        self._phones: dict[str, int] = {}

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
        valid = self._datasets["valid"]
        if valid is not None:  # an error in characters can be counted in these texts
            texts = valid.utterances.table
            spell(texts, config.recognizer.alphabet, "valid", config.data.max_reject_share)
        names = train.utterances.table.distinct_items("phones")
        self._phones = {phone: number for number, phone in enumerate(sorted(names))}
        digits = len(config.model.levels)
        num_outputs = LABELS_PER_TOKEN * max(len(names), 1)
        self.modules = {
            "speech_tokenizer": SpeechTokenizer(config.model),
            "token_recognizer": TokenRecognizer(config.recognizer),
            "phone_head": nn.Sequential(
                nn.Linear(digits, config.phone_head_dim),
                nn.GELU(),
                nn.Linear(config.phone_head_dim, num_outputs),
            ),
            "encoder_phone_head": nn.Linear(config.model.dim, num_outputs),
        }

    def dataset(self, split: str) -> UtteranceDataset | None:
        """See `Task`."""
        return self._datasets[split]

    def collate(self, items: list[AudioItem]) -> dict[str, Tensor]:
        """See `Task`."""
        model, alphabet = self.config.model, self.config.recognizer.alphabet
        waveform, lengths = pad_waveforms([item.waveform for item in items])
        characters, num_characters = pad_tokens(
            [encode_characters(item.utterance.text, alphabet) for item in items]
        )
        labels = [
            phone_labels(
                item.utterance.phones,
                item.waveform.shape[0] // model.samples_per_token,
                model.token_rate,
                self._phones,
            )
            for item in items
        ]
        return {
            "waveform": waveform,
            "lengths": lengths,
            "characters": characters,
            "num_characters": num_characters,
            "phones": nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-1),
        }

    def prepare(self, batch: dict[str, Tensor], step: StepInfo) -> Prepared:
        """See `Task`."""
        config = self.config
        span = max(config.blend_end_step - config.blend_start_step, 1)
        blend = min(max((step.step - config.blend_start_step) / span, 0.0), 1.0)
        counts = {
            "tokenizer/ctc": float(batch["num_characters"].sum()),
            "tokenizer/attention": float((batch["num_characters"] + 1).sum()),
            "tokenizer/phone": float((batch["phones"] >= 0).sum()),
            "tokenizer/encoder_phone": float((batch["phones"] >= 0).sum()),
            "tokenizer/code_usage": 1.0,
        }
        masks = {"spectrum_mask": self._spectrum_mask(batch["lengths"], step)}
        return Prepared(tensors={**batch, **masks, "blend": blend}, counts=counts)

    def _spectrum_mask(self, lengths: Tensor, step: StepInfo) -> Tensor | None:
        """True (B, T, M) where the encoder hears."""
        config, model = self.config.spectrum_mask, self.config.model
        if config.is_empty:
            return None
        masks = [
            draw_spectrum_mask(
                int(length) // model.samples_per_token * FRAMES_PER_TOKEN,
                model.mel.num_mels,
                model.mel.frame_rate,
                config,
                step.generator(item),
            )
            for item, length in enumerate(lengths.tolist())
        ]
        return nn.utils.rnn.pad_sequence(masks, batch_first=True).to(lengths.device)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("recognise", tuple(self.modules), self._losses)]

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors = prepared.tensors
        characters, num_characters = tensors["characters"], tensors["num_characters"]
        codes, before, num_tokens = self.modules["speech_tokenizer"](
            tensors["waveform"], tensors["lengths"], tensors["blend"], tensors["spectrum_mask"]
        )
        mask = torch.arange(codes.shape[1], device=codes.device)[None] < num_tokens[:, None]
        tokenizer = self.modules["speech_tokenizer"]
        recognizer = self.modules["token_recognizer"]
        assert isinstance(tokenizer, SpeechTokenizer)
        hidden, log_probs = recognizer(codes, mask)
        assert isinstance(recognizer, TokenRecognizer)
        logits = recognizer.decode_logits(hidden, characters, mask)
        labels = tensors["phones"][:, : codes.shape[1]]
        return {
            "tokenizer/ctc": ctc_loss(log_probs, characters, num_tokens, num_characters).sum(),
            "tokenizer/attention": attention_loss(logits, characters, num_characters),
            "tokenizer/phone": phone_loss(self.modules["phone_head"](codes), labels),
            "tokenizer/encoder_phone": phone_loss(
                self.modules["encoder_phone_head"](before), labels
            ),
            "tokenizer/code_usage": code_usage_loss(
                tokenizer.quantizer.continuous(before[mask]), tokenizer.config.levels
            ),
        }

    def evaluate(
        self, batches: Iterable[dict[str, Tensor]], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Character error through the quantizer, codebook usage and accuracy of phones."""
        tokenizer, recognizer = modules["speech_tokenizer"], modules["token_recognizer"]
        assert isinstance(tokenizer, SpeechTokenizer) and isinstance(recognizer, TokenRecognizer)
        references, hypotheses, used = [], [], []
        right = total = 0
        for batch in batches:
            tokens, num_tokens = tokenizer.encode(batch["waveform"], batch["lengths"])
            hypotheses += recognizer.transcribe(tokens, num_tokens)
            alphabet = recognizer.config.alphabet
            references += [decode_characters(row.tolist(), alphabet) for row in batch["characters"]]
            mask = torch.arange(tokens.shape[1], device=tokens.device)[None] < num_tokens[:, None]
            used.append(tokens[mask])
            phones = modules["phone_head"](recognizer.code_vectors(tokens))
            best = phones.unflatten(2, (LABELS_PER_TOKEN, -1)).argmax(dim=-1)
            labels = batch["phones"][:, : tokens.shape[1]]
            right += int((best == labels).sum())
            total += int((labels >= 0).sum())
        return {
            "char_error_rate": float(jiwer.cer(references, hypotheses)),
            "phone_accuracy": right / max(total, 1),
            **codebook_usage(torch.cat(used), tokenizer.config.codebook_size),
        }

    def export(self, folder: Path) -> None:
        """Writes the components `speech_tokenizer` and `token_recognizer`."""
        tokenizer, recognizer = (self.modules[n] for n in ("speech_tokenizer", "token_recognizer"))
        assert isinstance(tokenizer, SpeechTokenizer) and isinstance(recognizer, TokenRecognizer)
        if not self.config.export_decoder:
            recognizer = recognizer.without_decoder()
        # The recogniser says whose tokens it reads.
        parts = (
            ("speech_tokenizer", tokenizer, {}),
            ("token_recognizer", recognizer, {"tokenizer": tokenizer.fingerprint}),
        )
        for kind, module, extra in parts:
            save_component(
                folder / kind,
                kind=kind,
                config=module.config,
                state_dict=module.state_dict(),
                dtype=torch.float16,
                extra=extra,
            )
