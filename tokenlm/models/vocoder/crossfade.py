"""The reference's way of joining chunks of its vocoder: overlapped and cross-faded.

Shapes: B batch, T mel frames, M mel bins, S samples. Each chunk is rendered with the last frames of
the one before, as if the sound began there; what is told from the future is wrong at its end and is
held back. The exact stream of `HiFT` has no such seams; this one is for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tokenlm.modules.streaming import State

if TYPE_CHECKING:
    from tokenlm.models.vocoder.hift import HiFT

OVERLAP_FRAMES = 8


@dataclass
class CrossFadeState(State):
    """What a stream remembers between chunks."""

    mel: Tensor
    """(B, at most 8, M), the last frames."""
    excitation: Tensor
    """(B, S) of those frames."""
    held: Tensor
    """(B, S), sound that is not given yet."""


def fade_window(num_samples: int) -> Tensor:
    """Rising and falling half (2 * num_samples,) of a cross-fade: a symmetric Hamming window."""
    return torch.hamming_window(2 * num_samples, periodic=False, dtype=torch.float64)


def cross_fade(new: Tensor, old: Tensor) -> Tensor:
    """`new` (B, S) whose start comes in as `old` (B, at most S) goes out."""
    size = old.shape[1]
    window = fade_window(size).to(new.device)
    head = new[:, :size] * window[:size] + old * window[size:]
    return torch.cat([head.to(new.dtype), new[:, size:]], dim=1)


def init_cross_fade(vocoder: HiFT, batch_size: int) -> CrossFadeState:
    """State before the first chunk."""
    weight = vocoder.embed.conv.weight
    empty = weight.new_zeros(batch_size, 0)
    mel = weight.new_zeros(batch_size, 0, vocoder.config.mel.num_mels)
    return CrossFadeState(mel=mel, excitation=empty, held=empty)


def cross_fade_step(
    vocoder: HiFT, mel: Tensor, state: CrossFadeState, *, is_last: bool = False
) -> Tensor:
    """Waveform (B, S) of the next frames (B, T, M), all but what is held for the next chunk.

    Args:
        vocoder: what renders.
        mel: the first of a stream has more frames than overlap.
        state: advanced in place.
        is_last: nothing is held back.

    Raises:
        ValueError: the first frames are too few to hold some back.
    """
    overlap = OVERLAP_FRAMES * vocoder.config.mel.hop_length
    joined = torch.cat([state.mel, mel], dim=1)
    if mel.shape[1] == 0:
        return state.held
    if joined.shape[1] <= OVERLAP_FRAMES and not is_last:
        raise ValueError(
            f"a cross-faded stream starts with more than {OVERLAP_FRAMES} frames, got "
            f"{joined.shape[1]}"
        )
    excitation = vocoder.excite(joined, vocoder.init_exact(joined.shape[0]), flush=True)
    size = state.excitation.shape[1]
    excitation = torch.cat([state.excitation, excitation[:, size:]], dim=1)
    waveform = vocoder.decode(joined, excitation)
    if state.held.shape[1]:
        waveform = cross_fade(waveform, state.held)
    if is_last:
        return waveform
    state.mel = joined[:, -OVERLAP_FRAMES:]
    state.excitation = excitation[:, -overlap:]
    state.held = waveform[:, -overlap:]
    return waveform[:, :-overlap]
