"""Normalised text <-> ids, over sentencepiece.

Ids 0 and 1 are padding and unknown; there are no others that stand for no text, because the
language model owns its own. The marks are pieces of their own, so that a word has the same pieces
before a comma as before another word.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import sentencepiece
import torch

from tokenlm.atomic import atomic_path
from tokenlm.config import save_config
from tokenlm.text.hf_tokenizer import HFTextTokenizer
from tokenlm.text.phoneme_tokenizer import PhonemeTokenizer
from tokenlm.text.tokenizer_config import (
    TextTokenizerConfig,
    TokenizerError,
    read_tokenizer_config,
)

MODEL_FILE = "text_tokenizer.model"
_MARKS = ",.?!;:"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz'-"
_SPACE = "▁"  # how sentencepiece writes a space inside pieces
_UNKNOWN_PENALTY = 10.0  # below the rarest piece, as sentencepiece itself has it
_MAX_PIECE_LENGTH = 16

ModelType = Literal["unigram", "bpe", "char"]


class TextTokenizer:
    """Subword tokenizer of normalised English.

    Args:
        model: a serialized sentencepiece model.
        model_type: how it was trained; only a unigram model can sample.

    Raises:
        TokenizerError: if the bytes are no sentencepiece model.
    """

    def __init__(self, model: bytes, model_type: ModelType = "unigram") -> None:
        # Any: the library's stubs leave most methods untyped.
        self._processor: Any = sentencepiece.SentencePieceProcessor()
        try:
            if not model or not self._processor.LoadFromSerializedProto(model):
                raise TokenizerError("the sentencepiece model is empty")
        except RuntimeError as error:
            raise TokenizerError(f"this is no sentencepiece model: {error}") from error
        self._model = model
        self.model_type: ModelType = model_type
        self._pieces: dict[str, tuple[int, float]] | None = None

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        model_type: ModelType = "unigram",
        seed: int = 0,
        max_texts: int = 1_000_000,
    ) -> TextTokenizer:
        """Train a tokenizer on normalised texts; the same texts and seed give the same tokenizer.

        The letters a-z, apostrophe, hyphen and the marks are always covered.

        Args:
            texts: normalised texts; empty ones are passed over.
            vocab_size: number of ids, from 64. A `char` model has as many as there are characters.
            model_type: the algorithm of sentencepiece.
            seed: chooses the texts if there are more than `max_texts`.
            max_texts: texts that are looked at.

        Raises:
            TokenizerError: for no text, or a vocabulary that the texts cannot fill.
        """
        if vocab_size < 64:
            raise TokenizerError(f"vocab_size must be at least 64, got {vocab_size}")
        sample = _choose([text for text in texts if text.strip()], max_texts, seed)
        if not sample:
            raise TokenizerError("there is no text to train a tokenizer on")
        # The alphabet as one more text: the trainer never sees it missing.
        sample.append(" ".join(_ALPHABET + _MARKS))
        model = io.BytesIO()
        try:
            # Any: the library's stubs declare the options of the other call style only.
            cast(Any, sentencepiece.SentencePieceTrainer).train(
                sentence_iterator=iter(sample),
                model_writer=model,
                vocab_size=vocab_size,
                model_type=model_type,
                character_coverage=1.0,
                required_chars=_ALPHABET,
                user_defined_symbols=list(_MARKS),
                normalization_rule_name="identity",
                split_by_unicode_script=False,
                max_sentencepiece_length=_MAX_PIECE_LENGTH,
                max_sentence_length=1 << 20,
                pad_id=0,
                unk_id=1,
                bos_id=-1,
                eos_id=-1,
                num_threads=1,  # more give sums in another order, and another tokenizer
                shuffle_input_sentence=False,
                hard_vocab_limit=model_type != "char",
                use_all_vocab=model_type == "char",
                minloglevel=2,
            )
        except (RuntimeError, OSError, ValueError) as error:
            limit = re.search(r"value <= ([0-9]+)", str(error))
            reason = f"they have at most {limit[1]}" if limit else str(error)
            raise TokenizerError(
                f"no tokenizer of {vocab_size} pieces can be trained on these texts: {reason}"
            ) from error
        return cls(model.getvalue(), model_type)

    @classmethod
    def from_folder(cls, folder: str | Path) -> TextTokenizer:
        """Read what `save` wrote.

        Raises:
            TokenizerError: if a file is missing, cannot be read, or does not fit the config.
        """
        config = read_tokenizer_config(folder)
        if config.kind != "sentencepiece" or config.model_type is None:
            raise TokenizerError(
                f"{folder} holds a {config.kind} tokenizer, not a sentencepiece one"
            )
        path = Path(folder) / MODEL_FILE
        try:
            tokenizer = cls(path.read_bytes(), config.model_type)
        except FileNotFoundError:
            raise TokenizerError(f"{path} is missing") from None
        except (OSError, TokenizerError) as error:
            raise TokenizerError(f"{path} cannot be read: {error}") from error
        if tokenizer.vocab_size != config.vocab_size:
            raise TokenizerError(
                f"{path} has {tokenizer.vocab_size} pieces, but config.yaml beside it says "
                f"{config.vocab_size}"
            )
        return tokenizer

    def save(self, folder: str | Path) -> None:
        """Write `text_tokenizer.model` and `config.yaml`, each whole or not at all."""
        folder = Path(folder)
        with atomic_path(folder / MODEL_FILE) as path:
            path.write_bytes(self._model)
        save_config(self.config, folder / "config.yaml")

    @property
    def config(self) -> TextTokenizerConfig:
        """What `config.yaml` says."""
        return TextTokenizerConfig(vocab_size=self.vocab_size, model_type=self.model_type)

    @property
    def vocab_size(self) -> int:
        """Number of ids, padding and unknown included."""
        return self._processor.GetPieceSize()

    @property
    def pad_id(self) -> int:
        """The id that fills up batches."""
        return self._processor.pad_id()

    @property
    def unk_id(self) -> int:
        """The id of characters that the vocabulary lacks."""
        return self._processor.unk_id()

    def encode(self, text: str) -> list[int]:
        """Normalised text to ids, the likeliest way. Unknown characters become `unk_id`."""
        return self._processor.EncodeAsIds(_encodable(text))

    def encode_sample(self, text: str, generator: torch.Generator, alpha: float = 0.1) -> list[int]:
        """Normalised text to ids, cut at random (subword regularisation).

        A way of cutting a word is drawn with a probability proportional to its own raised to
        `alpha`, over all ways (Kudo 2018, "Subword Regularization", with an infinite n-best list):
        0 draws evenly, large values approach `encode`. Drawn here and not by sentencepiece,
        whose random numbers cannot be seeded per call.

        Args:
            text: normalised text.
            generator: the draws; the same state gives the same ids.
            alpha: sharpness, not negative.

        Raises:
            TokenizerError: for a negative alpha, or a model that is not of type unigram.
        """
        if self.model_type != "unigram":
            raise TokenizerError(
                f"a {self.model_type} tokenizer cannot sample; train a unigram one"
            )
        if alpha < 0 or not math.isfinite(alpha):
            raise TokenizerError(f"alpha must be a number from 0, got {alpha}")
        words = [_SPACE + word for word in _encodable(text).split()]
        draws = torch.rand(
            sum(map(len, words)), generator=generator, device=generator.device, dtype=torch.float32
        )
        remaining = iter(draws.tolist())
        ids: list[int] = []
        for word in words:
            ids.extend(self._sample_word(word, list(islice(remaining, len(word))), alpha))
        return ids

    def _sample_word(self, word: str, draws: list[float], alpha: float) -> list[int]:
        """Forward filtering over the ends of pieces, then backward sampling."""
        pieces = self._scored_pieces()
        unknown = (self.unk_id, pieces[""][1])
        # ways[end]: log of the summed weight of all ways to cut word[:end].
        ways = [0.0] + [-math.inf] * len(word)
        incoming: list[list[tuple[int, int, float]]] = [[] for _ in range(len(word) + 1)]
        for end in range(1, len(word) + 1):
            for start in range(max(0, end - _MAX_PIECE_LENGTH), end):
                found = pieces.get(word[start:end])
                if found is None and end - start == 1:
                    found = unknown
                if found is not None:
                    incoming[end].append((start, found[0], ways[start] + alpha * found[1]))
            top = max(weight for _, _, weight in incoming[end])
            total = sum(math.exp(weight - top) for _, _, weight in incoming[end])
            ways[end] = top + math.log(total)
        ids: list[int] = []
        end = len(word)
        while end:
            draw = draws[end - 1]
            chosen = incoming[end][-1]  # where rounding leaves a rest of the draw
            for candidate in incoming[end]:
                draw -= math.exp(candidate[2] - ways[end])
                if draw < 0:
                    chosen = candidate
                    break
            end = chosen[0]
            ids.append(chosen[1])
        return _merge_unknown(ids[::-1], self.unk_id)

    def _scored_pieces(self) -> dict[str, tuple[int, float]]:
        """Piece -> (id, log probability); under '' the log probability of an unknown character."""
        if self._pieces is None:
            processor = self._processor
            normal = {
                processor.IdToPiece(index): (index, processor.GetScore(index))
                for index in range(self.vocab_size)
                if index not in (self.pad_id, self.unk_id)
            }
            lowest = min((score for _, score in normal.values()), default=0.0)
            self._pieces = normal | {"": (self.unk_id, lowest - _UNKNOWN_PENALTY)}
        return self._pieces

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; padding is passed over.

        Raises:
            TokenizerError: for an id outside the vocabulary.
        """
        ids = [int(index) for index in ids]
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise TokenizerError(f"text token {index} is outside 0..{self.vocab_size - 1}")
        return self._processor.DecodeIds([index for index in ids if index != self.pad_id])


AnyTextTokenizer = TextTokenizer | HFTextTokenizer | PhonemeTokenizer
"""Every kind of text tokenizer; they have the same methods."""


def load_text_tokenizer(folder: str | Path) -> AnyTextTokenizer:
    """Read a tokenizer folder of any kind.

    Raises:
        TokenizerError: if the folder holds no tokenizer that can be read.
    """
    kind = read_tokenizer_config(folder).kind
    if kind == "transformers":
        return HFTextTokenizer.from_folder(folder)
    if kind == "phonemes":
        return PhonemeTokenizer.from_folder(folder)
    return TextTokenizer.from_folder(folder)


def _encodable(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8, which is what sentencepiece takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _choose(texts: list[str], max_texts: int, seed: int) -> list[str]:
    """At most `max_texts` of the texts, in their order."""
    if len(texts) <= max_texts:
        return texts
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(texts), generator=generator)[:max_texts].sort().values
    return [texts[index] for index in chosen.tolist()]


def _merge_unknown(ids: list[int], unk_id: int) -> list[int]:
    """Neighbouring unknown characters are one unknown, as `encode` has it."""
    return [
        index
        for position, index in enumerate(ids)
        if index != unk_id or position == 0 or ids[position - 1] != unk_id
    ]
