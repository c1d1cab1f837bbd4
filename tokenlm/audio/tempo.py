"""Faster or slower speech at the same pitch: a mel spectrogram read at another pace.

Shapes: B batch, T frames, D mel bins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_SPEED, MAX_SPEED = 0.25, 4.0


def check_speed(speed: float) -> float:
    """Checks that a speed is in range, and gives it.

    Raises:
        ValueError: it is not.
    """
    if not (isinstance(speed, int | float) and MIN_SPEED <= speed <= MAX_SPEED):
        raise ValueError(f"speed must be from {MIN_SPEED:g} to {MAX_SPEED:g}, got {speed}")
    return float(speed)


class MelTempo:
    """Resamples the frames of a mel in time by linear interpolation, in pieces of any size.

    Frame n of the result stands at n * speed of the input, whatever the pieces: nothing waits but
    the one frame that the next one is interpolated from. At a speed of 1 nothing is changed.
    """

    def __init__(self, speed: float) -> None:
        """Takes how many times faster the speech is to be, see `check_speed`."""
        self.speed = check_speed(speed)
        self._num_in = 0
        self._num_out = 0
        self._last: Tensor | None = None

    def push(self, mel: Tensor, *, final: bool = False) -> Tensor:
        """The frames (B, T', D) that the next frames (B, T, D) decide; with `final` all of them."""
        if self.speed == 1.0:
            return mel
        first = self._num_in
        if self._last is not None:
            mel, first = torch.cat([self._last, mel], dim=1), first - 1
        if mel.shape[1] == 0:
            return mel
        last = first + mel.shape[1] - 1
        # A frame at the very end needs no other one behind it.
        stop = math.floor(last / self.speed) + 1 if final else math.ceil(last / self.speed)
        numbers = torch.arange(self._num_out, max(stop, self._num_out), dtype=torch.float64)
        places = (numbers * self.speed).clamp(first, last)
        left = places.floor().long()
        share = (places - left).to(mel)[None, :, None]
        left = (left - first).to(mel.device)
        right = (left + 1).clamp(max=mel.shape[1] - 1)
        self._num_out += numbers.shape[0]
        self._num_in = last + 1
        self._last = mel[:, -1:].clone()
        if numbers.shape[0] == 0:
            return mel[:, :0]
        return torch.lerp(mel[:, left], mel[:, right], share)
