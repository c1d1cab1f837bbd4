"""Joining the segments of a text: quiet at their ends, and the pauses between them.

Shapes: S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

QUIET_DBFS = -55.0
"""What is below is quiet. Speech is made at a level of -22 dBFS, so this need not adapt to it."""
EDGE_SECONDS = 0.03
"""Quiet that stays before the first sound of a segment."""
MAX_LEAD_SECONDS = 0.5
"""Most quiet that is cut off a segment's start."""
FADE_SECONDS = 0.005
"""Fade at both ends of a segment, against clicks."""
WINDOW_SECONDS = 0.02
ENOUGH_SOUND_SECONDS = 0.08
"""Speech of at least this length counts as the beginning of a segment."""


class SegmentJoiner:
    """Joins segments of speech, given in pieces of any size; the result does not depend on them.

    Silence at the start of a segment is removed. Silence at its end has been played by the time
    the end is known, so the pause that follows is shortened by it. Sound is never delayed.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._window = round(WINDOW_SECONDS * sample_rate)
        self._hop = self._window // 2
        self._edge = round(EDGE_SECONDS * sample_rate)
        self._fade = torch.linspace(0, 1, round(FADE_SECONDS * sample_rate), dtype=torch.float32)
        self._threshold = 10.0 ** (QUIET_DBFS / 10.0)
        self._quiet_tail = 0
        self.first_sample = 0
        """Of the last segment that gave any samples, the index of the first that was kept."""
        self._begin()

    def _begin(self) -> None:
        self._rest = torch.zeros(0, dtype=torch.float32)
        """Samples that fill no window yet."""
        self._num_rest = 0
        """Index in the segment of the first of them."""
        self._lead: Tensor | None = torch.zeros(0, dtype=torch.float32)
        """Silence before the first sound; None once there was sound."""
        self._num_out = 0
        self._loud_end = 0

    @property
    def num_quiet(self) -> int:
        """Samples at the end of the last segment that can be cut off, as they are silence."""
        return max(self._quiet_tail - self._edge, 0)

    def pause(self, seconds: float) -> Tensor:
        """Silence (S,) before the next segment, less the silence that ended the last one."""
        num_samples = max(int(seconds * self.sample_rate) - self.num_quiet, 0)
        return torch.zeros(num_samples, dtype=torch.float32)

    def push(self, waveform: Tensor, *, final: bool = False) -> Tensor:
        """Joined waveform (S',) for the next samples (S,); with `final` the segment ends."""
        total = self._num_rest + self._rest.shape[0] + waveform.shape[0]
        onset = self._scan(waveform)
        out = waveform
        if self._lead is not None:
            lead = torch.cat([self._lead, waveform])
            # Without a loud window so far, the first one may be the next that is not complete.
            earliest = (self._num_rest if onset is None else onset) - self._edge
            longest = int(MAX_LEAD_SECONDS * self.sample_rate)
            if onset is None and earliest <= longest and not final:
                self._lead = lead[max(lead.shape[0] - self._edge - self._window, 0) :]
                return lead[:0]
            cut = min(earliest, longest) - (total - lead.shape[0])
            out, self._lead = lead[max(cut, 0) :], None
            self.first_sample = total - out.shape[0]
        out = self._faded(out, final)
        if final:
            self._quiet_tail = total - self._loud_end if self._loud_end else 0
            self._begin()
        return out

    def _scan(self, waveform: Tensor) -> int | None:
        """Finds windows with sound; returns the first sample of the first one, if any."""
        joined, onset = torch.cat([self._rest, waveform]), None
        if joined.shape[0] >= self._window:
            power = joined.unfold(0, self._window, self._hop).square().mean(dim=-1)
            loud = torch.nonzero(power >= self._threshold)[:, 0]
            if loud.shape[0]:
                onset = self._num_rest + int(loud[0]) * self._hop
                self._loud_end = self._num_rest + int(loud[-1]) * self._hop + self._window
            done = power.shape[0] * self._hop
            joined, self._num_rest = joined[done:], self._num_rest + done
        self._rest = joined.clone()
        return onset

    def _faded(self, out: Tensor, final: bool) -> Tensor:
        size = self._fade.shape[0]
        count = min(size - self._num_out, out.shape[0])
        out = out.clone()
        if count > 0:
            out[:count] *= self._fade[self._num_out : self._num_out + count]
        self._num_out += out.shape[0]
        if final:
            count = min(size, out.shape[0])
            out[out.shape[0] - count :] *= self._fade.flip(0)[size - count :]
        return out


def sound_seconds(waveform: Tensor, sample_rate: int) -> float:
    """Seconds of a waveform (S,) that are not silence, in windows of 20 ms."""
    size = round(WINDOW_SECONDS * sample_rate)
    if waveform.shape[0] < size:
        return 0.0
    power = waveform.unfold(0, size, size).square().mean(dim=-1)
    return int(torch.count_nonzero(power >= 10.0 ** (QUIET_DBFS / 10.0))) * size / sample_rate
