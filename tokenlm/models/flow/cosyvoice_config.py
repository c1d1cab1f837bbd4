"""Sizes of the flow decoders of CosyVoice 2 and 3, and the parts that they are built of."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from tokenlm.audio.mel import MelConfig
from tokenlm.models.flow.conformer import ConformerEncoder
from tokenlm.models.flow.dit import DiTEstimator
from tokenlm.models.flow.lookahead import LookaheadEncoder
from tokenlm.models.flow.unet import UNetEstimator
from tokenlm.modules.context import Context

NOISE_FRAMES = 15_000
"""Frames that the fixed noise has: 300 s."""


@dataclass(frozen=True, kw_only=True)
class CosyVoiceFlowConfig:
    """Sizes of a `CosyVoiceFlow`; the defaults are those of CosyVoice 2."""

    mel: MelConfig = field(default_factory=MelConfig)
    codebook_size: int = 6561
    token_rate: int = 25
    speaker_dim: int = 192
    """Channels of the speaker embedding."""
    encoder: Literal["conformer", "lookahead"] = "conformer"
    encoder_dim: int = 512
    """Channels of the conformer; the look-ahead encoder has those of the mel."""
    encoder_hidden_dim: int = 2048
    """Channels inside the feed-forward of the conformer, or inside the look-ahead layer."""
    encoder_layers: int = 6
    encoder_up_layers: int = 4
    encoder_heads: int = 8
    lookahead_tokens: int = 3
    estimator: Literal["unet", "dit"] = "unet"
    dim: int = 256
    num_heads: int = 8
    head_dim: int = 64
    blocks_per_level: int = 4
    """Transformer blocks of each level of the U-Net."""
    num_mid_levels: int = 12
    num_layers: int = 22
    """Blocks of the DiT."""
    expansion: int = 2
    """Of the feed-forward of the DiT."""
    noise: Literal["fixed", "seeded"] = "fixed"
    """Noise that the flow starts from: always the same, as the reference has it, or from seeds."""
    chunk_tokens: int = 25
    """Chunk of the default context."""
    left_tokens: int | None = None
    """Tokens before the chunk that the default context sees besides the prompt; None is all. A
    number bounds the memory of a stream, but the weights were not trained for it."""

    def __post_init__(self) -> None:
        if self.mel.frame_rate % self.token_rate:
            raise ValueError(
                f"frame rate {self.mel.frame_rate} is not a multiple of token rate "
                f"{self.token_rate}"
            )

    @property
    def token_dim(self) -> int:
        """Channels of an embedded token."""
        return self.encoder_dim if self.encoder == "conformer" else self.mel.num_mels

    @property
    def frames_per_token(self) -> int:
        """Mel frames of one token."""
        return round(self.mel.frame_rate / self.token_rate)

    @property
    def default_context(self) -> Context:
        """The context, in tokens, that `generate` and streams use unless told otherwise."""
        return Context(
            chunk_frames=self.chunk_tokens,
            left_frames=self.left_tokens,
            lookahead_frames=self.lookahead_tokens,
        )


@lru_cache(maxsize=2)
def fixed_noise(num_mels: int) -> Tensor:
    """The noise (T, M) that the reference starts every flow from: 300 s drawn with seed 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, num_mels, NOISE_FRAMES, generator=generator, dtype=torch.float32)[
        0
    ].T.contiguous()


def build_encoder(config: CosyVoiceFlowConfig) -> ConformerEncoder | LookaheadEncoder:
    """The token encoder that the config names."""
    if config.encoder == "conformer":
        return ConformerEncoder(
            dim=config.encoder_dim,
            num_heads=config.encoder_heads,
            hidden_dim=config.encoder_hidden_dim,
            num_layers=config.encoder_layers,
            num_up_layers=config.encoder_up_layers,
            lookahead_tokens=config.lookahead_tokens,
            frames_per_token=config.frames_per_token,
        )
    return LookaheadEncoder(
        dim=config.mel.num_mels,
        hidden_dim=config.encoder_hidden_dim,
        lookahead_tokens=config.lookahead_tokens,
        frames_per_token=config.frames_per_token,
    )


def build_estimator(config: CosyVoiceFlowConfig) -> UNetEstimator | DiTEstimator:
    """The velocity estimator that the config names."""
    num_mels = config.mel.num_mels
    if config.estimator == "unet":
        return UNetEstimator(
            num_mels=num_mels,
            condition_dim=3 * num_mels,
            dim=config.dim,
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            blocks_per_level=config.blocks_per_level,
            num_mid_levels=config.num_mid_levels,
        )
    return DiTEstimator(
        num_mels=num_mels,
        condition_dim=3 * num_mels,
        dim=config.dim,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        expansion=config.expansion,
    )
