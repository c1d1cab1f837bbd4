"""Voice isolation: a mask over time and frequency keeps the nearest voice of a recording.

The mask is real, as the phase of the mixture does for speech that is not far below the noise, and
made of magnitudes by causal convolutions and a recurrent layer, whose memory follows the noise
(after Wang and Chen, 2018, "Supervised speech separation based on deep learning: an overview", and
Braun and Tashev, 2020, "Data augmentation and loss normalization for deep noise suppression").

Shapes: B batch, S samples, T spectral frames, F bins, D channels, R recurrent layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tokenlm.modules.conv import CausalConv1d, ConvNeXtBlock, ConvState
from tokenlm.modules.stft import CausalInverseSTFT, CausalSTFT, FrameState, OverlapState
from tokenlm.modules.streaming import State

_FLOOR = 1e-4
"""Added to magnitudes: a sine of -110 dBFS has as much in its bin."""


@dataclass(frozen=True, kw_only=True)
class VoiceIsolatorConfig:
    """Sizes of a `VoiceIsolator`."""

    sample_rate: int = 24000
    """Of the waveforms, in hertz."""
    n_fft: int = 960
    """Samples of a spectral frame."""
    hop_length: int = 320
    """Samples from one frame to the next."""
    dim: int = 224
    """Channels of the convolutions and of the recurrent layer."""
    num_layers: int = 2
    """Convolution blocks, before and after the recurrent layer each."""
    num_recurrent_layers: int = 2
    """Depth of the recurrent layer."""
    kernel_size: int = 5
    """Frames that a convolution sees."""
    expansion: float = 2.0
    """Width of the feed-forward layers over that of the blocks."""
    lookahead_frames: int = 2
    """Frames of the future that the mask of a frame is made from."""

    def __post_init__(self) -> None:
        if self.hop_length < 1 or self.n_fft % self.hop_length or self.n_fft < 2 * self.hop_length:
            raise ValueError(
                f"n_fft {self.n_fft} must be a multiple (2 or more) of hop_length {self.hop_length}"
            )
        if min(self.sample_rate, self.dim, self.num_recurrent_layers, self.kernel_size) < 1:
            raise ValueError(
                "sample_rate, dim, num_recurrent_layers and kernel_size must be positive"
            )
        if self.num_layers < 0 or self.lookahead_frames < 0:
            raise ValueError("num_layers and lookahead_frames must not be negative")

    @property
    def lookahead_ms(self) -> float:
        """Future that a sample waits for: the last frame it is in, and the look-ahead."""
        samples = self.n_fft + self.lookahead_frames * self.hop_length
        return 1000.0 * samples / self.sample_rate


@dataclass
class VoiceIsolatorState(State):
    """What a stream remembers between chunks of samples."""

    frames: FrameState
    embed: ConvState
    blocks: list[ConvState]
    memory: Tensor
    """(B, R, D) of the recurrent layer."""
    waiting: Tensor
    """(B, at most lookahead_frames, F) complex frames whose mask is not known yet."""
    overlap: OverlapState
    num_early_masks: int
    """Masks still to come that belong to frames before the first."""
    num_early_samples: int
    """Samples still to come that lie before the first."""
    num_missing: int
    """Samples that went in and have not come out."""


class VoiceIsolator(nn.Module):
    """Waveform of speech in noise (B, S) to that of its nearest voice (B, S)."""

    def __init__(self, config: VoiceIsolatorConfig) -> None:
        super().__init__()
        self.config = config
        dim, num_bins = config.dim, config.n_fft // 2 + 1
        self.spectrum = CausalSTFT(config.n_fft, config.hop_length)
        self.embed = CausalConv1d(num_bins, dim, 1)
        blocks = [
            ConvNeXtBlock(dim, config.kernel_size, config.expansion, 1.0)
            for _ in range(2 * config.num_layers)
        ]
        self.blocks = cast("Sequence[ConvNeXtBlock]", nn.ModuleList(blocks))
        self.recurrent_norm = nn.LayerNorm(dim)
        self.recurrent = nn.GRU(dim, dim, config.num_recurrent_layers, batch_first=True)
        self.final_norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_bins)
        self.inverse = CausalInverseSTFT(config.n_fft, config.hop_length)

    def init_state(self, batch_size: int) -> VoiceIsolatorState:
        """State before the first sample."""
        config = self.config
        weight = self.head.weight
        bins = config.n_fft // 2 + 1
        return VoiceIsolatorState(
            frames=self.spectrum.init_state(batch_size),
            embed=self.embed.init_state(batch_size),
            blocks=[block.init_state(batch_size) for block in self.blocks],
            memory=weight.new_zeros(batch_size, config.num_recurrent_layers, config.dim),
            waiting=torch.zeros((batch_size, 0, bins), dtype=torch.complex64, device=weight.device),
            overlap=self.inverse.init_state(batch_size),
            num_early_masks=config.lookahead_frames,
            num_early_samples=config.n_fft - config.hop_length,
            num_missing=0,
        )

    def forward(self, waveform: Tensor, state: VoiceIsolatorState | None = None) -> Tensor:
        """The voice in `waveform`.

        Args:
            waveform: (B, S), whole, or with `state` the next piece.
            state: advanced in place; the last samples wait in it.

        Returns:
            (B, S), aligned with the input; with a state shorter or longer by what waits.
        """
        if state is not None:
            return self._isolate(waveform, state)
        state = self.init_state(waveform.shape[0])
        return torch.cat([self._isolate(waveform, state), self.flush(state)], dim=1)

    def flush(self, state: VoiceIsolatorState) -> Tensor:
        """The samples that wait at the end of a stream, with silence behind them."""
        config, missing = self.config, state.num_missing
        size = config.n_fft + config.lookahead_frames * config.hop_length
        silence = state.frames.past.new_zeros(state.frames.past.shape[0], size)
        rest = self._isolate(silence, state)[:, :missing]
        state.num_missing = 0
        return rest

    def _isolate(self, waveform: Tensor, state: VoiceIsolatorState) -> Tensor:
        spectrum = self.spectrum(waveform.float(), state.frames)
        mask = self.mask(spectrum, state)
        joined = torch.cat([state.waiting, spectrum], dim=1)
        state.waiting = joined[:, mask.shape[1] :]
        samples = waveform.new_zeros(waveform.shape[0], 0)
        if mask.shape[1]:
            samples = self.inverse(joined[:, : mask.shape[1]] * mask, state.overlap)
        early = min(state.num_early_samples, samples.shape[1])
        state.num_early_samples -= early
        state.num_missing += waveform.shape[1] - (samples.shape[1] - early)
        return samples[:, early:]

    def mask(self, spectrum: Tensor, state: VoiceIsolatorState) -> Tensor:
        """Masks (B, T', F) in 0 .. 1 of the frames that have their future.

        Args:
            spectrum: (B, T, F) complex, the next frames.
            state: advanced in place.
        """
        if spectrum.shape[1] == 0:
            return spectrum.real
        hidden = (spectrum.abs() + _FLOOR).log() / 3.0
        hidden = self.embed(hidden, state.embed)
        middle = len(self.blocks) // 2
        for index, block in enumerate(self.blocks):
            if index == middle:
                hidden = self._remember(hidden, state)
            hidden = block(hidden, state.blocks[index])
        if not self.blocks:
            hidden = self._remember(hidden, state)
        early = min(state.num_early_masks, hidden.shape[1])
        state.num_early_masks -= early
        return self.head(self.final_norm(hidden[:, early:])).float().sigmoid()

    def _remember(self, hidden: Tensor, state: VoiceIsolatorState) -> Tensor:
        memory = state.memory.transpose(0, 1).contiguous().to(hidden.dtype)
        seen, memory = self.recurrent(self.recurrent_norm(hidden), memory)
        state.memory = memory.transpose(0, 1)
        return hidden + seen
