"""Stage token_recognizer: speech tokens that are given to text.

    tokenlm train token_recognizer

For tokenizers that came without their ASR half, such as imported ones; `speech_tokenizer` trains
both halves of its own, and this stage goes on from there with phones. What is learned reads tokens
alone: it transcribes, checks what a speech LM wrote, and rewards it.

Shapes: B batch, N speech tokens, L characters, P phones of a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jiwer
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn

from tokenlm.checkpoint.component import CONFIG_FILE, read_component, save_component
from tokenlm.checkpoint.registry import SPEECH_TOKENIZERS, load_model
from tokenlm.config import ConfigError
from tokenlm.models.token_recognizer import (
    PHONES_PER_TOKEN,
    TokenRecognizer,
    TokenRecognizerConfig,
)
from tokenlm.text.tokenizer_config import read_tokenizer_config
from tokenlm.text.tokenizers import PhonemeTokenizer
from tokenlm.text.transcripts import ENGLISH_ALPHABET, collect_alphabet, decode_characters
from training.config import RunConfig
from training.data.collate import pad_tokens
from training.data.manifest import Rows
from training.data.split import (
    DataConfig,
    check_initial_tokens,
    open_split,
    rejects_file,
    require_tokens,
)
from training.data.table import Table
from training.data.texts import normalize_texts, number_texts, shortened, spell
from training.data.token_noise import TokenNoiseConfig, spoil_tokens
from training.loop.task import Phase, Prepared, StepInfo, Task
from training.losses.recognition import attention_loss, ctc_loss


@dataclass(frozen=True, kw_only=True)
class TokenRecognizerStageConfig(RunConfig):
    """Configuration of the stage."""

    data: DataConfig
    speech_tokenizer: Path
    """Component folder of the tokenizer that made the tokens. Its levels are those of the model,
    whatever `model.levels` says."""
    text_tokenizer: Path
    """Folder of the text tokenizer of the bundle: texts go through what it says (`normalizer`), as
    those do that are read back."""
    read_phones: bool = True
    """Whether phones are learned, too, where the text tokenizer is one of phonemes. They are those
    of the model, whatever `model.phones` says."""
    model: TokenRecognizerConfig = field(default_factory=TokenRecognizerConfig)
    collect_alphabet: bool = False
    """Whether the alphabet is what the training texts are written in, whatever `model.alphabet`
    says: their letters, digits and apostrophes."""
    noise: TokenNoiseConfig = field(default_factory=TokenNoiseConfig)
    """Of the tokens in training."""
    export_decoder: bool = True
    """Whether the exported recogniser keeps its attention decoder, which transcribing by CTC does
    not need."""


@dataclass(frozen=True)
class RecognizerItem:
    """Speech tokens, and what is said in them."""

    tokens: Sequence[int] | Tensor
    """Numbers of codes, `HIDDEN` where one is hidden."""
    characters: Sequence[int]
    """Indices in the alphabet."""
    phones: Sequence[int] = ()
    """Indices of the model's phones, 1 and up."""


class RecognizerItems:
    """Map-style dataset of `RecognizerItem`s, drawn with noise on the tokens."""

    def __init__(
        self,
        rows: Rows,
        characters: Table,
        phones: Table | None,
        levels: tuple[int, ...],
        noise: TokenNoiseConfig,
    ) -> None:
        """Take rows with tokens, and beside them their characters and phones."""
        self._rows, self._characters, self._phones = rows, characters, phones
        self._levels, self._noise = levels, noise
        self.durations = rows.column("duration")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> RecognizerItem:
        tokens = self._rows[index].speech_tokens
        phones = () if self._phones is None else self._phones[index]["numbers"]
        characters = self._characters[index]["numbers"]
        return RecognizerItem(torch.tensor(list(tokens or ())), characters, phones)

    def draw(self, index: int, generator: torch.Generator) -> RecognizerItem:
        """Reading `index` as it is trained with."""
        reading = self[index]
        assert isinstance(reading.tokens, Tensor)
        tokens = spoil_tokens(reading.tokens, self._levels, self._noise, generator)
        return replace(reading, tokens=tokens)


def check_initial_alphabet(config: RunConfig, alphabet: str) -> None:
    """Checks that the recogniser that is trained on writes the same characters.

    Raises:
        ConfigError: it writes others, and `initial_partial` does not say that this is meant.
    """
    folder = config.initial.get("token_recognizer")
    if folder is None or config.initial_partial or not (folder / CONFIG_FILE).is_file():
        return
    known = read_component(folder).config.get("alphabet", ENGLISH_ALPHABET)
    if known != alphabet:
        raise ConfigError(
            f"initial.token_recognizer: {folder} writes the characters {shortened(known)}, this "
            f"run {shortened(alphabet)}; give model={folder}/{CONFIG_FILE} without "
            "collect_alphabet, or start from what fits with initial_partial=true"
        )


class TokenRecognizerTask(Task):
    """Trains a `TokenRecognizer` alone."""

    name = "token_recognizer"

    def __init__(self, config: TokenRecognizerStageConfig) -> None:
        self.config = config
        self._datasets: dict[str, RecognizerItems | None] = {}
        self._fingerprint = ""
        self._pronunciation: PhonemeTokenizer | None = None

    def build(self) -> None:
        """See `Task`."""
        config = self.config
        tokenizer = load_model(config.speech_tokenizer, *SPEECH_TOKENIZERS)
        levels = tokenizer.config.levels
        splits = {
            split: open_split(config.data, split, 16_000, rejects=rejects_file(config))
            for split in ("train", "valid")
        }
        self._fingerprint = require_tokens(splits.values(), tokenizer.config.codebook_size)
        if self._fingerprint != tokenizer.fingerprint:
            raise ConfigError(
                f"speech_tokenizer: {config.speech_tokenizer} is {tokenizer.fingerprint}, but the "
                f"data have tokens of {self._fingerprint or 'one that they do not name'}; write "
                "them with it: tokenlm data precompute MANIFEST OUTPUT "
                f"--tokenizer {config.speech_tokenizer}"
            )
        check_initial_tokens(config, "token_recognizer", self._fingerprint)
        facts = read_tokenizer_config(config.text_tokenizer)
        if config.read_phones and facts.kind == "phonemes":
            self._pronunciation = PhonemeTokenizer.from_folder(config.text_tokenizer)
        texts = {
            split: normalize_texts(rows.utterances.table, facts.normalizer, self._num_processes)
            for split, rows in splits.items()
            if rows is not None
        }
        alphabet = config.model.alphabet
        if config.collect_alphabet:
            alphabet = collect_alphabet(row["text"] for row in texts["train"])
            if not alphabet:
                raise ConfigError("data.train: the texts have neither letters nor digits")
        check_initial_alphabet(config, alphabet)
        phones = () if self._pronunciation is None else self._pronunciation.sounds
        self.model_config = replace(config.model, levels=levels, alphabet=alphabet, phones=phones)
        for split, rows in splits.items():
            self._datasets[split] = None
            if rows is not None:
                self._datasets[split] = self._items(split, rows.utterances, texts[split])
        self.modules = {"token_recognizer": TokenRecognizer(self.model_config)}

    @property
    def _num_processes(self) -> int:
        return self.config.data.num_processes

    def _items(self, split: str, rows: Rows, texts: Table) -> RecognizerItems:
        config, model = self.config, self.model_config
        spelt = spell(
            texts, model.alphabet, split, config.data.max_reject_share, self._num_processes
        )
        counts = spelt.column("count")
        longest = int(counts.max())
        if model.num_decoder_layers and longest > model.max_characters:
            raise ConfigError(
                f"data.{split}: a text has {longest} characters, more than model.max_characters "
                f"{model.max_characters}"
            )
        number = {phone: index for index, phone in enumerate(model.phones, start=1)}
        said = None
        if (pronunciation := self._pronunciation) is not None:
            said = number_texts(
                texts,
                "phones",
                lambda text: [number[phone] for phone in pronunciation.pronounce(text)],
                config.text_tokenizer,
                self._num_processes,
            ).select(counts > 0)
        kept = rows.select(counts > 0), spelt.select(counts > 0)
        return RecognizerItems(*kept, said, model.levels, config.noise)

    def dataset(self, split: str) -> RecognizerItems | None:
        """See `Task`."""
        return self._datasets[split]

    def collate(self, items: list[RecognizerItem]) -> dict[str, Tensor]:
        """See `Task`."""
        tokens, num_tokens = pad_tokens([item.tokens for item in items])
        characters, num_characters = pad_tokens([item.characters for item in items])
        batch = {
            "tokens": tokens,
            "num_tokens": num_tokens,
            "characters": characters,
            "num_characters": num_characters,
        }
        if self.model_config.phones:
            batch["phones"], batch["num_phones"] = pad_tokens([item.phones for item in items])
        return batch

    def prepare(self, batch: dict[str, Tensor], step: StepInfo) -> Prepared:
        """See `Task`."""
        count = float(batch["num_characters"].sum())
        counts = {"recognizer/ctc": count}
        if self.model_config.num_decoder_layers:
            counts["recognizer/attention"] = count + batch["num_characters"].shape[0]
        if self.model_config.phones:
            counts["recognizer/phone_ctc"] = float(batch["num_phones"].sum())
        return Prepared(tensors=dict(batch), counts=counts)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("recognise", ("token_recognizer",), self._losses)]

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors, recognizer = prepared.tensors, self.modules["token_recognizer"]
        assert isinstance(recognizer, TokenRecognizer)
        tokens, num_tokens = tensors["tokens"], tensors["num_tokens"]
        characters, num_characters = tensors["characters"], tensors["num_characters"]
        mask = torch.arange(tokens.shape[1], device=tokens.device)[None] < num_tokens[:, None]
        # What is hidden is in the middle of all codes.
        codes = recognizer.code_vectors(tokens.clamp(min=0)) * (tokens >= 0)[..., None]
        hidden, log_probs = recognizer(codes, mask)
        losses = {
            "recognizer/ctc": ctc_loss(log_probs, characters, num_tokens, num_characters).sum()
        }
        if recognizer.config.num_decoder_layers:
            logits = recognizer.decode_logits(hidden, characters, mask)
            losses["recognizer/attention"] = attention_loss(logits, characters, num_characters)
        if recognizer.config.phones:
            losses["recognizer/phone_ctc"] = ctc_loss(
                recognizer.phone_log_probs(hidden),
                tensors["phones"],
                num_tokens * PHONES_PER_TOKEN,
                tensors["num_phones"],
            ).sum()
        return losses

    def evaluate(
        self, batches: Iterable[dict[str, Tensor]], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Errors of characters and phones, and CTC loss, of held-out tokens, without noise."""
        recognizer = modules["token_recognizer"]
        assert isinstance(recognizer, TokenRecognizer)
        alphabet = recognizer.config.alphabet
        references: list[str] = []
        hypotheses: list[str] = []
        loss = count = 0.0
        phone_errors = num_phones = 0
        for batch in batches:
            tokens, num_tokens = batch["tokens"], batch["num_tokens"]
            hypotheses += recognizer.transcribe(tokens, num_tokens)
            references += [decode_characters(row.tolist(), alphabet) for row in batch["characters"]]
            mask = torch.arange(tokens.shape[1], device=tokens.device)[None] < num_tokens[:, None]
            hidden, log_probs = recognizer(recognizer.code_vectors(tokens), mask)
            if recognizer.config.phones:
                found = recognizer.read_phones(hidden, num_tokens)
                said = [row[row > 0].tolist() for row in batch["phones"]]
                phone_errors += sum(map(Levenshtein.distance, said, found))
                num_phones += sum(map(len, said))
            targets = batch["characters"], num_tokens, batch["num_characters"]
            loss += float(ctc_loss(log_probs, *targets).sum())
            count += float(batch["num_characters"].sum())
        metrics = {
            "char_error_rate": float(jiwer.cer(references, hypotheses)),
            "ctc": loss / max(count, 1.0),
        }
        if recognizer.config.phones:
            metrics["phone_error_rate"] = phone_errors / max(num_phones, 1)
        return metrics

    def export(self, folder: Path) -> None:
        """Writes the component `token_recognizer`, bound to the tokenizer of its tokens."""
        recognizer = self.modules["token_recognizer"]
        assert isinstance(recognizer, TokenRecognizer)
        if not self.config.export_decoder:
            recognizer = recognizer.without_decoder()
        save_component(
            folder / "token_recognizer",
            kind="token_recognizer",
            config=recognizer.config,
            state_dict=recognizer.state_dict(),
            dtype=torch.float16,
            extra={"tokenizer": self._fingerprint},
        )

    def state(self) -> dict[str, Any]:
        """See `Task`."""
        return {"alphabet": self.model_config.alphabet, "phones": list(self.model_config.phones)}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Task`.

        Raises:
            ConfigError: the training texts have other characters than when the run began, or the
                text tokenizer other phones.
        """
        if state["alphabet"] != self.model_config.alphabet:
            raise ConfigError(
                f"the run began with the characters {shortened(state['alphabet'])}, but the "
                f"training texts now have {shortened(self.model_config.alphabet)}"
            )
        if tuple(state.get("phones", ())) != self.model_config.phones:
            raise ConfigError(
                "text_tokenizer: the run began with other phones; give the tokenizer it began with"
            )
