"""Text <-> ids: subwords (sentencepiece), the tokenizer of a pretrained backbone, or phones.

All kinds take text as their front-end gives it, and have the interface of `TextTokenizer`. Ids that
stand for no text (start, end of a sequence) are not among theirs: the language model owns its own.
A tokenizer is a folder with its files and `config.yaml`.
"""

from __future__ import annotations

import copy
import io
import math
import re
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self, cast

import sentencepiece
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from tokenlm.atomic import atomic_path
from tokenlm.config import save_config
from tokenlm.text.markup import MarkupReader, Style
from tokenlm.text.normalize import NormalizerName, frontend
from tokenlm.text.pronunciation import (
    ENDING_PHONES,
    HomographTagger,
    Lexicon,
    LexiconError,
    Pronouncer,
    Respeller,
    UserLexicon,
    add_ending,
    fit_phones,
    is_plain,
    load_tagger,
    made_up_word,
    parse_ipa,
    parse_phones,
    read_lexicon,
    split_ending,
    tagged_phones,
    write_lexicon,
)
from tokenlm.text.tokenizer_config import (
    ModelType,
    TextTokenizerConfig,
    TokenizerError,
    TokenizerKind,
    read_tokenizer_config,
)

MARKS = ",.?!;:"
MODEL_FILE = "text_tokenizer.model"
LEXICON_FILE = "lexicon.txt"
PHONES_FILE = "phones.txt"
PRONOUNCER_FILE = "pronouncer.safetensors"
BOUNDARY = "|"
"""Between two words."""
_ALPHABET = "abcdefghijklmnopqrstuvwxyz'-"
_SPACE = "▁"  # how sentencepiece writes a space inside pieces
_UNKNOWN_PENALTY = 10.0  # below the rarest piece, as sentencepiece itself has it
_MAX_PIECE_LENGTH = 16
_SPECIAL = ("<pad>", "<unk>", BOUNDARY, *MARKS)
_PARTS = re.compile(r"[a-z']+|[,.?!;:]")
_MAX_CACHED = 20_000
_SPELLED = re.compile(r"zqx((?:[a-z]{2})+)xqz")
"""A word that says how it is pronounced: two letters for each phone. It goes through normalisation
and segmentation like any other, whole or in pieces."""


class TextTokenizer(ABC):
    """Text <-> ids; the interface of every kind of tokenizer."""

    model_type: ModelType | None = None
    """How a sentencepiece model was trained."""

    @classmethod
    @abstractmethod
    def from_folder(cls, folder: str | Path) -> TextTokenizer:
        """Read what `save` wrote.

        Raises:
            TokenizerError: if a file is missing, cannot be read, or does not fit the config.
        """

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write the files of the tokenizer and `config.yaml`."""

    @property
    @abstractmethod
    def config(self) -> TextTokenizerConfig:
        """What `config.yaml` says."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, padding and unknown included."""

    @property
    @abstractmethod
    def pad_id(self) -> int:
        """The id that fills up batches."""

    @property
    @abstractmethod
    def unk_id(self) -> int | None:
        """The id of text that is not known; None if every text is."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Text to ids, the likeliest way. Unknown characters become `unk_id`, if there is one."""

    def encode_sample(self, text: str, generator: torch.Generator, alpha: float = 0.1) -> list[int]:
        """Text to ids, split at random where the kind can; else the same as `encode`."""
        return self.encode(text)

    def with_lexicon(self, lexicon: UserLexicon) -> tuple[TextTokenizer, Respeller]:
        """This tokenizer with pronunciations of a user, and what texts for it go through first.

        Raises:
            LexiconError: it has no phones, or not all that the lexicon needs.
        """
        raise LexiconError(
            "the text tokenizer of this bundle reads letters, not phones: it cannot be given "
            "pronunciations."
        )

    def markup_reader(self, check_style: Callable[[Style], object] | None = None) -> MarkupReader:
        """A reader of the markup that a text for this tokenizer may hold.

        Args:
            check_style: raises ValueError for a style that cannot be spoken; see `MarkupReader`.
        """
        front = frontend(self.config.normalizer)
        return MarkupReader(
            tags=self.tags,
            keeps_html=front.reads_html,
            spell=self.spell,
            say_as=front.say_as,
            check_style=check_style,
        )

    def unlisted_words(self, text: str) -> list[str]:
        """Words of a normalised text that no lexicon lists, so that they are said by rule."""
        return []

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; padding is passed over.

        Raises:
            TokenizerError: for an id outside the vocabulary.
        """
        ids = [int(index) for index in ids]
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise TokenizerError(f"text token {index} is outside 0..{self.vocab_size - 1}")
        return self._decode(ids)

    @abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """Ids of the vocabulary to text."""

    @property
    def tags(self) -> frozenset[str]:
        """What stands in brackets in a text and is one token, such as `[breath]`."""
        return frozenset()

    def spell(self, pronunciation: str, alphabet: str) -> str:
        """What stands in a text for a word that is pronounced so.

        Args:
            pronunciation: phones of one word.
            alphabet: "ipa" or "x-cmu".

        Raises:
            ValueError: the tokenizer takes no pronunciations, the pronunciation cannot be read, or
                has a phone that is not known.
        """
        read = parse_ipa if alphabet == "ipa" else parse_phones
        return self._spell(tuple(read(pronunciation)))

    def _spell(self, phones: Sequence[str]) -> str:
        raise TokenizerError("this bundle takes no pronunciations in a text.")

    def _checked(self, folder: str | Path, config: TextTokenizerConfig) -> Self:
        """This tokenizer, if it is the one that the config of its folder describes."""
        if self.vocab_size != config.vocab_size:
            raise TokenizerError(
                f"the tokenizer in {folder} has {self.vocab_size} ids, but config.yaml beside it "
                f"says {config.vocab_size}"
            )
        return self


def _read_config(folder: str | Path, kind: TokenizerKind) -> TextTokenizerConfig:
    config = read_tokenizer_config(folder)
    if config.kind != kind:
        raise TokenizerError(f"{folder} holds a {config.kind} tokenizer, not a {kind} one")
    return config


class SentencePieceTokenizer(TextTokenizer):
    """Subword tokenizer of normalised English, over sentencepiece.

    Ids 0 and 1 are padding and unknown. The marks are pieces of their own, so that a word has the
    same pieces before a comma as before another word.

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
    ) -> SentencePieceTokenizer:
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
        sample.append(" ".join(_ALPHABET + MARKS))
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
                user_defined_symbols=list(MARKS),
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
    def from_folder(cls, folder: str | Path) -> SentencePieceTokenizer:
        """Read what `save` wrote.

        Raises:
            TokenizerError: if a file is missing, cannot be read, or does not fit the config.
        """
        config = _read_config(folder, "sentencepiece")
        path = Path(folder) / MODEL_FILE
        try:
            tokenizer = cls(path.read_bytes(), config.model_type or "unigram")
        except FileNotFoundError:
            raise TokenizerError(f"{path} is missing") from None
        except (OSError, TokenizerError) as error:
            raise TokenizerError(f"{path} cannot be read: {error}") from error
        return tokenizer._checked(folder, config)

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

    def _decode(self, ids: list[int]) -> str:
        return self._processor.DecodeIds([index for index in ids if index != self.pad_id])


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


class TransformersTokenizer(TextTokenizer):
    """A tokenizer of `transformers` (Qwen2.5's, at full size).

    Args:
        tokenizer: a `transformers.PreTrainedTokenizerBase`.
        normalizer: what texts go through before they come here.
    """

    def __init__(self, tokenizer: Any, normalizer: NormalizerName = "english") -> None:
        self._tokenizer = tokenizer
        self.normalizer: NormalizerName = normalizer

    @classmethod
    def from_folder(cls, folder: str | Path) -> TransformersTokenizer:
        """Read the files of a tokenizer as `transformers` writes them; never uses the network.

        A `config.yaml` of ours beside them is checked where there is one.

        Raises:
            TokenizerError: if there is no tokenizer that `transformers` can read, or it has
                another number of ids than the config says.
            ImportError: if `transformers` is not installed.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise TokenizerError(f"{folder} is not a folder of a text tokenizer")
        has_config = (folder / "config.yaml").exists()
        config = _read_config(folder, "transformers") if has_config else None
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ImportError(
                "this text tokenizer needs transformers: pip install transformers"
            ) from error
        try:
            loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the library raises many kinds for a file that is not right
            raise TokenizerError(f"no text tokenizer can be read from {folder}: {error}") from error
        if config is None:
            return cls(loaded)
        return cls(loaded, config.normalizer)._checked(folder, config)

    def with_tokens(
        self, tokens: Sequence[str], *, are_special: bool = True
    ) -> TransformersTokenizer:
        """This tokenizer with tokens behind its own; those that it has stay as they are.

        Args:
            tokens: their names.
            are_special: whether decoding passes over them.
        """
        self._tokenizer.add_tokens(list(tokens), special_tokens=are_special)
        return self

    def save_library_files(self, folder: str | Path) -> None:
        """Write the library's files alone."""
        self._tokenizer.save_pretrained(str(folder))

    def save(self, folder: str | Path) -> None:
        """Write the library's files and `config.yaml`."""
        self.save_library_files(folder)
        save_config(self.config, Path(folder) / "config.yaml")

    @property
    def config(self) -> TextTokenizerConfig:
        """What `config.yaml` says."""
        return TextTokenizerConfig(
            kind="transformers", vocab_size=self.vocab_size, normalizer=self.normalizer
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included (the library's own number leaves those out)."""
        return len(self._tokenizer)

    @property
    def pad_id(self) -> int:
        """The id that fills up batches; 0 for a tokenizer that has none, as masks hide it."""
        pad_id = self._tokenizer.pad_token_id
        return 0 if pad_id is None else int(pad_id)

    @property
    def unk_id(self) -> int | None:
        """The id of unknown text; None for a tokenizer of bytes, which knows every text."""
        return self._tokenizer.unk_token_id

    def encode(self, text: str) -> list[int]:
        """Text to ids, without special tokens."""
        text = text.encode("utf-8", "replace").decode("utf-8")
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def with_lexicon(self, lexicon: UserLexicon) -> tuple[TextTokenizer, Respeller]:
        """Writes words as tokens of phones, such as `[W][IH1][N]`, where there are such tokens."""
        tags = tagged_phones(self._tokenizer.get_added_vocab())
        if not tags or self.normalizer != "none":
            return super().with_lexicon(lexicon)
        spelled = {
            word: "".join(tags[phone] for phone in fit_phones(phones, tags))
            for word, phones in lexicon.phones.items()
        }
        return self, Respeller(spelled, lambda _, key: spelled[key])

    @property
    def tags(self) -> frozenset[str]:
        """What stands in brackets in a text and is one token, such as `[breath]`."""
        return frozenset(name for name in self._tokenizer.get_added_vocab() if name[:1] in "<[")

    def _spell(self, phones: Sequence[str]) -> str:
        tags = tagged_phones(self._tokenizer.get_added_vocab())
        if not tags or self.normalizer != "none":
            return super()._spell(phones)
        return "".join(tags[phone] for phone in fit_phones(phones, tags))

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()


class PhonemeTokenizer(TextTokenizer):
    """Phones of normalised English, by a lexicon and letter-to-sound rules that were learned.

    English spelling says little of its sound; a small language model that reads letters spends most
    of its training on that. Every word is looked up by itself, so a text that is cut between words
    has the ids of its pieces, joined by the word boundary. The exception are homographs, which have
    more than one pronunciation in the lexicon (`live(verb)`, `live(adj)`): which one is meant
    depends on the words before it and on the next few behind.

    Args:
        phones: names of the phones, in the order of their ids.
        lexicon: words whose phones the pronouncer would not find, and the variants of homographs.
        pronouncer: says all other words; those with endings such as 's and n't are said after
            the word that has none.

    Raises:
        TokenizerError: the lexicon has a phone that is not among `phones`.
    """

    def __init__(self, phones: Sequence[str], lexicon: Lexicon, pronouncer: Pronouncer) -> None:
        self.phones = tuple(phones)
        self.lexicon: Mapping[str, tuple[str, ...]] = lexicon
        self.pronouncer = pronouncer.eval().requires_grad_(False)
        self._names = (*_SPECIAL, *self.phones)
        self._ids: Mapping[str, int] = {name: index for index, name in enumerate(self._names)}
        self._own: Mapping[str, tuple[str, ...]] = {}
        """The entries of the lexicon that a user has given."""
        self._cache: dict[str, list[int]] = {}
        """Cached ids of words, and of variants of homographs."""
        self._has_variants = any(word.endswith(")") for word in lexicon)
        # Other phones than those of the CMU dictionary have no rule here.
        self._has_endings = ENDING_PHONES <= set(self.phones)
        unknown = {phone for said in lexicon.values() for phone in said} - set(self.phones)
        if unknown:
            raise TokenizerError(f"the lexicon has phones that are not known: {sorted(unknown)}")
        self._config = TextTokenizerConfig(kind="phonemes", vocab_size=self.vocab_size)

    @classmethod
    def from_folder(cls, folder: str | Path) -> PhonemeTokenizer:
        """Read what `save` wrote.

        Raises:
            TokenizerError: if a file is missing, cannot be read, or does not fit the others.
        """
        folder = Path(folder)
        config = _read_config(folder, "phonemes")
        path = folder / PRONOUNCER_FILE
        try:
            phones = (folder / PHONES_FILE).read_text(encoding="utf-8").split()
            weights = {name: tensor.float() for name, tensor in load_file(path).items()}
            num_layers = sum(name.endswith("conv.weight") for name in weights)
            pronouncer = Pronouncer(
                len(phones), weights["embedding.weight"].shape[1], num_layers
            ).float()
            pronouncer.load_state_dict(weights)
        except FileNotFoundError as error:
            raise TokenizerError(f"{error.filename or path} is missing") from None
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            raise TokenizerError(f"{path} cannot be read: {error}") from error
        try:
            lexicon = read_lexicon(folder / LEXICON_FILE)
        except LexiconError as error:
            raise TokenizerError(str(error)) from error
        return cls(phones, lexicon, pronouncer)._checked(folder, config)

    def save(self, folder: str | Path) -> None:
        """Write lexicon, phones, weights and `config.yaml`, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_lexicon(self.lexicon, folder / LEXICON_FILE)
        with atomic_path(folder / PHONES_FILE) as path:
            path.write_text("\n".join(self.phones) + "\n", encoding="utf-8", newline="\n")
        weights = {name: t.half().contiguous() for name, t in self.pronouncer.state_dict().items()}
        with atomic_path(folder / PRONOUNCER_FILE) as path:
            path.write_bytes(save(weights))
        save_config(self.config, folder / "config.yaml")

    @property
    def config(self) -> TextTokenizerConfig:
        """What `config.yaml` says."""
        return self._config

    @property
    def vocab_size(self) -> int:
        """Number of ids: padding, unknown, word boundary, marks, phones."""
        return len(self._names)

    @property
    def pad_id(self) -> int:
        """The id that fills up batches."""
        return 0

    @property
    def unk_id(self) -> int:
        """The id of what is unknown; `encode` passes that over."""
        return 1

    def encode(self, text: str) -> list[int]:
        """Normalised text to ids; what is neither word nor mark is passed over.

        Example: "hello, world" is `hh ax l ow1 , | w er1 l d`.
        """
        return self._encode(split_parts(text))

    def encode_prefix(self, text: str) -> list[int]:
        """Ids of the beginning of a longer text, as far as no further words can change them."""
        parts = split_parts(text)
        if not self._has_variants:
            return self._encode(parts)
        tagger = load_tagger()
        is_open = (at for at in range(len(parts)) if not tagger.is_settled(parts, at))
        return self._encode(parts, end=next(is_open, len(parts)))

    def _encode(self, parts: Sequence[str], end: int | None = None) -> list[int]:
        """Ids of `parts[:end]`; the parts behind are context only."""
        spoken = list(parts[:end])
        if self._has_variants:
            tagger = load_tagger()
            for at, part in enumerate(spoken):
                if part in tagger and part not in self._own:
                    spoken[at] = self._key(tagger, parts, at)
        known = self._pronounce({part for part in spoken if part not in MARKS})
        ids: list[int] = []
        for part in spoken:
            if part in MARKS:
                ids.append(self._ids[part])
            elif said := known[part]:
                ids += [self._ids[BOUNDARY], *said] if ids else said
        return ids

    def _key(self, tagger: HomographTagger, parts: Sequence[str], at: int) -> str:
        """The variant of a homograph as the lexicon names it, where the lexicon has it."""
        word, variant = parts[at], tagger.variant(parts, at)
        lemma = tagger.lemma(word)
        own, derived = f"{word}({variant})", f"{lemma}({variant})"
        if own in self.lexicon:
            return own
        can_derive = self._has_endings and lemma != word and derived in self.lexicon
        return f"{derived}s" if can_derive else word

    def _decode(self, ids: list[int]) -> str:
        """Names of phones and marks, separated by spaces; padding is passed over."""
        return " ".join(self._names[index] for index in ids if index != self.pad_id)

    @property
    def sounds(self) -> tuple[str, ...]:
        """The phones without stress, sorted: what `pronounce` gives."""
        return tuple(sorted({_unstressed(phone) for phone in self.phones}))

    def pronounce(self, text: str) -> list[str]:
        """The sounds of a normalised text: phones without stress, marks and boundaries.

        Example: "hello, world" is `hh ax l ow w er l d`.
        """
        ids = [index - len(_SPECIAL) for index in self.encode(text)]
        return [_unstressed(self.phones[index]) for index in ids if index >= 0]

    def _pronounce(self, words: set[str]) -> dict[str, list[int]]:
        """Ids of these words, and of others that are cached."""
        # A local name: another thread may start anew with an empty cache.
        known = self._cache if len(self._cache) <= _MAX_CACHED else {}
        self._cache = known
        roots = {word: self._root(word) for word in sorted(words - known.keys())}
        first = sorted({root for root, *_ in roots.values()})
        listed = {root: self.lexicon.get(root) or self._spelled(root) for root in first}
        found = {root: phones for root, phones in listed.items() if phones is not None}
        unlisted = [root for root in first if root not in found]
        for word, said in zip(unlisted, self.pronouncer.pronounce(unlisted), strict=True):
            found[word] = tuple(self.phones[phone] for phone in said)
        for word, (root, *endings) in roots.items():
            phones = found[root]
            for ending in endings:
                phones = add_ending(phones, ending) if phones else phones
            known[word] = [self._ids[phone] for phone in phones]
        return known

    def _spell(self, phones: Sequence[str]) -> str:
        numbers = [self.phones.index(phone) for phone in fit_phones(phones, self.phones)]
        letters = "".join(chr(97 + part) for number in numbers for part in divmod(number, 26))
        return f"zqx{letters}xqz"

    def _spelled(self, word: str) -> tuple[str, ...] | None:
        """The phones of a word of `spell`; None for any other."""
        match = _SPELLED.fullmatch(word)
        if match is None:
            return None
        codes = [ord(letter) - 97 for letter in match[1]]
        numbers = [26 * high + low for high, low in zip(codes[::2], codes[1::2], strict=True)]
        return tuple(self.phones[n] for n in numbers) if max(numbers) < len(self.phones) else None

    def _root(self, word: str) -> list[str]:
        """The word to look up or to pronounce, and the endings behind it."""
        if word in self.lexicon and not self._is_owned(word):
            return [word]
        if word.endswith(")s"):  # a variant of a homograph, and the ending of its plural
            return [word[:-1], "s"]
        parts = split_ending(word) if self._has_endings else None
        return [*self._root(parts[0]), parts[1]] if parts else [word]

    def _is_owned(self, word: str) -> bool:
        """Whether a word of the built-in lexicon is an ending behind one that a user has given."""
        parts = split_ending(word) if self._own and word not in self._own else None
        return bool(self._has_endings and parts and parts[0] in self._own)

    def with_lexicon(self, lexicon: UserLexicon) -> tuple[PhonemeTokenizer, Respeller]:
        """This tokenizer with entries that win over its own; see `TextTokenizer`."""
        words = frontend(self.config.normalizer).words

        def normalize(text: str) -> str:
            return " ".join(words(text))

        fitted = {}
        for word, phones in lexicon.phones.items():
            try:
                fitted[word] = fit_phones(phones, self.phones)
            except LexiconError as error:
                raise LexiconError(f"{word!r}: {error}") from None
        own = {word: phones for word, phones in fitted.items() if is_plain(word)}
        taken = ChainMap(own, dict(self.lexicon))
        spelled: dict[str, str] = {}

        def make_up(key: str) -> str:
            if key not in spelled:
                name = made_up_word(key, normalize, taken)
                own[name] = fitted[key]
                spelled[key] = name
            return spelled[key]

        for key in fitted:
            if not is_plain(key):
                make_up(key)

        def spell(word: str, key: str) -> str:
            if key in spelled:
                return spelled[key]
            written = next((form for form in (word, key) if normalize(form) == key), None)
            return written or make_up(key)

        tokenizer = copy.copy(self)
        tokenizer._own = ChainMap(own, dict(self._own))
        tokenizer.lexicon = ChainMap(own, dict(self.lexicon))
        tokenizer._cache = {}
        tokenizer._has_variants = self._has_variants or any(word.endswith(")") for word in own)
        return tokenizer, Respeller(fitted, spell)

    def unlisted_words(self, text: str) -> list[str]:
        """Words of a normalised text that no lexicon lists, so that they are said by rule."""
        words = (part for part in split_parts(text) if part not in MARKS)
        roots = {word: self._root(word)[0] for word in words}
        return [
            word
            for word, root in roots.items()
            if root not in self.lexicon and self._spelled(root) is None
        ]


_KINDS: dict[TokenizerKind, type[TextTokenizer]] = {
    "sentencepiece": SentencePieceTokenizer,
    "transformers": TransformersTokenizer,
    "phonemes": PhonemeTokenizer,
}


def load_text_tokenizer(folder: str | Path) -> TextTokenizer:
    """Read a tokenizer folder of any kind.

    Raises:
        TokenizerError: if the folder holds no tokenizer that can be read.
    """
    return _KINDS[read_tokenizer_config(folder).kind].from_folder(folder)


def split_parts(text: str) -> list[str]:
    """The words and marks of a normalised text; what is neither is passed over."""
    return _PARTS.findall(text.lower().replace("-", " "))


def _unstressed(phone: str) -> str:
    """A phone without the digit of its stress: `ow1` is `ow`."""
    return phone.rstrip("0123456789")
