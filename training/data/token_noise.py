"""Noise on speech tokens, so that what reads them does not rely on any single one.

A recogniser that was trained on the tokens of recordings meets those of a speech LM, whose slips
are of two kinds: a code beside the right one, and a code that belongs elsewhere. Both are drawn
here, and short spans are hidden (as time masking of SpecAugment does, Park et al., 2019).

Shapes: N speech tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

HIDDEN = -1
"""Stands in the place of a token that is hidden."""


@dataclass(frozen=True, kw_only=True)
class TokenNoiseConfig:
    """How much noise there is; shares are of all tokens, on average."""

    shifted_share: float = 0.1
    """Tokens of which one digit moves to a level beside its own."""
    replaced_share: float = 0.05
    """Tokens that become another one of their utterance."""
    hidden_share: float = 0.1
    """Tokens that are hidden, in spans."""
    max_hidden_tokens: int = 5
    """Longest of these spans."""

    def __post_init__(self) -> None:
        for name in ("shifted_share", "replaced_share", "hidden_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.max_hidden_tokens < 1:
            raise ValueError(f"max_hidden_tokens must be at least 1, got {self.max_hidden_tokens}")


def spoil_tokens(
    tokens: Tensor, levels: tuple[int, ...], config: TokenNoiseConfig, generator: torch.Generator
) -> Tensor:
    """Tokens (N,) with noise; those that are hidden are `HIDDEN`.

    Args:
        tokens: (N,) at least one.
        levels: of the digits of a code, that of the lowest place first.
        config: how much.
        generator: the draws.
    """
    count = tokens.shape[0]
    chances = torch.rand(2, count, generator=generator)
    shifted = shift_digits(tokens, levels, generator)
    others = tokens[torch.randint(count, (count,), generator=generator)]
    found = torch.where(chances[0] < config.shifted_share, shifted, tokens)
    found = torch.where(chances[1] < config.replaced_share, others, found)
    return found.masked_fill(draw_spans(count, config, generator), HIDDEN)


def shift_digits(tokens: Tensor, levels: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Tokens (N,) of which one digit, drawn evenly, is at a level beside its own."""
    sizes = torch.tensor(levels)
    places = torch.tensor([math.prod(levels[:digit]) for digit in range(len(levels))])
    which = torch.randint(len(levels), tokens.shape, generator=generator)
    up = torch.rand(tokens.shape, generator=generator) < 0.5
    digit = tokens // places[which] % sizes[which]
    # Past the last level lies nothing: the first moves up, the last down.
    up = torch.where(digit == 0, True, torch.where(digit == sizes[which] - 1, False, up))
    return tokens + torch.where(up, places[which], -places[which])


def draw_spans(count: int, config: TokenNoiseConfig, generator: torch.Generator) -> Tensor:
    """(N,) True where a token is hidden; spans may overlap, and the last one may be cut off."""
    hidden = torch.zeros(count, dtype=torch.bool)
    mean = (1 + config.max_hidden_tokens) / 2
    spare = float(torch.rand((), generator=generator))
    spans = int(count * config.hidden_share / mean + spare)
    starts = torch.randint(count, (spans,), generator=generator).tolist()
    sizes = torch.randint(1, config.max_hidden_tokens + 1, (spans,), generator=generator).tolist()
    for start, size in zip(starts, sizes, strict=True):
        hidden[start : start + size] = True
    return hidden
