"""Pitch and harmonic source of a neural source-filter vocoder (Wang et al., 2019).

Shapes: B batch, T mel frames, M mel bins, D channels, H harmonics, S samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.exact import exact_device, frame_noise, has_float64, to_float64
from tokenlm.modules.streaming import State
from tokenlm.modules.streaming_conv import StreamingConv1d, StreamingConvState

_NUM_CONVS = 5


class PitchPredictor(nn.Module):
    """Mel to pitch in hertz; in double precision where asked."""

    def __init__(self, num_mels: int, dim: int, lookahead: int | None, *, is_double: bool) -> None:
        """Builds the network.

        Args:
            num_mels: mel bins.
            dim: channels.
            lookahead: frames that the first convolution looks ahead, the others being causal;
                None for convolutions that all look both ways.
            is_double: whether it computes in float64, where the device can.
        """
        super().__init__()
        if lookahead is None:
            first = StreamingConv1d.centred(num_mels, dim, 3)
            rest = [StreamingConv1d.centred(dim, dim, 3) for _ in range(_NUM_CONVS - 1)]
        else:
            first = StreamingConv1d(num_mels, dim, lookahead + 1, left=0, right=lookahead)
            rest = [StreamingConv1d.causal(dim, dim, 3) for _ in range(_NUM_CONVS - 1)]
        self.convs = cast("Sequence[StreamingConv1d]", nn.ModuleList([first, *rest]))
        self.head = nn.Linear(dim, 1)
        self.is_double = is_double

    @property
    def lookahead(self) -> int:
        """Frames that a pitch waits for."""
        return sum(conv.lookahead for conv in self.convs)

    def init_state(self, batch_size: int) -> list[StreamingConvState]:
        """State before the first frame."""
        device = self.head.weight.device
        dtype = torch.float64 if self.is_double and has_float64(device.type) else None
        return [conv.init_state(batch_size, dtype) for conv in self.convs]

    def forward(self, mel: Tensor, state: list[StreamingConvState], *, flush: bool) -> Tensor:
        """(B, M, T) to (B, T')."""
        x = mel.double() if self.is_double and has_float64(mel.device.type) else mel
        for conv, past in zip(self.convs, state, strict=True):
            x = functional.elu(conv(x, past, flush=flush))
        weight, bias = self.head.weight.to(x.dtype), self.head.bias.to(x.dtype)
        return functional.linear(x.transpose(1, 2), weight, bias)[..., 0].abs().to(mel.dtype)


@dataclass
class SourceState(State):
    """Phases of the oscillators of a stream."""

    cycles: Tensor
    """(B, H) float64, cycles that each harmonic has gone at the centre of the last frame."""
    pitch: Tensor
    """(B, 0 or 1), the last frame where its second half is not rendered yet."""
    next_sample: int


class HarmonicSource(nn.Module):
    """Pitch to an excitation: harmonics where voiced, noise where not, mixed by a linear layer.

    Phases are summed in float64 and carried from piece to piece, so that a stream does not drift
    from the whole, nor long speech out of tune.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        hop_length: int,
        num_harmonics: int,
        interpolation: Literal["linear", "nearest"],
        noise: Literal["gaussian", "uniform"],
        sine_level: float,
        noise_level: float,
        voiced_hz: float,
    ) -> None:
        """Builds the source.

        Args:
            sample_rate: in hertz.
            hop_length: samples of a frame.
            num_harmonics: sines, the fundamental among them.
            interpolation: of phases between the centres of frames.
            noise: distribution of the noise.
            sine_level: amplitude of a harmonic; a third of it is that of noise where unvoiced.
            noise_level: amplitude of the noise where voiced.
            voiced_hz: a frame is voiced where its pitch is above this.
        """
        super().__init__()
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self.num_harmonics = num_harmonics
        self.interpolation, self.noise = interpolation, noise
        self.sine_level, self.noise_level, self.voiced_hz = sine_level, noise_level, voiced_hz
        self.mix = nn.Linear(num_harmonics, 1)

    @property
    def lookahead_samples(self) -> int:
        """Samples that the end of a frame waits for the next one."""
        return self.hop_length // 2 if self.interpolation == "linear" else 0

    def init_state(self, batch_size: int) -> SourceState:
        """State before the first frame."""
        weight = self.mix.weight
        cycles = torch.zeros(
            batch_size,
            self.num_harmonics,
            dtype=torch.float64,
            device=exact_device(weight.device),
        )
        return SourceState(cycles=cycles, pitch=weight.new_zeros(batch_size, 0), next_sample=0)

    def forward(self, pitch: Tensor, state: SourceState, *, flush: bool) -> Tensor:
        """Excitation (B, S) of pitches (B, T) in hertz."""
        sines, voiced = self.sines(pitch, state, flush=flush)
        return self.mix(sines.to(self.mix.weight.dtype))[..., 0].tanh()

    def sines(self, pitch: Tensor, state: SourceState, *, flush: bool) -> tuple[Tensor, Tensor]:
        """Sines with their noise (B, S, H), and where (B, S) it is voiced."""
        held = state.pitch.shape[1]
        joined = torch.cat([state.pitch, pitch.to(state.pitch)], dim=1)
        frames, hop = joined.shape[1], self.hop_length
        wait = self.lookahead_samples
        if frames == 0:
            empty = pitch.new_zeros(pitch.shape[0], 0)
            return empty[..., None].expand(-1, -1, self.num_harmonics), empty.bool()
        harmonics = torch.arange(1, self.num_harmonics + 1, device=pitch.device)
        # A share of a cycle for each sample; whole cycles change nothing.
        steps = (joined[..., None] * harmonics / self.sample_rate) % 1.0
        cycles = state.cycles[:, None] + (to_float64(steps[:, held:]) * hop).cumsum(dim=1)
        if held:
            cycles = torch.cat([state.cycles[:, None], cycles], dim=1)
        start = hop - wait if held else 0
        end = frames * hop - (0 if flush else wait)
        phases = self._phases(cycles)[:, start:end]
        is_voiced = (joined > self.voiced_hz).repeat_interleave(hop, dim=1)[:, start:end]
        state.cycles = cycles[:, -1]
        state.pitch = joined[:, -1:] if wait and not flush else joined[:, :0]
        angles = (2 * math.pi * (phases % 1.0)).to(torch.float32).to(pitch.device)
        sines = self.sine_level * angles.sin()
        voiced, unvoiced = sines.new_tensor([self.noise_level, self.sine_level / 3])
        level = torch.where(is_voiced, voiced, unvoiced)[..., None]
        noise = self.source_noise(state.next_sample, end - start).to(sines)
        state.next_sample += end - start
        return sines * is_voiced[..., None] + level * noise, is_voiced

    def source_noise(self, start: int, count: int) -> Tensor:
        """Noise (count, H) of the samples from `start` on; the same for every stream."""
        hop = self.hop_length
        first, last = start // hop, -(-(start + count) // hop)
        noise = frame_noise(0, first, last - first, hop * self.num_harmonics)
        noise = noise.view(-1, self.num_harmonics)[start - first * hop :][:count]
        return torch.special.ndtr(noise) if self.noise == "uniform" else noise

    def _phases(self, cycles: Tensor) -> Tensor:
        """Cycles (B, T, H) at the centres of frames to (B, T * hop_length, H)."""
        hop = self.hop_length
        if self.interpolation == "nearest":
            return cycles.repeat_interleave(hop, dim=1)
        steps = torch.arange(hop, dtype=torch.float32, device=cycles.device)
        share = ((steps + 0.5) / hop).double()[:, None]
        between = torch.lerp(cycles[:, :-1, None], cycles[:, 1:, None], share).flatten(1, 2)
        first = cycles[:, :1].expand(-1, hop // 2, -1)
        last = cycles[:, -1:].expand(-1, hop - hop // 2, -1)
        return torch.cat([first, between, last], dim=1)
