"""Cutting waveforms into frames and transforming them: what all front-ends share.

Shapes: B batch, S samples, T frames, F bins of the transform (n_fft // 2 + 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class FrontEnd(nn.Module):
    """A window and a bank of filters. Has no weights, saves nothing, stays in float32.

    The levels of speech span more than half precision holds, so `module.half()` on the model that
    owns a front-end leaves the front-end as it is.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, window: Tensor, filters: Tensor) -> None:
        """Take a window (win_length,) and filters (num_mels, F)."""
        super().__init__()
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filters", filters.float().T.contiguous(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrontEnd:
        window, filters = self.window, self.filters
        super()._apply(fn, recurse)
        if self.window.dtype != torch.float32:
            self.window = window.to(self.window.device)
            self.filters = filters.to(self.filters.device)
        return self


def reflect_pad(waveform: Tensor, left: int, right: int, lengths: Tensor | None) -> Tensor:
    """Mirror both ends of every waveform outwards.

    A waveform that is too short to be mirrored is first followed by zeros. With `lengths`, each
    item is mirrored at its own end, so that it gives the same frames as it would alone.

    Args:
        waveform: (B, S).
        left: samples to add before the start.
        right: samples to add after the end.
        lengths: (B,) valid samples of each item, or None where all are S.

    Returns:
        (B, left + S' + right), where S' is S or more.
    """
    shortest = max(left, right) + 1
    if lengths is not None:
        positions = torch.arange(waveform.shape[1], device=waveform.device)
        waveform = waveform.masked_fill(positions >= lengths[:, None], 0.0)
    if waveform.shape[1] < shortest:
        waveform = functional.pad(waveform, (0, shortest - waveform.shape[1]))
    if lengths is None:
        return functional.pad(waveform[:, None], (left, right), mode="reflect")[:, 0]
    last = lengths.clamp(min=shortest)[:, None] - 1
    positions = torch.arange(-left, waveform.shape[1] + right, device=waveform.device).abs()
    positions = torch.where(positions > last, 2 * last - positions, positions)
    return waveform.gather(1, positions.clamp(min=0))


def spectrum(waveform: Tensor, window: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Transform every frame of an already padded waveform.

    Args:
        waveform: (B, S).
        window: (win_length,), at most n_fft; it stands in the middle of the frame.
        n_fft: samples of a frame.
        hop_length: samples from one frame to the next.

    Returns:
        (B, T, F) complex, T = 1 + (S - n_fft) // hop_length.
    """
    missing = n_fft - window.shape[0]
    window = functional.pad(window, (missing // 2, missing - missing // 2))
    frames = waveform.unfold(1, n_fft, hop_length)
    return torch.fft.rfft(frames * window, dim=-1)


def blank_frames(frames: Tensor, num_frames: Tensor | None) -> Tensor:
    """Set the frames (B, T, D) after each item's own number of frames to zero."""
    if num_frames is None:
        return frames
    positions = torch.arange(frames.shape[1], device=frames.device)
    return frames.masked_fill((positions >= num_frames[:, None])[..., None], 0.0)


def check_waveform(waveform: Tensor) -> Tensor:
    """Give the waveform as float32.

    Raises:
        ValueError: if it is not (B, S).
    """
    if waveform.ndim != 2:
        raise ValueError(
            f"a waveform is (batch, samples), but the shape is {tuple(waveform.shape)}"
        )
    return waveform.float()
