"""Causal ConvNeXt vocoder with an inverse-STFT head, after Vocos (Siuzdak, 2023).

Shapes: B batch, T mel frames, D channels, R spectral frames of one mel frame, F bins, S samples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from tokenlm.audio.mel import MelConfig
from tokenlm.modules.conv import (
    CausalConv1d,
    ConvNeXtBlock,
    ConvState,
    LookaheadConv1d,
    LookaheadState,
)
from tokenlm.modules.stft import CausalInverseSTFT, OverlapState
from tokenlm.modules.streaming import State


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """Sizes of a `Vocoder`."""

    mel: MelConfig = field(default_factory=MelConfig)
    dim: int = 256
    num_layers: int = 6
    kernel_size: int = 7
    expansion: float = 3.0
    lookahead_frames: int = 2
    """Mel frames of the future that the first convolution sees."""
    frames_per_mel_frame: int = 2
    """Spectral frames of the head for each mel frame."""
    n_fft: int = 960
    mel_mean: float = -5.0
    mel_std: float = 2.5

    def __post_init__(self) -> None:
        if self.mel.hop_length % self.frames_per_mel_frame:
            raise ValueError("the mel hop must be a multiple of frames_per_mel_frame")
        if self.n_fft % self.head_hop_length:
            raise ValueError(f"n_fft {self.n_fft} must be a multiple of {self.head_hop_length}")

    @property
    def head_hop_length(self) -> int:
        """Samples between spectral frames of the head."""
        return self.mel.hop_length // self.frames_per_mel_frame

    @property
    def lookahead_ms(self) -> float:
        """Future that the vocoder waits for."""
        return 1000.0 * self.lookahead_frames / self.mel.frame_rate


@dataclass
class VocoderState(State):
    """What a stream remembers between chunks of mel."""

    lookahead: LookaheadState
    embed: ConvState
    blocks: list[ConvState]
    overlap: OverlapState


class Vocoder(nn.Module):
    """Mel (B, T, num_mels) to waveform (B, T * hop_length)."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.lookahead = LookaheadConv1d(config.mel.num_mels, dim, config.lookahead_frames)
        self.embed = CausalConv1d(dim, dim, config.kernel_size)
        self.norm = nn.LayerNorm(dim)
        blocks = [
            ConvNeXtBlock(dim, config.kernel_size, config.expansion, 1.0 / config.num_layers)
            for _ in range(config.num_layers)
        ]
        self.blocks = cast("Sequence[ConvNeXtBlock]", nn.ModuleList(blocks))
        self.final_norm = nn.LayerNorm(dim)
        num_bins = config.n_fft // 2 + 1
        self.head = nn.Linear(dim, config.frames_per_mel_frame * 2 * num_bins)
        self.inverse = CausalInverseSTFT(config.n_fft, config.head_hop_length)

    def init_state(self, batch_size: int) -> VocoderState:
        """State before the first mel frame."""
        return VocoderState(
            lookahead=self.lookahead.init_state(batch_size),
            embed=self.embed.init_state(batch_size),
            blocks=[block.init_state(batch_size) for block in self.blocks],
            overlap=self.inverse.init_state(batch_size),
        )

    def forward(self, mel: Tensor, state: VocoderState | None = None) -> Tensor:
        """Waveform of `mel`.

        Args:
            mel: (B, T, num_mels) natural log mel, whole, or with `state` the next piece.
            state: advanced in place; the last `lookahead_frames` frames wait in it.

        Returns:
            (B, T * hop_length), with a state shorter or longer by what waits.
        """
        mel = (mel - self.config.mel_mean) / self.config.mel_std
        return self._generate(self.lookahead(mel, state.lookahead if state else None), state)

    def geometry(self, state: VocoderState) -> Hashable:
        """What has to be equal for states to be stacked."""
        return state.lookahead.waiting.shape[1]

    def flush(self, state: VocoderState) -> Tensor:
        """Waveform of the frames that wait at the end of a stream."""
        return self._generate(self.lookahead.flush(state.lookahead), state)

    def _generate(self, hidden: Tensor, state: VocoderState | None) -> Tensor:
        config = self.config
        batch, frames, _ = hidden.shape
        if frames == 0:
            return hidden.new_zeros(batch, 0)
        hidden = self.norm(self.embed(hidden, state.embed if state else None))
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, state.blocks[index] if state else None)
        outputs = self.head(self.final_norm(hidden)).float()
        outputs = outputs.view(batch, frames * config.frames_per_mel_frame, 2, -1)
        # Bounded like the reference heads: an untrained or odd frame must not overflow.
        magnitude = outputs[:, :, 0].clamp(max=6.0).exp()
        phase = outputs[:, :, 1]
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        waveform = self.inverse(spectrum, state.overlap if state else None)
        return waveform.clamp(-1.0, 1.0)
