"""Normalised text <-> ids of phones, by a lexicon and letter-to-sound rules that were learned.

English spelling says little of its sound; a small language model that reads letters spends most of
its training on that. With phones its text is near what it has to say. Every word is looked up by
itself, so a text cut between words has the same ids as its pieces, joined by the word boundary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from tokenlm.atomic import atomic_path
from tokenlm.config import save_config
from tokenlm.text.lexicon import Lexicon, read_lexicon, write_lexicon
from tokenlm.text.pronouncer import Pronouncer
from tokenlm.text.tokenizer_config import (
    TextTokenizerConfig,
    TokenizerError,
    read_tokenizer_config,
)

LEXICON_FILE = "lexicon.txt"
PHONES_FILE = "phones.txt"
PRONOUNCER_FILE = "pronouncer.safetensors"
BOUNDARY = "|"
"""Between two words."""
MARKS = ",.?!;:"
_SPECIAL = ("<pad>", "<unk>", BOUNDARY, *MARKS)
_PARTS = re.compile(r"[a-z']+|[,.?!;:]")
_MAX_CACHED = 20_000


class PhonemeTokenizer:
    """Phones of normalised English.

    Args:
        phones: names of the phones, in the order of their ids.
        lexicon: words whose phones the pronouncer would not find.
        pronouncer: says all other words.

    Raises:
        TokenizerError: the lexicon has a phone that is not among `phones`.
    """

    model_type = None
    pad_id = 0
    unk_id = 1

    def __init__(self, phones: Sequence[str], lexicon: Lexicon, pronouncer: Pronouncer) -> None:
        self.phones = tuple(phones)
        self.lexicon = lexicon
        self.pronouncer = pronouncer.eval().requires_grad_(False)
        self._names = (*_SPECIAL, *self.phones)
        self._ids: Mapping[str, int] = {name: index for index, name in enumerate(self._names)}
        self._said: dict[str, list[int]] = {}
        unknown = {phone for said in lexicon.values() for phone in said} - set(self.phones)
        if unknown:
            raise TokenizerError(f"the lexicon has phones that are not known: {sorted(unknown)}")

    @classmethod
    def from_folder(cls, folder: str | Path) -> PhonemeTokenizer:
        """Read what `save` wrote.

        Raises:
            TokenizerError: if a file is missing, cannot be read, or does not fit the others.
        """
        folder = Path(folder)
        config = read_tokenizer_config(folder)
        if config.kind != "phonemes":
            raise TokenizerError(f"{folder} holds a {config.kind} tokenizer, not one of phonemes")
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
        tokenizer = cls(phones, read_lexicon(folder / LEXICON_FILE), pronouncer)
        if tokenizer.vocab_size != config.vocab_size:
            raise TokenizerError(
                f"the tokenizer in {folder} has {tokenizer.vocab_size} ids, but config.yaml "
                f"beside it says {config.vocab_size}"
            )
        return tokenizer

    def save(self, folder: str | Path) -> None:
        """Write lexicon, phones, weights and `config.yaml`, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_lexicon(self.lexicon, folder / LEXICON_FILE)
        with atomic_path(folder / PHONES_FILE) as path:
            path.write_text("\n".join(self.phones) + "\n", encoding="utf-8")
        weights = {name: t.half().contiguous() for name, t in self.pronouncer.state_dict().items()}
        with atomic_path(folder / PRONOUNCER_FILE) as path:
            path.write_bytes(save(weights))
        save_config(self.config, folder / "config.yaml")

    @property
    def config(self) -> TextTokenizerConfig:
        """What `config.yaml` says."""
        return TextTokenizerConfig(kind="phonemes", vocab_size=self.vocab_size)

    @property
    def vocab_size(self) -> int:
        """Number of ids: padding, unknown, word boundary, marks, phones."""
        return len(self._names)

    def encode(self, text: str) -> list[int]:
        """Normalised text to ids; what is neither word nor mark is passed over.

        Example: "hello, world" is `hh ax l ow1 , | w er1 l d`.
        """
        parts = _PARTS.findall(text.lower().replace("-", " "))
        self._pronounce({part for part in parts if part not in MARKS})
        ids: list[int] = []
        for part in parts:
            if part in MARKS:
                ids.append(self._ids[part])
            elif said := self._said[part]:
                ids += [self._ids[BOUNDARY], *said] if ids else said
        return ids

    def encode_sample(self, text: str, generator: torch.Generator, alpha: float = 0.1) -> list[int]:
        """The same as `encode`: a word has one pronunciation here."""
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Names of phones and marks, parted by spaces; padding is passed over.

        Raises:
            TokenizerError: for an id outside the vocabulary.
        """
        ids = [int(index) for index in ids]
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise TokenizerError(f"text token {index} is outside 0..{self.vocab_size - 1}")
        return " ".join(self._names[index] for index in ids if index != self.pad_id)

    @property
    def sounds(self) -> tuple[str, ...]:
        """The phones without stress, sorted: what `pronounce` gives."""
        return tuple(sorted({_unstressed(phone) for phone in self.phones}))

    def pronounce(self, text: str) -> list[str]:
        """What is heard of a normalised text: phones without stress, marks and boundaries.

        Example: "hello, world" is `hh ax l ow w er l d`.
        """
        ids = [index - len(_SPECIAL) for index in self.encode(text)]
        return [_unstressed(self.phones[index]) for index in ids if index >= 0]

    def _pronounce(self, words: set[str]) -> None:
        """Fill in `_said` for the words."""
        if len(self._said) > _MAX_CACHED:
            self._said = {}
        new = sorted(words - self._said.keys())
        unlisted = []
        for word in new:
            said = self.lexicon.get(word)
            if said is None:
                unlisted.append(word)
            else:
                self._said[word] = [self._ids[phone] for phone in said]
        found = self.pronouncer.pronounce(unlisted)
        for word, phones in zip(unlisted, found, strict=True):
            self._said[word] = [phone + len(_SPECIAL) for phone in phones]


def _unstressed(phone: str) -> str:
    """A phone without the digit of its stress: `ow1` is `ow`."""
    return phone.rstrip("0123456789")
