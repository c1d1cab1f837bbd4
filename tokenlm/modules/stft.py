"""Causal short-time Fourier transform, and its inverse by overlap-add.

Shapes: B batch, T spectral frames, F frequency bins (n_fft / 2 + 1), S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokenlm.modules.streaming import State, kept


@dataclass
class FrameState(State):
    """Samples that the next frame sees besides its own."""

    past: Tensor
    """(B, at least n_fft - hop_length)"""


class CausalSTFT(nn.Module):
    """Samples to spectral frames: frame t sees the n_fft samples up to (t + 1) * hop.

    Zeros come before the first sample. `CausalInverseSTFT` with the same sizes gives the samples
    back, n_fft - hop_length later.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = hop_length
        window = torch.hann_window(n_fft, dtype=torch.float32)
        self.register_buffer("window", window, persistent=False)

    def init_state(self, batch_size: int) -> FrameState:
        """Zeros before the first sample."""
        return FrameState(past=self.window.new_zeros(batch_size, self.n_fft - self.hop_length))

    def forward(self, samples: Tensor, state: FrameState) -> Tensor:
        """(B, S) to complex (B, T, F): the frames whose last sample is there."""
        joined = torch.cat([state.past, samples], dim=1)
        count = max((joined.shape[1] - self.n_fft) // self.hop_length + 1, 0)
        state.past = joined[:, count * self.hop_length :]
        if count == 0:
            size = (samples.shape[0], 0, self.n_fft // 2 + 1)
            return torch.zeros(size, dtype=torch.complex64, device=samples.device)
        frames = joined.unfold(1, self.n_fft, self.hop_length)[:, :count]
        return torch.fft.rfft(frames * self.window, dim=-1)


@dataclass
class OverlapState(State):
    """Samples that later frames still add to."""

    tail: Tensor
    """(B, n_fft - hop_length)"""
    envelope: Tensor
    """(B, n_fft - hop_length), squared windows already added there."""


class CausalInverseSTFT(nn.Module):
    """Spectral frames to samples: frame t adds to the samples t * hop … t * hop + n_fft.

    Each frame finishes `hop_length` samples, so T frames give T * hop_length of them, and nothing
    waits: the delay of n_fft - hop_length samples is trained into the network before it, whose
    frames describe the waveform that much later.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        if n_fft % hop_length or n_fft // hop_length < 2:
            raise ValueError(f"n_fft {n_fft} must be a multiple (2 or more) of hop {hop_length}")
        self.n_fft = n_fft
        self.hop_length = hop_length
        window = torch.hann_window(n_fft, dtype=torch.float32)
        self.register_buffer("window", window, persistent=False)

    def init_state(self, batch_size: int) -> OverlapState:
        """Nothing has been added."""
        size = self.n_fft - self.hop_length
        zeros = self.window.new_zeros(batch_size, size)
        return OverlapState(tail=zeros, envelope=zeros)

    def forward(self, spectrum: Tensor, state: OverlapState | None = None) -> Tensor:
        """Complex (B, T, F) to samples (B, T * hop_length)."""
        if state is None:
            state = self.init_state(spectrum.shape[0])
        frames = torch.fft.irfft(spectrum, n=self.n_fft, dim=-1) * self.window
        num_frames = spectrum.shape[1]
        total = num_frames * self.hop_length
        squares = self.window.square().expand(1, num_frames, self.n_fft)
        samples = self._overlap_add(frames, state.tail)
        envelope = self._overlap_add(squares, state.envelope)
        state.tail, state.envelope = kept(samples[:, total:]), kept(envelope[:, total:])
        # The first samples lie under the rising half of a single window.
        return samples[:, :total] / envelope[:, :total].clamp(min=1e-3)

    def _overlap_add(self, frames: Tensor, tail: Tensor) -> Tensor:
        """Sums frames (B or 1, T, n_fft) over the tail (B, n_fft - hop) of those before."""
        batch, num_frames, n_fft = frames.shape
        ratio = n_fft // self.hop_length
        parts = frames.view(batch, num_frames, ratio, self.hop_length)
        out = frames.new_zeros(batch, num_frames + ratio - 1, self.hop_length)
        for index in range(ratio):
            out[:, index : index + num_frames] += parts[:, :, index]
        sums, size = out.flatten(1), tail.shape[1]
        head = sums[:, :size] + tail
        return torch.cat([head, sums[:, size:].expand(head.shape[0], -1)], dim=1)
