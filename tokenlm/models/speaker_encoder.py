"""Speaker encoder: a recording of any length to one vector of who speaks.

Shapes: B batch, S samples, T mel frames, D channels, E embedding channels. Convolutions with
attentive statistics pooling (Okabe et al., 2018), trained with an angular margin.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.audio.mel import MelConfig, MelSpectrogram
from tokenlm.models.speech_tokenizer import analysis_mel


@dataclass(frozen=True, kw_only=True)
class SpeakerEncoderConfig:
    """Sizes of a `SpeakerEncoder`."""

    mel: MelConfig = field(default_factory=analysis_mel)
    dim: int = 192
    num_layers: int = 4
    kernel_size: int = 7
    expansion: float = 2.0
    embedding_dim: int = 128
    max_seconds: float = 20.0
    """Longer recordings are embedded in windows of this length, whose embeddings are averaged."""


class _Block(nn.Module):
    def __init__(self, dim: int, kernel_size: int, expansion: float) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.depthwise = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = self.depthwise((x * mask).transpose(1, 2)).transpose(1, 2)
        return x + self.contract(functional.gelu(self.expand(self.norm(hidden))))


class SpeakerEncoder(nn.Module):
    """Waveform at 16 kHz to a unit vector."""

    def __init__(self, config: SpeakerEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelSpectrogram(config.mel)
        self.embed = nn.Conv1d(config.mel.num_mels, config.dim, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(
            _Block(config.dim, config.kernel_size, config.expansion)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.attention = nn.Sequential(
            nn.Linear(config.dim, config.dim // 2), nn.Tanh(), nn.Linear(config.dim // 2, 1)
        )
        self.project = nn.Linear(2 * config.dim, config.embedding_dim)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings of utterances.

        Args:
            waveform: (B, S) at the sample rate of the mel.
            lengths: (B,) valid samples.

        Returns:
            (B, E), of length 1.
        """
        mel = self.mel(waveform, lengths)
        frames = self.mel.num_frames(lengths).clamp(min=1)
        valid = torch.arange(mel.shape[1], device=mel.device)[None] < frames[:, None]
        mask = valid[..., None].to(mel.dtype)
        # Only the level is removed: the spectral envelope is what distinguishes speakers.
        level = (mel * mask).sum(dim=(1, 2)) / (frames * mel.shape[2])
        centred = (mel - level[:, None, None]) * mask / 3.0
        hidden = self.embed(centred.transpose(1, 2)).transpose(1, 2)
        mask = mask[:, ::2]
        for block in self.blocks:
            hidden = block(hidden, mask)
        hidden = self.norm(hidden)
        scores = self.attention(hidden).masked_fill(mask == 0, -1e4)
        weights = scores.softmax(dim=1)
        mean = (weights * hidden).sum(dim=1)
        variance = (weights * (hidden - mean[:, None]).square()).sum(dim=1)
        pooled = torch.cat([mean, (variance + 1e-5).sqrt()], dim=1)
        return functional.normalize(self.project(pooled), dim=-1)

    @torch.inference_mode()
    def embed_recording(self, waveform: Tensor) -> Tensor:
        """Embedding (E,) of one recording (S,) of any length.

        Raises:
            ValueError: it is shorter than a frame.
        """
        if waveform.shape[0] < self.config.mel.hop_length:
            raise ValueError(f"{waveform.shape[0]} samples are too few to tell who speaks")
        window = int(self.config.max_seconds * self.config.mel.sample_rate)
        parts = waveform.split(window)
        # A short last window says little about a voice; it counts only if there is no other.
        if len(parts) > 1 and parts[-1].shape[0] < window // 4:
            parts = parts[:-1]
        embeddings = [
            self(part[None], torch.tensor([part.shape[0]], device=part.device)) for part in parts
        ]
        return functional.normalize(torch.cat(embeddings).mean(dim=0), dim=-1)
