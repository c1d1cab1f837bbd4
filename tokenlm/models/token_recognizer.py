"""Token recogniser: the second half of the recogniser, speech tokens to text.

Shapes: B batch, N tokens, C digits of a code, D channels, L characters, V characters known, P
phones known. It is trained together with the tokenizer, or afterwards on tokens that are given, and
stays useful: it transcribes, and it is the cheapest check that generated tokens say what they
should. Where it reads phones, too, that check is a better one: most of what it gets wrong in
letters is spelling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from tokenlm.modules.attention import Transformer
from tokenlm.modules.quantizer import FiniteScalarQuantizer
from tokenlm.text.transcripts import ENGLISH_ALPHABET, check_alphabet, decode_characters

PHONES_PER_TOKEN = 2
"""Outputs of the phone head at each token; quick speech has more phones than tokens."""


@dataclass(frozen=True, kw_only=True)
class TokenRecognizerConfig:
    """Sizes of a `TokenRecognizer`."""

    levels: tuple[int, ...] = (5, 5, 5, 5)
    """Levels of the tokenizer's quantizer."""
    alphabet: str = ENGLISH_ALPHABET
    """Characters that it writes, in the order of its outputs; output 0 is the CTC blank and the
    decoder's end."""
    phones: tuple[str, ...] = ()
    """Phones that it reads besides, in the order of the outputs of their own CTC layer, after its
    blank; without any it has no such layer."""
    dim: int = 192
    num_heads: int = 4
    num_layers: int = 3
    num_decoder_layers: int = 1
    """Layers of the attention decoder; 0 builds none, to transcribe by CTC alone."""
    expansion: float = 4.0
    dropout: float = 0.0
    max_characters: int = 1024
    """Longest text that the attention decoder writes."""

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 3:
            raise ValueError(f"levels must be at least 3 each, got {self.levels}")
        check_alphabet(self.alphabet)
        if len(set(self.phones)) < len(self.phones) or not all(self.phones):
            raise ValueError(f"phones must have names, each another one, got {self.phones}")


class TokenRecognizer(nn.Module):
    """Speech tokens, or code vectors with a gradient, to text."""

    def __init__(self, config: TokenRecognizerConfig) -> None:
        super().__init__()
        self.config = config
        vocabulary = len(config.alphabet) + 1
        self.codes = FiniteScalarQuantizer(1, config.levels).requires_grad_(False).fsq
        self.project = nn.Linear(len(config.levels), config.dim)
        self.encoder = Transformer(
            dim=config.dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            expansion=config.expansion,
            dropout=config.dropout,
        )
        self.ctc = nn.Linear(config.dim, vocabulary)
        if config.phones:
            self.phone_ctc = nn.Linear(config.dim, PHONES_PER_TOKEN * (len(config.phones) + 1))
        if config.num_decoder_layers:
            self.character_embedding = nn.Embedding(vocabulary, config.dim)
            self.position_embedding = nn.Embedding(config.max_characters + 1, config.dim)
            self.decoder = nn.TransformerDecoder(
                nn.TransformerDecoderLayer(
                    config.dim,
                    config.num_heads,
                    int(config.dim * config.expansion),
                    config.dropout,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                ),
                config.num_decoder_layers,
                norm=nn.LayerNorm(config.dim),
            )
            self.character_head = nn.Linear(config.dim, vocabulary)

    def forward(self, codes: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """CTC log-probabilities of code vectors.

        Args:
            codes: (B, N, C) digits, as `SpeechTokenizer.forward` gives them.
            mask: (B, N) True where valid.

        Returns:
            Hidden states (B, N, D) and log-probabilities (B, N, V + 1), blank first.
        """
        hidden = self.encoder(self.project(codes), mask=mask)
        return hidden, self.ctc(hidden).log_softmax(dim=-1)

    def phone_log_probs(self, hidden: Tensor) -> Tensor:
        """CTC log-probabilities of phones.

        Args:
            hidden: (B, N, D) of `forward`.

        Returns:
            (B, N * PHONES_PER_TOKEN, P + 1), blank first.

        Raises:
            ValueError: the model was built without phones.
        """
        if not self.config.phones:
            raise ValueError("this token recogniser reads no phones")
        logits = self.phone_ctc(hidden).unflatten(2, (PHONES_PER_TOKEN, -1)).flatten(1, 2)
        return logits.log_softmax(dim=-1)

    def decode_logits(
        self, hidden: Tensor, characters: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Logits (B, L + 1, V + 1) of the attention decoder, teacher-forced.

        Args:
            hidden: (B, N, D) of `forward`.
            characters: (B, L) indices, 0 where padded; position l + 1 of the output is predicted
                from the first l of them, the end (0) from all.
            mask: (B, N) True where `hidden` is valid.

        Raises:
            ValueError: the model was built without a decoder.
        """
        if not self.config.num_decoder_layers:
            raise ValueError("this token recogniser has no attention decoder")
        shifted = nn.functional.pad(characters, (1, 0))
        positions = torch.arange(shifted.shape[1], device=characters.device)
        x = self.character_embedding(shifted) + self.position_embedding(positions)
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        decoded = self.decoder(
            x,
            hidden,
            tgt_mask=causal,
            tgt_is_causal=True,
            memory_key_padding_mask=None if mask is None else ~mask,
        )
        return self.character_head(decoded)

    def without_decoder(self) -> TokenRecognizer:
        """A copy that transcribes by CTC alone, a third smaller."""
        smaller = TokenRecognizer(replace(self.config, num_decoder_layers=0))
        kept = smaller.state_dict().keys()
        smaller.load_state_dict({k: v for k, v in self.state_dict().items() if k in kept})
        return smaller

    @torch.inference_mode()
    def transcribe(self, tokens: Tensor, lengths: Tensor | None = None) -> list[str]:
        """Text of speech tokens (B, N) by the best CTC path."""
        if lengths is None:
            lengths = torch.full((tokens.shape[0],), tokens.shape[1], device=tokens.device)
        mask = torch.arange(tokens.shape[1], device=tokens.device)[None] < lengths[:, None]
        _, log_probs = self(self.code_vectors(tokens), mask)
        best = log_probs.argmax(dim=-1)
        return [
            decode_characters(greedy_ctc(row[:n].tolist()), self.config.alphabet)
            for row, n in zip(best, lengths.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def read_phones(self, hidden: Tensor, lengths: Tensor) -> list[list[int]]:
        """Indices, 1 and up, of the phones in hidden states (B, N, D), by the best CTC path."""
        best = self.phone_log_probs(hidden).argmax(dim=-1)
        ends = (lengths * PHONES_PER_TOKEN).tolist()
        return [greedy_ctc(row[:end].tolist()) for row, end in zip(best, ends, strict=True)]

    def code_vectors(self, tokens: Tensor) -> Tensor:
        """Code vectors (B, N, C) of tokens (B, N)."""
        return self.codes.indices_to_codes(tokens)


def greedy_ctc(path: Sequence[int]) -> list[int]:
    """Indices that a CTC path writes: repetitions joined, blanks (0) dropped."""
    return [c for i, c in enumerate(path) if c and (i == 0 or path[i - 1] != c)]


def align_ctc(
    log_probs: Tensor, units: Sequence[int], *, is_complete: bool = True
) -> list[tuple[int, int]] | None:
    """The most likely places of units on a CTC path (Viterbi).

    Args:
        log_probs: (T, U + 1) of each place, blank first.
        units: indices, 1 and up, that are to be read.
        is_complete: whether all units are read; otherwise the path may end behind any of them.

    Returns:
        For each unit that is read the first place that shows it, and the one behind the last; None
        where the places are too few for the units.
    """
    num_places, num_states = log_probs.shape[0], 2 * len(units) + 1
    if num_places == 0:
        return None if is_complete and units else []
    labels = np.zeros(num_states, dtype=np.int64)  # blanks stand between the units and around them
    labels[1::2] = units
    may_skip = np.zeros(num_states, dtype=bool)  # the blank between two units that differ
    may_skip[3::2] = labels[3::2] != labels[1:-2:2]
    chances = log_probs.double().cpu().numpy()[:, labels]
    best = np.full(num_states, -np.inf)
    best[:2] = chances[0, :2]
    steps = np.zeros((num_places, num_states), dtype=np.int8)
    arrivals = np.full((3, num_states), -np.inf)
    for place in range(1, num_places):
        arrivals[0] = best
        arrivals[1, 1:] = best[:-1]
        arrivals[2, 2:] = np.where(may_skip[2:], best[:-2], -np.inf)
        steps[place] = arrivals.argmax(axis=0)
        best = arrivals.max(axis=0) + chances[place]
    state = int(best.argmax()) if not is_complete else num_states - 1
    if is_complete and units and best[-2] > best[-1]:
        state -= 1
    if best[state] == -np.inf:
        return None
    spans: list[tuple[int, int]] = [(0, 0)] * ((state + 1) // 2)
    for place in range(num_places - 1, -1, -1):
        if state % 2:
            unit = state // 2
            spans[unit] = place, spans[unit][1] or place + 1
        state -= int(steps[place, state])
    return spans
