"""Convolutions with look-ahead as streaming layers, with carried context.

Shapes: B batch, D channels, T frames or samples. Time is the last axis here. Every layer takes the
next piece with a state and gives as much as can be known; with `flush` the input ends with this
piece, and the rest is given. A whole sequence is one piece that is flushed, so that there is one
code path, and chunks equal the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.streaming import State, kept


@dataclass
class StreamingConvState(State):
    """Inputs that later outputs see, (B, D, any)."""

    past: Tensor


class StreamingConv1d(nn.Module):
    """Convolution with zeros before and behind the sequence."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: int,
        *,
        left: int,
        right: int,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        """Builds the layer; `left` and `right` zeros pad the sequence."""
        super().__init__()
        self.conv = nn.Conv1d(in_dim, out_dim, kernel_size, stride=stride, dilation=dilation)
        self.left, self.right = left, right
        self.stride, self.dilation = stride, dilation
        self.span = (kernel_size - 1) * dilation + 1

    @classmethod
    def centred(
        cls, in_dim: int, out_dim: int, kernel_size: int, dilation: int = 1
    ) -> StreamingConv1d:
        """A convolution that looks ahead as far as back."""
        pad = (kernel_size - 1) * dilation // 2
        return cls(in_dim, out_dim, kernel_size, left=pad, right=pad, dilation=dilation)

    @classmethod
    def causal(
        cls, in_dim: int, out_dim: int, kernel_size: int, dilation: int = 1
    ) -> StreamingConv1d:
        """A convolution that looks back alone."""
        pad = (kernel_size - 1) * dilation
        return cls(in_dim, out_dim, kernel_size, left=pad, right=0, dilation=dilation)

    @property
    def lookahead(self) -> int:
        """Inputs that an output waits for."""
        return self.span - 1 - self.left

    def init_state(self, batch_size: int, dtype: torch.dtype | None = None) -> StreamingConvState:
        """Zeros before the sequence."""
        weight = self.conv.weight
        past = weight.new_zeros(batch_size, self.conv.in_channels, self.left)
        return StreamingConvState(past=past.to(dtype or weight.dtype))

    def forward(self, x: Tensor, state: StreamingConvState, *, flush: bool) -> Tensor:
        """(B, in_dim, T) to (B, out_dim, T')."""
        parts = [state.past, x]
        if flush and self.right:
            parts.append(x.new_zeros(*x.shape[:2], self.right))
        joined = torch.cat(parts, dim=2)
        count = (joined.shape[2] - self.span) // self.stride + 1
        if count <= 0:
            state.past = joined
            return x.new_zeros(x.shape[0], self.conv.out_channels, 0)
        state.past = kept(joined[:, :, count * self.stride :])
        weight, bias = self.conv.weight, self.conv.bias
        return functional.conv1d(
            joined[:, :, : (count - 1) * self.stride + self.span],
            weight.to(x.dtype),
            None if bias is None else bias.to(x.dtype),
            stride=self.stride,
            dilation=self.dilation,
        )


@dataclass
class ConvTransposeState(State):
    """Outputs that later inputs still add to, (B, D, kernel_size - stride)."""

    tail: Tensor
    skip: int
    """Outputs at the start that are cut off."""


class StreamingConvTranspose1d(nn.Module):
    """Transposed convolution that gives `stride` outputs for each input."""

    def __init__(self, in_dim: int, out_dim: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        if (kernel_size - stride) % 2:
            raise ValueError(f"kernel {kernel_size} and stride {stride} differ by an odd number")
        self.conv = nn.ConvTranspose1d(in_dim, out_dim, kernel_size, stride)
        self.stride = stride
        self.cut = (kernel_size - stride) // 2
        """Outputs cut off at each end."""

    def init_state(self, batch_size: int) -> ConvTransposeState:
        """Nothing has been added."""
        tail = self.conv.weight.new_zeros(batch_size, self.conv.out_channels, 2 * self.cut)
        return ConvTransposeState(tail=tail, skip=self.cut)

    def forward(self, x: Tensor, state: ConvTransposeState, *, flush: bool) -> Tensor:
        """(B, in_dim, T) to (B, out_dim, T')."""
        size, frames = 2 * self.cut, x.shape[2]
        out = state.tail
        if frames:
            out = functional.conv_transpose1d(x, self.conv.weight, stride=self.stride)
            out = torch.cat([out[:, :, :size] + state.tail, out[:, :, size:]], dim=2)
        ready = frames * self.stride
        state.tail = kept(out[:, :, ready:])
        if flush:
            ready += size - self.cut
        skip = min(state.skip, ready)
        state.skip -= skip
        assert self.conv.bias is not None
        return out[:, :, skip:ready] + self.conv.bias[:, None]


@dataclass
class AlignState(State):
    """Of each of several sequences what the others have not reached yet, (B, D, any)."""

    waiting: list[Tensor]


def align(parts: list[Tensor], state: AlignState) -> list[Tensor]:
    """The next pieces (B, D, any) of several sequences, cut to what all of them have."""
    joined = [
        torch.cat([held, part], dim=2) if held.shape[2] else part
        for held, part in zip(state.waiting, parts, strict=True)
    ]
    ready = min(part.shape[2] for part in joined)
    state.waiting = [kept(part[:, :, ready:]) for part in joined]
    return [part[:, :, :ready] for part in joined]


def empty_alignment(like: Tensor, batch_size: int, dims: list[int]) -> AlignState:
    """Nothing waits; `dims` are the channels of the sequences."""
    return AlignState(waiting=[like.new_zeros(batch_size, dim, 0) for dim in dims])


@dataclass
class SpectrumState(State):
    """Samples that later frames see, (B, any)."""

    past: Tensor
    has_started: bool


class StreamingSTFT(nn.Module):
    """Samples (B, S) to real and imaginary parts (B, n_fft + 2, T); centred, ends reflected."""

    window: Tensor

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        window = torch.hann_window(n_fft, dtype=torch.float32)
        self.register_buffer("window", window, persistent=False)

    def init_state(self, batch_size: int) -> SpectrumState:
        """Before the first sample."""
        return SpectrumState(past=self.window.new_zeros(batch_size, 0), has_started=False)

    def forward(self, samples: Tensor, state: SpectrumState, *, flush: bool) -> Tensor:
        """(B, S) to (B, n_fft + 2, T); the whole must be longer than half a frame."""
        half = self.n_fft // 2
        joined = torch.cat([state.past, samples], dim=1)
        if not state.has_started and joined.shape[1] > half:
            joined = torch.cat([joined[:, 1 : half + 1].flip(1), joined], dim=1)
            state.has_started = True
        if flush:
            assert state.has_started, f"fewer than {half + 1} samples have no spectrum"
            joined = torch.cat([joined, joined[:, -half - 1 : -1].flip(1)], dim=1)
        count = (joined.shape[1] - self.n_fft) // self.hop_length + 1
        if count <= 0 or not state.has_started:
            state.past = joined
            return samples.new_zeros(samples.shape[0], self.n_fft + 2, 0)
        state.past = kept(joined[:, count * self.hop_length :])
        frames = joined.unfold(1, self.n_fft, self.hop_length)[:, :count]
        spectrum = torch.fft.rfft(frames * self.window, dim=-1)
        return torch.cat([spectrum.real, spectrum.imag], dim=-1).transpose(1, 2)
