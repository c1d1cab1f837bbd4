"""Stage speech_lm: text to speech tokens.

    tokenlm train speech_lm

Some samples join several utterances of one speaker, as cloning does (prompt, then speech), some
are interleaved, and some have no text, so that guidance on the model is possible later.

Shapes: B batch, L positions, V speech classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import jiwer
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from tokenlm.checkpoint.component import save_component
from tokenlm.models.lm import SamplingConfig, SpeechLM, SpeechLMConfig
from tokenlm.models.lm.decoding import SpeechRequest, generate_speech
from tokenlm.models.lm.layout import IGNORE, TEXT, Layout, fits_interleaved, interleaved, one_shot
from tokenlm.models.lm.model import LayoutBatch
from tokenlm.models.token_recognizer import TokenRecognizer
from tokenlm.text.tokenizers import TextTokenizer, load_text_tokenizer
from tokenlm.text.transcripts import known_characters
from training.config import RunConfig
from training.data.manifest import Rows, Speakers, Utterance
from training.data.split import (
    DataConfig,
    check_initial_tokens,
    load_recognizer,
    open_split,
    rejects_file,
    require_tokens,
)
from training.data.table import ROWS_PER_BATCH, Columns, Table, array_digest, digest
from training.data.texts import normalize_texts, number_texts
from training.loop.randomness import make_generator
from training.loop.task import Phase, Prepared, StepInfo, Task
from training.losses.tokens import token_cross_entropy
from training.stages.lora import LoraSettings, add_lora, merged_state, with_additions

RATIO_QUANTILES = (0.001, 0.5, 0.999)


@dataclass(frozen=True, kw_only=True)
class SpeechLMStageConfig(RunConfig):
    """Configuration of the stage."""

    data: DataConfig
    text_tokenizer: Path
    """Folder of the text tokenizer."""
    token_recognizer: Path | None = None
    """Component folder; with it, evaluation reads generated speech back."""
    instruction: str = ""
    """Text that the LM reads before every other, as `generation.instruction` of a bundle."""
    backbone: str | None = None
    """Hub id or folder of a pretrained backbone; None starts from `model.backbone` at random."""
    lora: LoraSettings | None = None
    """Train low-rank additions of the backbone in place of all its weights."""
    model: SpeechLMConfig = field(default_factory=SpeechLMConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Sampling of the evaluation."""
    interleaved_share: float = 0.3
    """Share of the samples that are interleaved, where their speech is long enough."""
    text_dropout: float = 0.1
    """Share of the samples that have no text."""
    join_share: float = 0.5
    """Share of the samples that join several utterances of one speaker."""
    join_alike: tuple[str, ...] = ()
    """Further keys of the manifest that joined utterances agree in: with `rate`, where a corpus has
    it, speech goes on as fast as what it follows."""
    prior_steps: int = 0
    """Over these steps a diagonal prior on the attention to the text fades out; 0 has none."""
    prior_width: float = 4.0
    """Deviation of the prior, in text tokens."""
    max_joined_seconds: float = 10.0
    num_generated: int = 24
    """Validation texts that evaluation speaks and reads back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch.pack_seconds and self.prior_steps:
            raise ValueError("prior_steps is for padded batches: batch.pack_seconds must be 0")
        for name in ("interleaved_share", "text_dropout", "join_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class TokenPair:
    """One utterance in tokens."""

    text: tuple[int, ...]
    speech: Sequence[int]
    """Tokens; those of shards are read when they are needed."""
    speaker: str
    words: str
    """What is said, normalised."""


class PairList(Sequence[TokenPair]):
    """The utterances of a split as `TokenPair`s, made when they are asked for.

    Attributes:
        num_text: Text tokens (rows,) of each.
        num_speech: Speech tokens (rows,) of each.
    """

    def __init__(self, rows: Rows, words: Table, texts: Table) -> None:
        """Take rows, and beside them their words and text tokens."""
        self._rows, self._words, self._texts = rows, words, texts
        # Four bytes a row each: there may be tens of millions.
        self.num_text = texts.column("count").astype(np.int32, copy=False)
        self.num_speech = rows.column("num_tokens").astype(np.int32, copy=False)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> TokenPair: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenPair]: ...
    def __getitem__(self, index: int | slice) -> TokenPair | list[TokenPair]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row, words, text = self._rows[index], self._words[index], self._texts[index]
        return TokenPair(
            tuple(text["numbers"]), row.speech_tokens or (), row.speaker, words["text"]
        )


class TokenPairs:
    """Map-style dataset of `TokenPair`s, drawn with joins, layouts and dropout as `Layout`s."""

    def __init__(
        self,
        rows: Sequence[Utterance],
        tokenizer: TextTokenizer,
        config: SpeechLMStageConfig,
        *,
        join: bool = False,
    ) -> None:
        """Tokenises the rows; `join` lets some samples start with further utterances."""
        self.config = config
        self.instruction = tuple(tokenizer.encode(config.instruction) if config.instruction else ())
        rows, processes = Rows.of(rows), config.data.num_processes
        words = normalize_texts(rows.table, tokenizer.config.normalizer, processes)
        texts = number_texts(words, "tokens", tokenizer.encode, config.text_tokenizer, processes)
        self.pairs = PairList(rows, words, texts)
        self._rows = rows
        # Joins are fixed for the run, so that the sampler knows how long every sample is.
        self._joins = self._join_all(rows.table) if join else None

    @property
    def durations(self) -> np.ndarray:
        """Seconds (rows,) of each sample; computed anew, as the sampler keeps its own."""
        sizes = self.pairs.num_text + self.pairs.num_speech
        if self._joins is not None:
            sizes = self._joins.column("size")
        return (len(self.instruction) + sizes) / self.config.model.token_rate

    @property
    def packed_durations(self) -> np.ndarray:
        """The same in a row of a packed batch: a layout has two special positions more."""
        return self.durations + 2 / self.config.model.token_rate

    @cached_property
    def speakers(self) -> Speakers:
        """Which rows are of one speaker."""
        return Speakers(self._rows, self.config.join_alike)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Layout:
        pair = self.pairs[index]
        size, first = self.config.model.codebook_size, self.instruction
        return one_shot(pair.text, list(pair.speech), size, instruction=first)

    def draw(self, index: int, generator: torch.Generator) -> Layout:
        """A training sample that starts from utterance `index`."""
        config = self.config
        draws = torch.rand(2, generator=generator).tolist()
        chosen = [self.pairs[i] for i in self.joined(index)]
        text = [token for pair in chosen for token in pair.text]
        speech = [token for pair in chosen for token in pair.speech]
        size = config.model.codebook_size
        if draws[0] < config.text_dropout:
            return one_shot([], speech, size)
        blocks = (config.model.block_text_tokens, config.model.block_speech_tokens)
        if draws[1] < config.interleaved_share and fits_interleaved(
            len(text), len(speech), *blocks
        ):
            return interleaved(
                text,
                speech,
                size,
                block_text=blocks[0],
                block_speech=blocks[1],
                instruction=self.instruction,
            )
        return one_shot(text, speech, size, instruction=self.instruction)

    def joined(self, index: int) -> tuple[int, ...]:
        """Utterances of the sample that starts from `index`, which is the last of them."""
        return (index,) if self._joins is None else tuple(self._joins[index]["members"])

    def _join_all(self, table: Table) -> Table:
        config, sizes = self.config, self.pairs.num_text + self.pairs.num_speech
        facts: tuple[object, ...] = (config.seed, config.join_share, config.max_joined_seconds)
        facts = (*facts, config.model.token_rate, *config.join_alike)
        key = digest("joins", table.key, table.selection, facts, array_digest(sizes))
        schema = pa.schema({"members": pa.list_(pa.int64()), "size": pa.int64()})

        def rows() -> Iterator[Columns]:
            for start in range(0, len(table), ROWS_PER_BATCH):
                groups = [self._join(i) for i in range(start, len(table))[:ROWS_PER_BATCH]]
                yield {"members": groups, "size": [sizes[list(group)].sum() for group in groups]}

        return Table.convert(key, table.num_bytes, schema, rows)

    def _join(self, index: int) -> tuple[int, ...]:
        """Utterances of one sample: up to three others of the speaker, then `index`."""
        generator = make_generator("join", self.config.seed, index)
        chosen = (index,)
        if float(torch.rand((), generator=generator)) >= self.config.join_share:
            return chosen
        others = self.speakers.same(index)
        rate, counts = self.config.model.token_rate, self.pairs.num_speech
        seconds = int(counts[index]) / rate
        for _ in range(3):
            other = int(others[int(torch.randint(len(others), (1,), generator=generator))])
            if other in chosen:  # speech that was just given would be there to be copied
                continue
            seconds += int(counts[other]) / rate
            if seconds > self.config.max_joined_seconds:
                break
            chosen = (other, *chosen)
        return chosen


def diagonal_prior(batch: LayoutBatch, width: float) -> Tensor:
    """Bias that draws the attention of speech to the text that is about as far along.

    Speech and text run in the same order at nearly the same pace. Told so, a small model finds out
    within some hundred steps what a text token sounds like; without it the search for the place in
    the text takes many times longer (the idea of guided attention, Tachibana et al., 2018). The
    prior fades out, and the model then keeps its place by itself.

    Args:
        batch: sequences of any layout; only one-shot ones with text are biased sensibly.
        width: deviation in text tokens.

    Returns:
        (B, L, L), 0 at best; queries are the positions that predict, keys those of the text.
    """
    is_text = (batch.kinds == TEXT) & batch.mask
    predicts = batch.targets != IGNORE
    num_text = is_text.sum(dim=1, keepdim=True)
    place = is_text.cumsum(dim=1) - 0.5
    done = (predicts.cumsum(dim=1) - 0.5) / predicts.sum(dim=1, keepdim=True).clamp(min=1)
    distance = (done * num_text)[:, :, None] - place[:, None]
    bias = -(distance / width).square() / 2
    return bias.clamp(min=-10.0) * (predicts[:, :, None] & is_text[:, None])


def check_lengths(num_text: np.ndarray, num_speech: np.ndarray, config: SpeechLMConfig) -> None:
    """Checks the length limits and blocks of the model against the corpus.

    Args:
        num_text: text tokens of each utterance.
        num_speech: its speech tokens.
        config: of the model.

    Raises:
        ValueError: with the percentiles of the corpus, where a limit would cut into it.
    """
    ratios = (num_speech[num_text > 0] / num_text[num_text > 0])[:100_000]
    low, middle, high = np.quantile(ratios.astype(np.float32).astype(np.float64), RATIO_QUANTILES)
    block = config.block_speech_tokens / config.block_text_tokens
    limits = (
        f"speech tokens per text token in the corpus: 0.1 % {low:.2f}, median {middle:.2f}, "
        f"99.9 % {high:.2f}"
    )
    if config.min_speech_per_text > low:
        raise ValueError(f"min_speech_per_text {config.min_speech_per_text} is too high; {limits}")
    if config.max_speech_per_text < high:
        raise ValueError(f"max_speech_per_text {config.max_speech_per_text} is too low; {limits}")
    if block > middle:
        raise ValueError(
            f"blocks of {config.block_text_tokens}:{config.block_speech_tokens} are longer than "
            f"the speech of half of the corpus; {limits}"
        )


def check_token_rate(rows: Sequence[Utterance], token_rate: int) -> None:
    """Checks that the speech tokens of a corpus come as fast as the config says.

    Raises:
        ValueError: those of half of the utterances are a fifth more or less.
    """
    rows = Rows.of(rows)
    rates = rows.column("num_tokens") / rows.column("duration")
    middle = float(np.median(rates)) if rates.size else token_rate
    if not 0.8 < middle / token_rate < 1.25:
        raise ValueError(
            f"model.token_rate is {token_rate}, but the utterances have {middle:.3g} speech tokens "
            "a second; give the rate of the speech tokenizer that wrote them"
        )


class SpeechLMTask(Task):
    """Trains a `SpeechLM`."""

    name = "speech_lm"

    def __init__(self, config: SpeechLMStageConfig) -> None:
        self.config = config
        self._datasets: dict[str, TokenPairs | None] = {}
        self._fingerprint = ""

    def build(self) -> None:
        """See `Task`."""
        config = self.config
        self.tokenizer = load_text_tokenizer(config.text_tokenizer)
        if config.backbone is None:
            model = SpeechLM(config.model)
        else:
            model = SpeechLM.from_backbone(config.backbone, config.model)
        if self.tokenizer.vocab_size > model.config.backbone.vocab_size:
            raise ValueError(
                f"{config.text_tokenizer} has {self.tokenizer.vocab_size} pieces, but the "
                f"backbone's vocab_size is {model.config.backbone.vocab_size}"
            )
        splits = {
            split: open_split(config.data, split, 16_000, rejects=rejects_file(config))
            for split in ("train", "valid")
        }
        self._fingerprint = require_tokens(splits.values(), config.model.codebook_size)
        check_initial_tokens(config, "speech_lm", self._fingerprint)
        for split, rows in splits.items():
            self._datasets[split] = None
            if rows is not None:
                check_token_rate(rows.utterances, config.model.token_rate)
                self._datasets[split] = TokenPairs(
                    rows.utterances, self.tokenizer, config, join=split == "train"
                )
        train = self._datasets["train"]
        assert train is not None
        check_lengths(train.pairs.num_text, train.pairs.num_speech, config.model)
        self._recognizer: TokenRecognizer | None = None
        if config.token_recognizer is not None:
            self._recognizer = load_recognizer(
                config.token_recognizer, self._fingerprint, config.model.codebook_size
            )
        if config.lora is not None:
            add_lora(model if config.lora.only else model.backbone, config.lora)
        self.modules = {"speech_lm": model}

    def to(self, device: torch.device) -> None:
        """See `Task`."""
        super().to(device)
        if self._recognizer is not None:
            self._recognizer.to(device)

    def adapt_initial(self, module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Task`: plain weights also fit a module with LoRA."""
        return with_additions(module, state)

    def dataset(self, split: str) -> TokenPairs | None:
        """See `Task`."""
        return self._datasets[split]

    def collate(self, items: list[Layout]) -> LayoutBatch:
        """See `Task`."""
        return LayoutBatch.from_layouts(items)

    def collate_packed(self, items: list[Layout], row_sizes: Sequence[int]) -> LayoutBatch:
        """See `Task`."""
        return LayoutBatch.in_rows(items, row_sizes)

    def prepare(self, batch: LayoutBatch, step: StepInfo) -> Prepared:
        """See `Task`."""
        count = float((batch.targets != IGNORE).sum())
        tensors: dict[str, Any] = {"batch": batch, "bias": None}
        strength = 1.0 - step.step / self.config.prior_steps if self.config.prior_steps else 0.0
        if strength > 0:
            tensors["bias"] = strength * diagonal_prior(batch, self.config.prior_width)
        return Prepared(tensors=tensors, counts={"lm/cross_entropy": count})

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("predict", ("speech_lm",), self._losses)]

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        batch = prepared.tensors["batch"]
        logits = self.modules["speech_lm"](batch, prepared.tensors["bias"])
        return {"lm/cross_entropy": token_cross_entropy(logits, batch.targets)}

    def evaluate(
        self, batches: Iterable[Any], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Cross-entropy and accuracy of held-out speech, and errors of speech read back."""
        model = modules["speech_lm"]
        assert isinstance(model, SpeechLM)
        loss = right = count = 0.0
        for batch in batches:
            logits = model(batch)
            loss += float(token_cross_entropy(logits, batch.targets))
            right += int((logits.argmax(dim=-1) == batch.targets).sum())
            count += int((batch.targets != IGNORE).sum())
        metrics = {"cross_entropy": loss / max(count, 1), "accuracy": right / max(count, 1)}
        if self._recognizer is not None:
            metrics["read_back_char_error_rate"] = self._read_back(model)
        return metrics

    def _read_back(self, model: SpeechLM) -> float:
        """Character error of texts that are spoken after another utterance as the prompt."""
        valid = self._datasets["valid"]
        assert valid is not None and self._recognizer is not None
        pairs = valid.pairs[: self.config.num_generated + 1]
        requests = [
            SpeechRequest(
                text_tokens=pair.text,
                prompt_text_tokens=(*valid.instruction, *prompt.text),
                prompt_tokens=prompt.speech,
                segment=number,
            )
            for number, (prompt, pair) in enumerate(zip(pairs, pairs[1:], strict=False))
        ]
        spoken = generate_speech(model, requests, self.config.sampling)
        recognizer = self._recognizer
        transcripts = [
            recognizer.transcribe(torch.tensor([row], device=self.device))[0] if row else ""
            for row in spoken
        ]
        alphabet = recognizer.config.alphabet
        references = [known_characters(pair.words, alphabet) for pair in pairs[1:]]
        return float(jiwer.cer(references, transcripts))

    def export(self, folder: Path) -> None:
        """Writes the component `speech_lm` and the text tokenizer."""
        model = self.modules["speech_lm"]
        assert isinstance(model, SpeechLM)
        save_component(
            folder / "speech_lm",
            kind="speech_lm",
            config=model.config,
            state_dict=merged_state(model),
            dtype=torch.float16,
            extra={"tokenizer": self._fingerprint},
        )
        self.tokenizer.save(folder / "text_tokenizer")
