"""Sizes of a flow decoder."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenlm.audio.mel import MelConfig
from tokenlm.modules.context import Context


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Sizes of a `FlowDecoder`."""

    mel: MelConfig = field(default_factory=MelConfig)
    codebook_size: int = 625
    token_rate: int = 25
    speaker_dim: int = 128
    """Channels of the speaker embedding."""
    speaker_condition_dim: int = 80
    encoder_dim: int = 256
    encoder_layers: int = 3
    encoder_heads: int = 4
    lookahead_tokens: int = 3
    dim: int = 256
    num_layers: int = 6
    num_heads: int = 4
    expansion: float = 3.0
    dropout: float = 0.0
    patch_frames: int = 2
    """Mel frames that the estimator sees as one position."""
    mel_mean: float = -5.0
    mel_std: float = 2.5
    chunk_tokens: int = 25
    """Chunk of the default context."""
    chunk_step_tokens: tuple[int, ...] = (6, 12)
    """Sizes of its first chunks, by which it grows; those that are not smaller than the chunk are
    left out."""
    left_tokens: int = 75
    """Tokens before the chunk that the default context sees."""

    def __post_init__(self) -> None:
        if self.mel.frame_rate % self.token_rate:
            raise ValueError(
                f"frame rate {self.mel.frame_rate} is not a multiple of token rate "
                f"{self.token_rate}"
            )
        if self.frames_per_token % self.patch_frames:
            raise ValueError(
                f"patch_frames {self.patch_frames} must divide the {self.frames_per_token} "
                "frames of a token"
            )

    @property
    def frames_per_token(self) -> int:
        """Mel frames of one token."""
        return round(self.mel.frame_rate / self.token_rate)

    @property
    def condition_dim(self) -> int:
        """Channels of the condition: encoded tokens, prompt mel, speaker."""
        return 2 * self.mel.num_mels + self.speaker_condition_dim

    @property
    def default_context(self) -> Context:
        """The context, in tokens, that `generate` and streams use unless told otherwise."""
        return Context(
            chunk_frames=self.chunk_tokens,
            chunk_step_frames=tuple(
                size for size in self.chunk_step_tokens if size < self.chunk_tokens
            ),
            left_frames=self.left_tokens,
            lookahead_frames=self.lookahead_tokens,
        )
