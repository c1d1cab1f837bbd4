"""Letters to phones, for words that the lexicon lacks.

Shapes: B words, L letters, D channels, P phones known. Convolutions see each letter among its
neighbours, and connectionist temporal classification (Graves et al., 2006) aligns the phones by
itself, so that a lexicon is all that training needs. Every letter has two places for phones, which
is enough for English: few letters, such as x and u, stand for two phones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

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
