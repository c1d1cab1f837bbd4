"""Causal ConvNeXt vocoder with an inverse-STFT head, after Vocos (Siuzdak, 2023).

As an option it is autoregressive in chunks: each sees the samples before it, from which it learns
pitch and phase (CARGAN, Morrison et al., 2022, "Chunked autoregressive GAN for conditional waveform
synthesis").

Shapes: B batch, T mel frames, D channels, R spectral frames of one mel frame, F bins, S samples, P
samples before a chunk.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    chunk_frames: int = 0
    """Mel frames of a chunk that sees the samples before it; 0 is not autoregressive."""
    past_samples: int = 512
    """Samples before its chunk that a frame sees, where it is autoregressive."""

    def __post_init__(self) -> None:
        if self.chunk_frames < 0 or self.past_samples < 1:
            raise ValueError("chunk_frames must not be negative, past_samples positive")
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
    past: Tensor
    """(B, P) samples before the present chunk; (B, 0) where the vocoder is not autoregressive."""
    recent: Tensor
    """(B, P) the last samples."""
    chunk_frame: int
    """Frames of the present chunk that are done."""


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
        if config.chunk_frames:
            self.remember = nn.Sequential(
                nn.Linear(config.past_samples, dim), nn.GELU(), nn.Linear(dim, dim)
            )

    def init_state(self, batch_size: int) -> VocoderState:
        """State before the first mel frame."""
        return VocoderState(
            lookahead=self.lookahead.init_state(batch_size),
            embed=self.embed.init_state(batch_size),
            blocks=[block.init_state(batch_size) for block in self.blocks],
            overlap=self.inverse.init_state(batch_size),
            past=self._silence(batch_size),
            recent=self._silence(batch_size),
            chunk_frame=0,
        )

    def _silence(self, batch_size: int) -> Tensor:
        size = self.config.past_samples if self.config.chunk_frames else 0
        return self.inverse.window.new_zeros(batch_size, size)

    def forward(
        self, mel: Tensor, state: VocoderState | None = None, *, original: Tensor | None = None
    ) -> Tensor:
        """Waveform of `mel`.

        Args:
            mel: (B, T, num_mels) natural log mel, whole, or with `state` the next piece.
            state: advanced in place; the last `lookahead_frames` frames wait in it.
            original: (B, T * hop_length) the waveform that `mel` is of: in training, chunks see
                its samples in place of those that were generated. Of whole sequences alone.

        Returns:
            (B, T * hop_length), with a state shorter or longer by what waits.
        """
        mel = (mel - self.config.mel_mean) / self.config.mel_std
        hidden = self.lookahead(mel, state.lookahead if state else None)
        if not self.config.chunk_frames:
            return self._generate(hidden, state)
        if original is not None:
            return self._generate(hidden + self._teach(original, hidden.shape[1]), state)
        return self._continue(hidden, self.init_state(mel.shape[0]) if state is None else state)

    def geometry(self, state: VocoderState) -> Hashable:
        """What has to be equal for states to be stacked."""
        return state.lookahead.waiting.shape[1], state.chunk_frame

    def flush(self, state: VocoderState) -> Tensor:
        """Waveform of the frames that wait at the end of a stream."""
        hidden = self.lookahead.flush(state.lookahead)
        go_on = self._continue if self.config.chunk_frames else self._generate
        return go_on(hidden, state)

    def _teach(self, original: Tensor, num_frames: int) -> Tensor:
        """What each frame (B, T, D) knows of the samples before its chunk, by the original."""
        config = self.config
        size = config.chunk_frames * config.mel.hop_length
        starts = functional.pad(original, (config.past_samples, size))
        pasts = starts.unfold(1, config.past_samples, size)
        chunks = -(-num_frames // config.chunk_frames)
        known = self.remember(pasts[:, :chunks].to(self.head.weight.dtype))
        return known.repeat_interleave(config.chunk_frames, dim=1)[:, :num_frames]

    def _continue(self, hidden: Tensor, state: VocoderState) -> Tensor:
        """Waveform of the next frames (B, T, D), chunk by chunk."""
        config, start, pieces = self.config, 0, []
        while start < hidden.shape[1]:
            if state.chunk_frame == 0:
                state.past = state.recent
            count = min(config.chunk_frames - state.chunk_frame, hidden.shape[1] - start)
            known = self.remember(state.past.to(hidden.dtype))[:, None]
            pieces.append(self._generate(hidden[:, start : start + count] + known, state))
            recent = torch.cat([state.recent, pieces[-1]], dim=1)
            state.recent = recent[:, recent.shape[1] - config.past_samples :]
            state.chunk_frame = (state.chunk_frame + count) % config.chunk_frames
            start += count
        return torch.cat(pieces, dim=1) if pieces else hidden.new_zeros(hidden.shape[0], 0)

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
