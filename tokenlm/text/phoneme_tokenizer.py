"""Normalised text <-> ids of phones, by a lexicon and letter-to-sound rules that were learned.

English spelling says little of its sound; a small language model that reads letters spends most of
its training on that. With phones its text is near what it has to say. Every word is looked up by
itself, so a text cut between words has the same ids as its pieces, joined by the word boundary;
but for homographs, of which the lexicon has more than one sound (`live(verb)`, `live(adj)`): which
one is meant is told by the words around them, of those behind by the next few alone.
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
from tokenlm.text.endings import ENDING_PHONES, add_ending, split_ending
from tokenlm.text.homographs import HomographTagger, load_tagger
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
        lexicon: words whose phones the pronouncer would not find, and the variants of homographs.
        pronouncer: says all other words; those with endings such as 's and n't are said after
            the word that has none.

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
        """Ids of words, and of variants of homographs, that have been said."""
        self._has_variants = any(word.endswith(")") for word in lexicon)
        # Other phones than those of the CMU dictionary have no rule here.
        self._has_endings = ENDING_PHONES <= set(self.phones)
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
        return self._encode(split_parts(text))

    def encode_open(self, text: str) -> list[int]:
        """Ids of a normalised text that goes on, as far as no further words can change them."""
        parts = split_parts(text)
        if not self._has_variants:
            return self._encode(parts)
        tagger = load_tagger()
        is_open = (at for at in range(len(parts)) if not tagger.is_settled(parts, at))
        return self._encode(parts, end=next(is_open, len(parts)))

    def _encode(self, parts: Sequence[str], end: int | None = None) -> list[int]:
        """Ids of `parts[:end]`; what stands behind is looked at, but not said."""
        spoken = list(parts[:end])
        if self._has_variants:
            tagger = load_tagger()
            for at, part in enumerate(spoken):
                if part in tagger:
                    spoken[at] = self._key(tagger, parts, at)
        all_said = self._pronounce({part for part in spoken if part not in MARKS})
        ids: list[int] = []
        for part in spoken:
            if part in MARKS:
                ids.append(self._ids[part])
            elif said := all_said[part]:
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

    def encode_sample(self, text: str, generator: torch.Generator, alpha: float = 0.1) -> list[int]:
        """The same as `encode`: a text has one pronunciation here."""
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

    def _pronounce(self, words: set[str]) -> dict[str, list[int]]:
        """Ids of words, of these and of others."""
        # Held by itself: another thread may begin anew with an empty one.
        all_said = self._said if len(self._said) <= _MAX_CACHED else {}
        self._said = all_said
        roots = {word: self._root(word) for word in sorted(words - all_said.keys())}
        unlisted = sorted({root for root, *_ in roots.values() if root not in self.lexicon})
        found = {root: self.lexicon[root] for root, *_ in roots.values() if root in self.lexicon}
        for word, said in zip(unlisted, self.pronouncer.pronounce(unlisted), strict=True):
            found[word] = tuple(self.phones[phone] for phone in said)
        for word, (root, *endings) in roots.items():
            phones = found[root]
            for ending in endings:
                phones = add_ending(phones, ending) if phones else phones
            all_said[word] = [self._ids[phone] for phone in phones]
        return all_said

    def _root(self, word: str) -> list[str]:
        """The word to look up or to pronounce, and the endings that are said behind it."""
        if word in self.lexicon:
            return [word]
        if word.endswith(")s"):  # a variant of a homograph, and the ending of its plural
            return [word[:-1], "s"]
        parts = split_ending(word) if self._has_endings else None
        return [*self._root(parts[0]), parts[1]] if parts else [word]


def split_parts(text: str) -> list[str]:
    """The words and marks of a normalised text; what is neither is passed over."""
    return _PARTS.findall(text.lower().replace("-", " "))


def _unstressed(phone: str) -> str:
    """A phone without the digit of its stress: `ow1` is `ow`."""
    return phone.rstrip("0123456789")
