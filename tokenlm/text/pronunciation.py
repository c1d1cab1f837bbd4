"""How words are pronounced: a lexicon, regular endings, and letter-to-sound for all other words.

The lexicon is in the plain format of the CMU dictionary; it may be edited by hand to mend how a
name is pronounced:

    ;;; a comment
    photograph  f ow1 t ax g r ae1 f
    live(verb)  l ih1 v

A name in brackets is a variant of a homograph (`tokenlm/text/homographs.txt`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.atomic import atomic_path
from tokenlm.text.tokenizer_config import TokenizerError

# --- Lexicon ---

Lexicon = dict[str, tuple[str, ...]]
"""Lower-case word -> its phones."""

_VARIANT = re.compile(r"\(\d+\)$")


def read_lexicon(path: str | Path) -> Lexicon:
    """Read a lexicon; of several pronunciations of a word the first one counts.

    Raises:
        TokenizerError: there is no such file, or a line has no phones; the line is named.
    """
    lexicon: Lexicon = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"the lexicon {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";;;"):
            continue
        word, *phones = line.split()
        if not phones:
            raise TokenizerError(f"{path}, line {number}: the word {word!r} has no phones")
        lexicon.setdefault(_VARIANT.sub("", word).lower(), tuple(phone.lower() for phone in phones))
    return lexicon


def write_lexicon(lexicon: Mapping[str, tuple[str, ...]], path: str | Path) -> None:
    """Write a lexicon in alphabetical order, whole or not at all."""
    lines = [f"{word}  {' '.join(phones)}\n" for word, phones in sorted(lexicon.items())]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


# --- Regular endings of plurals, possessives and contractions ---
#
#     dog's  dog + z        isn't  is + ax n t        judges'  judges        it'd  it + ax d
#
# The phones are those of the CMU dictionary and of flite, with or without digits of stress.

_HISSING = frozenset({"s", "z", "sh", "zh", "ch", "jh"})
_VOICELESS = frozenset({"p", "t", "k", "f", "th", *_HISSING - {"z", "zh", "jh"}})
_VOWELS = frozenset("aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw".split())
_LIQUIDS = frozenset({"l", "r", "m", "n", "ng"})
ENDING_PHONES = frozenset("ax d er l m n s t v z".split())
"""All phones that an ending may add."""
_ENDINGS = ("n't", "'ve", "'ll", "'re", "'d", "'m", "'s", "'")
_OWN_SOUND = frozenset("ain't can't don't shan't won't you're they're we're".split())
"""Contractions that are not pronounced as their words are."""


def split_ending(word: str) -> tuple[str, str] | None:
    """Split a contraction or possessive: `isn't` is ("is", "n't").

    Returns:
        None where the word has no ending of this kind, or is pronounced irregularly.
    """
    if word in _OWN_SOUND:
        return None
    for ending in _ENDINGS:
        base = word.removesuffix(ending)
        if base != word and base.strip("'"):
            return base, ending
    return None


def add_ending(phones: Sequence[str], ending: str) -> tuple[str, ...]:
    """The phones of a word with an ending of `split_ending`, or `s` of a plural or a verb.

    Args:
        phones: of the word, at least one.
        ending: what is added.
    """
    last = phones[-1].rstrip("0123456789")
    is_vowel = last in _VOWELS
    if ending in ("s", "'s"):
        if last in _HISSING:
            return (*phones, "ax", "z")
        return (*phones, "s" if last in _VOICELESS else "z")
    if ending == "'":  # dogs', James'
        return tuple(phones)
    if ending == "n't":
        if last == "t" and len(phones) > 1 and phones[-2] == "s":
            phones = phones[:-1]  # the first t of mustn't is silent
        return (*phones, "n", "t") if is_vowel else (*phones, "ax", "n", "t")
    if ending == "'re":
        return (*phones, "er")
    sound = {"'ve": "v", "'ll": "l", "'d": "d", "'m": "m"}[ending]
    joins = is_vowel or (ending == "'d" and last in _LIQUIDS)
    return (*phones, sound) if joins else (*phones, "ax", sound)


def ends_in_voiceless_z(phones: Sequence[str]) -> bool:
    """Whether a last z follows a voiceless phone, as it does in no English word."""
    return len(phones) > 1 and phones[-1] == "z" and phones[-2] in _VOICELESS


# --- Letter to sound ---
#
# Shapes: B words, L letters, D channels, P phones known. Convolutions see each letter among its
# neighbours, and connectionist temporal classification (Graves et al., 2006) aligns the phones by
# itself, so that a lexicon is all that training needs. Every letter has two places for phones,
# which is enough for English: few letters, such as x and u, stand for two phones.

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
"""Letters read; index 0 is padding."""
PLACES_PER_LETTER = 2
_KERNEL_SIZE = 5


class _Block(nn.Module):
    """Convolution over neighbouring letters, with a residual connection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv = nn.Conv1d(dim, dim, _KERNEL_SIZE, padding=_KERNEL_SIZE // 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = self.norm(x) * mask
        return x + functional.gelu(self.conv(hidden.transpose(1, 2))).transpose(1, 2)


class Pronouncer(nn.Module):
    """Words to phone indices.

    Args:
        num_phones: P; index 0 of the outputs is the blank, phone p is output p + 1.
        dim: channels.
        num_layers: each sees two letters further to both sides.
    """

    def __init__(self, num_phones: int, dim: int = 96, num_layers: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS) + 1, dim)
        self.blocks = nn.ModuleList(_Block(dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.phones = nn.Linear(dim, PLACES_PER_LETTER * (num_phones + 1))

    def forward(self, letters: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities (B, L * PLACES_PER_LETTER, P + 1) of phones.

        Args:
            letters: (B, L) indices into `LETTERS` plus 1, 0 where padded.
            lengths: (B,) letters of each word, at least 1.
        """
        batch, size = letters.shape
        mask = torch.arange(size, device=letters.device)[None] < lengths[:, None]
        x = self.embedding(letters)
        for block in self.blocks:
            x = block(x, mask[..., None])
        scores = self.phones(self.norm(x)).view(batch, size * PLACES_PER_LETTER, -1)
        return scores.log_softmax(dim=-1)

    @torch.inference_mode()
    def pronounce(self, words: Sequence[str]) -> list[list[int]]:
        """Phone indices (0 and up) of each word by the best path; letters not known are dropped."""
        if not words:
            return []
        letters, lengths = pad_words(words)
        best = self(letters, lengths).argmax(dim=-1)
        return [
            [
                phone - 1
                for place, phone in enumerate(path)
                if phone and (place == 0 or path[place - 1] != phone)
            ]
            for path in (
                row[: length * PLACES_PER_LETTER]
                for row, length in zip(best.tolist(), lengths.tolist(), strict=True)
            )
        ]


def encode_letters(word: str) -> list[int]:
    """Indices of the letters of a word; [0], a pause, when it has none."""
    return [LETTERS.index(letter) + 1 for letter in word if letter in LETTERS] or [0]


def pad_words(words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Letters (B, L), padded behind with 0, and the length (B,) of each word."""
    rows = [torch.tensor(encode_letters(word)) for word in words]
    lengths = torch.tensor([row.shape[0] for row in rows])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths
