"""Sampling of speech tokens: pure functions on tensors, batched, with the draws given.

Shapes: B batch, V classes, W tokens of history.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlm.modules.exact import to_float64


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen.

    Repetition-aware sampling (VALL-E 2, Chen et al., 2024): a token that was drawn too often of
    late is replaced by one draw from the whole distribution without it.
    """

    temperature: float = 1.0
    top_k: int = 25
    """Most likely classes that are kept; 0 keeps all."""
    top_p: float = 0.8
    """Probability that the kept classes hold together; the one that crosses it is kept."""
    repetition_window: int = 10
    """Tokens that are looked back at; 0 turns repetition-aware sampling off."""
    repetition_threshold: float = 0.1
    """Share of the window from which on a token counts as repeated."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must not be negative, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.repetition_window < 0 or not 0 <= self.repetition_threshold <= 1:
            raise ValueError("repetition_window must not be negative, its threshold in [0, 1]")


def truncate(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Probabilities (B, V) of `logits` (B, V) after top-k and top-p, summing to 1."""
    probabilities = logits.softmax(dim=-1)
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    # A class is kept as long as those before it have not reached top_p.
    keep = ordered.cumsum(dim=-1) - ordered < config.top_p
    if config.top_k:
        keep &= torch.arange(logits.shape[-1], device=logits.device) < config.top_k
    keep[:, 0] = True
    kept = torch.zeros_like(probabilities).scatter(-1, order, ordered * keep)
    return kept / kept.sum(dim=-1, keepdim=True)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Classes (B,) of distributions (B, V) at the points `uniform` (B,) in [0, 1)."""
    cumulative = to_float64(probabilities).cumsum(dim=-1)
    point = to_float64(uniform)[:, None] * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, point, right=True)[:, 0].to(probabilities.device)
    # Rounding may leave the point behind the last class that has any probability.
    last = probabilities.shape[-1] - 1 - (probabilities > 0).flip(-1).to(torch.int8).argmax(-1)
    return torch.minimum(index, last)


def sample(
    logits: Tensor,
    history: Tensor,
    uniforms: Tensor,
    config: SamplingConfig,
    *,
    forbidden: Tensor | None = None,
) -> Tensor:
    """The next token of every sequence.

    Args:
        logits: (B, V).
        history: (B, W) tokens before, newest last, -1 where there is none.
        uniforms: (B, 2) numbers in [0, 1): for the draw, and for the second one of
            repetition-aware sampling.
        config: how to sample; a temperature of 0 takes the most likely class.
        forbidden: (B, V) True for classes that must not be drawn.

    Returns:
        (B,) class indices.
    """
    logits = logits.float()
    if forbidden is not None:
        logits = logits.masked_fill(forbidden, -torch.inf)
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / config.temperature
    # The most likely class comes first, as in the reference: a small number draws a likely class.
    ordered, order = truncate(logits, config).sort(dim=-1, descending=True, stable=True)
    chosen = order.gather(-1, draw(ordered, uniforms[:, 0])[:, None])[:, 0]
    window = config.repetition_window
    if window == 0 or history.shape[1] == 0:
        return chosen
    count = (history[:, -window:] == chosen[:, None]).sum(dim=-1)
    repeated = count >= max(window * config.repetition_threshold, 1)
    if not bool(repeated.any()):
        return chosen
    without = logits.scatter(-1, chosen[:, None], -torch.inf)
    # With a single class allowed there is nothing else to draw.
    possible = without.isfinite().any(dim=-1)
    second = draw(without.nan_to_num(neginf=-1e30).softmax(dim=-1), uniforms[:, 1])
    return torch.where(repeated & possible, second, chosen)
