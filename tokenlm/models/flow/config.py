"""Sizes of a flow decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tokenlm.audio.mel import MelConfig
from tokenlm.modules.streaming import Context


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Sizes of a `FlowDecoder`: its encoder, its estimator and its context policy."""

    mel: MelConfig = field(default_factory=MelConfig)
    codebook_size: int = 625
    token_rate: int = 25
    speaker_dim: int = 128
    """Channels of the speaker embedding."""
    speaker_condition_dim: int = 80
    encoder: Literal["transformer", "conformer", "lookahead"] = "transformer"
    """Tokens to the condition: a transformer, the conformer of CosyVoice 2, or the look-ahead layer
    alone of CosyVoice 3."""
    encoder_dim: int = 256
    """Channels; the look-ahead encoder has those of the mel."""
    encoder_layers: int = 3
    encoder_heads: int = 4
    encoder_hidden_dim: int = 2048
    """Channels inside the feed-forward of the conformer, or inside the look-ahead layer."""
    encoder_up_layers: int = 4
    """Layers of the conformer behind the upsampling."""
    lookahead_tokens: int = 3
    estimator: Literal["dit", "f5_dit", "unet"] = "dit"
    """Network of the velocity: a diffusion transformer with one modulation for all blocks, the one
    of F5-TTS and CosyVoice 3, or the U-Net of CosyVoice 2."""
    dim: int = 256
    num_layers: int = 6
    num_heads: int = 4
    head_dim: int | None = None
    """Channels of a head; None is dim / num_heads."""
    expansion: float = 3.0
    """Of the feed-forward of the transformers."""
    dropout: float = 0.0
    patch_frames: int = 2
    """Mel frames that the estimator `dit` sees as one position; 1 with the others."""
    blocks_per_level: int = 4
    """Transformer blocks of each level of the U-Net."""
    num_mid_levels: int = 12
    """Levels of the U-Net between its ends."""
    mel_mean: float = -5.0
    mel_std: float = 2.5
    num_steps: int = 6
    """Default number of solver steps."""
    infills: bool = False
    """Whether it was trained to render a span between mel that is known on both sides, as the stage
    `flow` does with an `infill_share`."""
    noise: Literal["seeded", "fixed"] = "seeded"
    """Noise that the flow starts from: drawn from seeds, or always the same, as in CosyVoice."""
    chunks_from: Literal["prompt_end", "prompt_start"] = "prompt_end"
    """Where the chunk grid starts. From the end of the prompt: the prompt sees all of itself. From
    its start, as the flows of CosyVoice were trained: frames of the prompt see their own chunk and
    what lies before."""
    chunk_tokens: int = 25
    """Chunk of the default context."""
    chunk_step_tokens: tuple[int, ...] = (6, 12)
    """Sizes of its first chunks, by which it grows; those that are not smaller than the chunk are
    left out. Empty where the grid starts with the prompt."""
    left_tokens: int | None = 75
    """Tokens before the chunk that the default context sees besides the prompt; None is all."""

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
        if self.patch_frames != 1 and self.estimator != "dit":
            raise ValueError(
                f"patch_frames belongs to the estimator dit; with {self.estimator} it must be 1, "
                f"got {self.patch_frames}"
            )
        if self.chunks_from == "prompt_start" and self.chunk_step_tokens:
            raise ValueError("chunk_step_tokens must be empty where chunks_from is prompt_start")

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
        """The context, in tokens, that `generate` and streams use by default."""
        return Context(
            chunk_frames=self.chunk_tokens,
            chunk_step_frames=tuple(
                size for size in self.chunk_step_tokens if size < self.chunk_tokens
            ),
            left_frames=self.left_tokens,
            lookahead_frames=self.lookahead_tokens,
        )


def cosyvoice_flow_config(**sizes: Any) -> FlowConfig:
    """Config of a flow of CosyVoice (Du et al., 2024 and 2025), by default with the parts of 2.

    Its weights were not trained with a bounded window (`left_tokens`).
    """
    settings: dict[str, Any] = {
        "codebook_size": 6561,
        "speaker_dim": 192,
        "encoder": "conformer",
        "estimator": "unet",
        "patch_frames": 1,
        "mel_mean": 0.0,
        "mel_std": 1.0,
        "num_steps": 10,
        "noise": "fixed",
        "chunks_from": "prompt_start",
        "chunk_step_tokens": (),
        "left_tokens": None,
    }
    return FlowConfig(**(settings | sizes))
