"""What a stream of a CosyVoice flow remembers.

Shapes: B batch, N tokens, P prompt tokens, T mel frames, M mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.models.flow.conformer import ConformerState
from tokenlm.models.flow.dit import DiTState
from tokenlm.models.flow.lookahead import LookaheadLayerState
from tokenlm.models.flow.unet import UNetState
from tokenlm.modules.context import Context
from tokenlm.modules.streaming import State


@dataclass
class CosyVoiceFlowState(State):
    """What a stream remembers: caches of the encoder and of every solver step."""

    encoder: ConformerState | LookaheadLayerState
    steps: list[UNetState | DiTState]
    """With guidance two rows for each item, with and without condition."""
    speaker: Tensor
    """(B, M)"""
    pending: Tensor
    """(B, fewer than a chunk and its look-ahead) tokens that do not fill a chunk yet."""
    prompt_mel: Tensor
    """(B, P * frames_per_token, M)"""
    fed_tokens: int
    """Tokens given to the encoder, those of the prompt among them."""
    next_frame: int
    """Number of the next frame to render, counted from the start of the prompt."""
    prompt_seed: int
    guidance_scale: float
    context: Context

    def take(self, tokens: Tensor, lookahead_tokens: int, flush: bool) -> Tensor:
        """The tokens (B, N) that the encoder is given next; the others wait.

        Args:
            tokens: (B, N) that follow those that wait already.
            lookahead_tokens: that must be known behind a chunk.
            flush: nothing waits any more.
        """
        self.pending = torch.cat([self.pending, tokens], dim=1)
        if flush:
            size = self.pending.shape[1]
        else:
            pinned = self.context.pinned_frames
            known = self.fed_tokens + self.pending.shape[1] - lookahead_tokens
            ready = pinned + self.context.whole_chunks(known - pinned) if known >= pinned else 0
            size = max(ready + lookahead_tokens - self.fed_tokens, 0) if ready else 0
        fed, self.pending = self.pending[:, :size], self.pending[:, size:]
        self.fed_tokens += size
        return fed

    def prompt_frames(self, num_frames: int) -> Tensor:
        """The prompt's mel (B, num_frames, M) from the next frame on, zeros behind its end."""
        frames = self.prompt_mel[:, self.next_frame : self.next_frame + num_frames]
        return functional.pad(frames, (0, 0, 0, num_frames - frames.shape[1]))
