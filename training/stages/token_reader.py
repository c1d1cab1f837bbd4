"""Reads speech tokens in a mel spectrogram: what the rendered mel of a flow decoder is asked for.

A flow decoder that matches velocities on average may render a sound in which its own tokens cannot
be read any more. The reader learns from recordings which tokens stand in their mel, and the mel
that the flow predicts is asked to be read alike. It is a part of training only.

Shapes: B batch, T mel frames, M mel bins, N tokens, D channels, V codebook size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """Sizes of a `TokenReader`, and when it is listened to."""

    start_step: int = 500
    """The reader learns alone before this step."""
    min_time: float = 0.25
    """Predictions from an earlier time of the path are mostly noise, and not read."""
    dim: int = 192
    """Channels."""
    num_layers: int = 4
    kernel_size: int = 7
    """Tokens that a convolution sees, an odd number."""

    def __post_init__(self) -> None:
        if self.start_step < 0:
            raise ValueError(f"reading.start_step must not be negative, got {self.start_step}")
        if not 0 <= self.min_time < 1:
            raise ValueError(f"reading.min_time must be in [0, 1), got {self.min_time}")
        if self.dim < 1 or self.num_layers < 1 or self.kernel_size % 2 != 1:
            raise ValueError(
                "reading: dim and num_layers must be at least 1, kernel_size must be odd"
            )


class _Block(nn.Module):
    """ConvNeXt block (Liu et al., 2022) that sees both sides."""

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * dim)
        self.contract = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        hidden = self.norm(self.depthwise(x.transpose(1, 2)).transpose(1, 2))
        return x + self.contract(functional.gelu(self.expand(hidden)))


class TokenReader(nn.Module):
    """Normalised mel (B, N * frames_per_token, M) to logits (B, N, V) of its tokens."""

    def __init__(
        self, config: ReadingConfig, *, num_mels: int, frames_per_token: int, codebook_size: int
    ) -> None:
        super().__init__()
        self.frames_per_token = frames_per_token
        dim = config.dim
        self.embed = nn.Linear(frames_per_token * num_mels, dim)
        blocks = [_Block(dim, config.kernel_size) for _ in range(config.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, codebook_size)

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        """Logits of the tokens.

        Args:
            mel: (B, N * frames_per_token, M).
            mask: (B, N) True where there is a token; what lies elsewhere is not looked at.
        """
        batch, num_tokens = mask.shape
        hidden = mel.reshape(batch, num_tokens, self.frames_per_token * mel.shape[2])
        hidden = self.embed(hidden) * mask[..., None]
        for block in self.blocks:
            hidden = block(hidden) * mask[..., None]
        return self.head(self.norm(hidden))


def reading_loss(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy summed over the tokens that count.

    Args:
        logits: (B, N, V).
        tokens: (B, N).
        mask: (B, N) True where a token counts.
    """
    losses = functional.cross_entropy(
        logits.float().transpose(1, 2), tokens, reduction="none"
    )  # (B, N)
    return (losses * mask).sum()
