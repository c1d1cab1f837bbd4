"""Residual blocks with the Snake activation (Ziyin et al., 2020), which keeps what is periodic.

Shapes: B batch, D channels, T frames; time is the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tokenlm.modules.streaming import State
from tokenlm.modules.streaming_conv import (
    AlignState,
    StreamingConv1d,
    StreamingConvState,
    align,
    empty_alignment,
)


class Snake(nn.Module):
    """x + sin(a x)^2 / a with a trained frequency a for each channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T) to (B, D, T)."""
        alpha = self.alpha[:, None]
        return x + (x * alpha).sin().square() / (alpha + 1e-9)


@dataclass
class SnakeState(State):
    """What a block remembers: of its convolutions, and of its residuals."""

    convs: list[StreamingConvState]
    residuals: list[AlignState]


class SnakeBlock(nn.Module):
    """Pairs of convolutions, the first of each pair dilated, with a residual around each pair."""

    def __init__(
        self, dim: int, kernel_size: int, dilations: Sequence[int], *, is_causal: bool
    ) -> None:
        super().__init__()
        build = StreamingConv1d.causal if is_causal else StreamingConv1d.centred
        first = [build(dim, dim, kernel_size, dilation) for dilation in dilations]
        second = [build(dim, dim, kernel_size) for _ in dilations]
        self.first = cast("Sequence[StreamingConv1d]", nn.ModuleList(first))
        self.second = cast("Sequence[StreamingConv1d]", nn.ModuleList(second))
        self.first_activations = nn.ModuleList(Snake(dim) for _ in dilations)
        self.second_activations = nn.ModuleList(Snake(dim) for _ in dilations)

    def init_state(self, batch_size: int) -> SnakeState:
        """State before the first frame."""
        pairs = zip(self.first, self.second, strict=True)
        like = self.first[0].conv.weight
        dim = like.shape[0]
        return SnakeState(
            convs=[conv.init_state(batch_size) for pair in pairs for conv in pair],
            residuals=[empty_alignment(like, batch_size, [dim, dim]) for _ in self.first],
        )

    def forward(self, x: Tensor, state: SnakeState, *, flush: bool) -> Tensor:
        """(B, D, T) to (B, D, T')."""
        for index, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            hidden = first(self.first_activations[index](x), state.convs[2 * index], flush=flush)
            hidden = second(
                self.second_activations[index](hidden), state.convs[2 * index + 1], flush=flush
            )
            x, hidden = align([x, hidden], state.residuals[index])
            x = x + hidden
        return x
