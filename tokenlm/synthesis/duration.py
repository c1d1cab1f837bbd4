"""Speech of a given duration: how long its segments should be, and how fast they are spoken.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from tokenlm.arguments import is_number
from tokenlm.audio.joining import EDGE_SECONDS, MAX_LEAD_SECONDS
from tokenlm.audio.mel import MAX_SPEED, MIN_SPEED

MAX_DURATION = 86_400.0
"""Longest speech that may be asked for, in seconds."""


def check_duration(duration: float, speed: float = 1.0) -> float:
    """The duration of a request.

    Args:
        duration: in seconds.
        speed: of the request.

    Raises:
        ValueError: it is no number, out of range, or there is a speed, too.
    """
    if not is_number(duration) or duration <= 0:
        raise ValueError(f"a duration is a number of seconds above 0, not {duration!r}.")
    if duration > MAX_DURATION:
        raise ValueError(f"a duration is at most {MAX_DURATION:g} seconds, not {duration:g}.")
    if speed != 1.0:
        raise ValueError("give either a duration or a speed.")
    return float(duration)


def shortest_seconds(num_tokens: Sequence[int], token_rate: int) -> float:
    """Seconds that segments take at the least, at the highest speed and without any pause.

    Args:
        num_tokens: fewest speech tokens of each segment.
        token_rate: tokens per second.
    """
    seconds = (max(count / token_rate - MAX_LEAD_SECONDS, 0.0) for count in num_tokens)
    return sum(seconds) / MAX_SPEED


class DurationPlan:
    """Makes the segments of a request fill a duration; see `docs/duration.md`."""

    def __init__(
        self, seconds: float, *, sample_rate: int, token_rate: int, silent_tokens: Collection[int]
    ) -> None:
        """Creates it.

        Args:
            seconds: of the whole speech.
            sample_rate: of the waveform, in hertz.
            token_rate: tokens per second.
            silent_tokens: codes of silence; may be empty.
        """
        self._seconds = seconds
        self._sample_rate, self._token_rate = sample_rate, token_rate
        self._silent = frozenset(silent_tokens)

    def num_tokens(self, num_text: Sequence[int], pauses: Sequence[float]) -> list[float]:
        """Numbers of speech tokens that segments should have.

        Args:
            num_text: text tokens of each segment.
            pauses: seconds of silence between them.
        """
        share = max(self._seconds - sum(pauses), 0.0) / max(sum(num_text), 1)
        return [count * share * self._token_rate for count in num_text]

    def speed(
        self,
        number: int,
        tokens: Sequence[Sequence[int]],
        pauses: Sequence[float],
        num_samples: int,
    ) -> float:
        """The speed at which the speech from a segment on takes what is left of the time.

        Args:
            number: of the segment.
            tokens: speech tokens of each segment.
            pauses: seconds of silence before each, at a speed of 1.
            num_samples: samples of the speech so far.

        Raises:
            ValueError: the first segment would need a speed that is out of range.
        """
        rest = range(number, len(tokens))
        length = sum(self._seconds_of(tokens[later]) for later in rest)
        length += sum(
            self._pause_seconds(tokens[later - 1], pauses[later])
            for later in rest
            if later and tokens[later]
        )
        if not number and pauses:
            length += pauses[0]
        left = self._seconds - num_samples / self._sample_rate
        speed = length / left if left > 0 else MAX_SPEED
        if number or MIN_SPEED <= speed <= MAX_SPEED:
            return min(max(speed, MIN_SPEED), MAX_SPEED)
        raise ValueError(
            f"this text takes about {length:.1f} s; it cannot be spoken in {self._seconds:g} s, "
            f"only in {length / MAX_SPEED:.1f} to {length / MIN_SPEED:.1f}."
        )

    def fitted(self, waveform: Tensor, num_samples: int, num_quiet: int) -> Tensor:
        """The end (S') of the speech, with silence that is added or cut off.

        Args:
            waveform: (S,) the last samples.
            num_samples: samples of the speech before them.
            num_quiet: how many of these are silence that may be cut off.
        """
        missing = round(self._seconds * self._sample_rate) - num_samples - waveform.shape[0]
        if missing >= 0:
            return torch.cat([waveform, torch.zeros(missing)])
        return waveform[: waveform.shape[0] - min(-missing, num_quiet, waveform.shape[0])]

    def _seconds_of(self, tokens: Sequence[int]) -> float:
        """Seconds of a segment without the silence before it, which is cut off."""
        lead = self._num_silent(tokens) / self._token_rate - EDGE_SECONDS
        return len(tokens) / self._token_rate - min(max(lead, 0.0), MAX_LEAD_SECONDS)

    def _pause_seconds(self, before: Sequence[int], pause: float) -> float:
        """Seconds between two segments, without the silence at the end of the first of them."""
        tail = self._num_silent(before[::-1]) / self._token_rate - EDGE_SECONDS
        return max(pause - max(tail, 0.0), 0.0)

    def _num_silent(self, tokens: Sequence[int]) -> int:
        """Number of silent tokens at the start."""
        return next((n for n, token in enumerate(tokens) if token not in self._silent), len(tokens))
