"""Causal and look-ahead convolutions with carried context, and the causal ConvNeXt block.

Shapes: B batch, T frames, D channels. Time is axis 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.streaming import State, kept


@dataclass
class ConvState(State):
    """The last input frames, (B, kernel_size - 1, D)."""

    past: Tensor


class CausalConv1d(nn.Module):
    """Convolution whose output at frame t sees the frames t - kernel_size + 1 … t."""

    def __init__(self, in_dim: int, out_dim: int, kernel_size: int, groups: int = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.in_dim = in_dim
        self.conv = nn.Conv1d(in_dim, out_dim, kernel_size, groups=groups)

    def init_state(self, batch_size: int) -> ConvState:
        """Zeros before the first frame, as the offline padding has them."""
        weight = self.conv.weight
        return ConvState(past=weight.new_zeros(batch_size, self.kernel_size - 1, self.in_dim))

    def forward(self, x: Tensor, state: ConvState | None = None) -> Tensor:
        """(B, T, in_dim) to (B, T, out_dim)."""
        if state is None:
            padded = functional.pad(x, (0, 0, self.kernel_size - 1, 0))
        else:
            padded = torch.cat([state.past, x], dim=1)
            state.past = kept(padded[:, padded.shape[1] - (self.kernel_size - 1) :])
        return self.conv(padded.transpose(1, 2)).transpose(1, 2)


@dataclass
class LookaheadState(State):
    """Frames whose future is not complete yet, (B, at most lookahead, D)."""

    waiting: Tensor


class LookaheadConv1d(nn.Module):
    """Convolution whose output at frame t sees the frames t … t + lookahead.

    The look-ahead does not cross the end of the prompt: the prompt is rendered once for a voice,
    before any frame that follows it is known.
    """

    def __init__(self, in_dim: int, out_dim: int, lookahead: int) -> None:
        super().__init__()
        self.lookahead = lookahead
        self.in_dim = in_dim
        self.conv = nn.Conv1d(in_dim, out_dim, lookahead + 1)

    def init_state(self, batch_size: int) -> LookaheadState:
        """Nothing is waiting."""
        return LookaheadState(waiting=self.conv.weight.new_zeros(batch_size, 0, self.in_dim))

    def forward(
        self,
        x: Tensor,
        state: LookaheadState | None = None,
        *,
        pinned_frames: Tensor | int = 0,
    ) -> Tensor:
        """(B, T, in_dim) to (B, T', out_dim).

        Args:
            x: whole sequences (T' = T), or with `state` the next piece: T' is then shorter by what
                still waits for its future, and longer by what waited before.
            state: advanced in place.
            pinned_frames: prompt length, or (B,) prompt lengths, of whole sequences.
        """
        if state is not None:
            joined = torch.cat([state.waiting, x], dim=1)
            ready = max(joined.shape[1] - self.lookahead, 0)
            state.waiting = kept(joined[:, ready:])
            if ready == 0:
                return x.new_zeros(x.shape[0], 0, self.conv.out_channels)
            return self._convolve(joined)
        out = self._convolve(functional.pad(x, (0, 0, 0, self.lookahead)))
        if self.lookahead == 0:
            return out
        if isinstance(pinned_frames, int):
            if pinned_frames == 0:
                return out
            pinned_frames = torch.full((x.shape[0],), pinned_frames, device=x.device)
        elif pinned_frames.device.type == "cpu" and not bool((pinned_frames > 0).any()):
            return out  # a GPU would have to be waited for, which takes longer than what is saved
        frames = torch.arange(x.shape[1], device=x.device)
        is_prompt = (frames[None] < pinned_frames[:, None])[..., None]
        prompt = self._convolve(functional.pad(x * is_prompt, (0, 0, 0, self.lookahead)))
        return torch.where(is_prompt, prompt, out)

    def flush(self, state: LookaheadState) -> Tensor:
        """Gives what still waits, with zeros for its future: (B, at most lookahead, out_dim)."""
        waiting = state.waiting
        state.waiting = waiting[:, :0]
        if waiting.shape[1] == 0:
            return waiting.new_zeros(waiting.shape[0], 0, self.conv.out_channels)
        return self._convolve(functional.pad(waiting, (0, 0, 0, self.lookahead)))

    def _convolve(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a feed-forward layer over channels, residual.

    Liu et al., 2022; for sequences as in Vocos (Siuzdak, 2023).
    """

    def __init__(self, dim: int, kernel_size: int, expansion: float, layer_scale: float) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.depthwise = CausalConv1d(dim, dim, kernel_size, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.activation = nn.GELU()
        self.contract = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), layer_scale))

    def init_state(self, batch_size: int) -> ConvState:
        """State of the depthwise convolution."""
        return self.depthwise.init_state(batch_size)

    def forward(self, x: Tensor, state: ConvState | None = None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        hidden = self.norm(self.depthwise(x, state))
        return x + self.scale * self.contract(self.activation(self.expand(hidden)))
