"""What is measured of a clip.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokenlm.audio.noise import WINDOW_SECONDS, window_levels


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Of one clip; None is what could not be measured, and no filter drops a clip for it."""

    seconds: float
    snr_db: float
    clipped_share: float
    bandwidth_hz: float
    start_edge_db: float
    """Level of the first 30 ms against the loudest part."""
    end_edge_db: float
    text_length: int
    """Letters and digits of the text."""
    speaker_consistency: float | None = None
    disagreement: float | None = None
    """Mean pairwise word error rate of text and transcripts."""
    letter_disagreement: float | None = None
    """The same of their letters, without spaces."""
    transcripts: dict[str, str] = field(default_factory=dict)

    @property
    def seconds_per_letter(self) -> float | None:
        """Speech for the text; None without text."""
        return self.seconds / self.text_length if self.text_length else None


def measure_sound(waveform: Tensor, sample_rate: int, text: str) -> Measures:
    """Measure what needs no model.

    Args:
        waveform: (S,); one that is shorter than two windows is measured with silence behind it.
        sample_rate: In Hz.
        text: What is said; may be empty.
    """
    short = max(0, 2 * round(WINDOW_SECONDS * sample_rate) - waveform.shape[0])
    levels = window_levels(torch.nn.functional.pad(waveform, (0, short)), sample_rate)
    loudest = float(torch.quantile(levels, 0.95))
    return Measures(
        seconds=waveform.shape[0] / sample_rate,
        snr_db=loudest - float(torch.quantile(levels, 0.05)),
        clipped_share=clipped_share(waveform),
        bandwidth_hz=bandwidth_hz(waveform, sample_rate),
        start_edge_db=float(levels[0]) - loudest,
        end_edge_db=float(levels[-1]) - loudest,
        text_length=sum(character.isalnum() for character in text),
    )


def clipped_share(waveform: Tensor) -> float:
    """Share of samples that repeat the peak of their neighbour: flat tops.

    A wave touches its peak in single samples; one that was cut stays there for several. To be
    measured at the rate of the recording: resampling rounds the tops.
    """
    peak = waveform.abs().max()
    if float(peak) < 1e-4:
        return 0.0
    at_peak = waveform.abs() >= 0.999 * peak
    flat = at_peak[1:] & at_peak[:-1]
    return float(flat.float().mean())


def bandwidth_hz(waveform: Tensor, sample_rate: int) -> float:
    """Frequency up to which the loud windows are within 50 dB of their strongest band."""
    size = 1024
    if waveform.shape[0] < size:
        return sample_rate / 2
    frames = waveform.float().unfold(0, size, size // 2) * torch.hann_window(size)
    power = torch.fft.rfft(frames).abs().square()
    loud = power.sum(dim=1) >= torch.quantile(power.sum(dim=1), 0.5)
    mean = power[loud].mean(dim=0)
    smooth = torch.nn.functional.avg_pool1d(mean[None, None], 9, 1, 4)[0, 0]
    heard = torch.nonzero(smooth >= smooth.max() * 1e-5)[:, 0]
    return float(heard[-1]) * sample_rate / size


def word_disagreement(texts: list[str]) -> float | None:
    """Mean word error rate of every pair, symmetric; None with fewer than two texts.

    Args:
        texts: The text and the transcripts, as words in lower case with single spaces. One that
            has no words disagrees wholly with one that has some.
    """
    return _mean_pair_error([text.split() for text in texts])


def letter_disagreement(texts: list[str]) -> float | None:
    """The same of letters, spaces left out.

    A recogniser without a lexicon spells most words nearly right and few wholly; by letters it
    still tells another text from its own spelling.
    """
    return _mean_pair_error([text.replace(" ", "") for text in texts])


def _mean_pair_error(texts: Sequence[Sequence[str]]) -> float | None:
    pairs = [(one, two) for i, one in enumerate(texts) for two in texts[i + 1 :]]
    if not pairs:
        return None
    return sum(_pair_error(one, two) for one, two in pairs) / len(pairs)


def _pair_error(first: Sequence[str], second: Sequence[str]) -> float:
    longest = max(len(first), len(second))
    if not longest:
        return 0.0
    row = list(range(len(second) + 1))
    for i, word in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            found = min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
            diagonal, row[j] = row[j], found
    return row[-1] / longest
