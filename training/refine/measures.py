"""What is measured of a clip.

Shapes: S samples, W windows, F frequencies, T frames, K bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokenlm.audio.level import high_pass
from tokenlm.audio.resample import resample

_WINDOW_SECONDS = 0.03
_FLOOR = 1e-10
_ABOVE_NOISE_DB = 3.0
"""Speech and noise together, over the noise alone, where speech is as loud as noise."""
_DECAY_RATE, _DECAY_SIZE, _DECAY_HOP = 16_000, 512, 128
_DECAY_EDGES = (250.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0)
_DECAY_FRAMES = 12
"""Frames of a fall, 0.1 s."""
_DECAY_START_DB, _DECAY_END_DB, _DECAY_RESIDUAL_DB = 20.0, 3.0, 2.0
_MIN_FALLS = 10


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
    short = max(0, 2 * round(_WINDOW_SECONDS * sample_rate) - waveform.shape[0])
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


def window_levels(waveform: Tensor, sample_rate: int) -> Tensor:
    """Level (W,) in dB of windows of 30 ms that do not overlap; the rest behind them is left."""
    size = round(_WINDOW_SECONDS * sample_rate)
    count = waveform.shape[0] // size
    power = waveform[: count * size].float().reshape(count, size).square().mean(dim=1)
    return 10.0 * power.clamp(min=_FLOOR).log10()


@dataclass(frozen=True, kw_only=True)
class SpeechLevels:
    """Mean levels of a recording of speech, in dBFS."""

    speech_db: float
    """Of the speech without the noise, from its first to its last sound; minus infinity where
    nothing stands out of the noise."""
    noise_db: float
    """Of the noise, in the pauses."""

    @property
    def snr_db(self) -> float:
        """Signal to noise ratio.

        That of `Measures` is another figure: the range between loud and quiet windows, which needs
        no pauses, and by which refinement has its thresholds.
        """
        return self.speech_db - self.noise_db


def speech_levels(waveform: Tensor, sample_rate: int) -> SpeechLevels:
    """Measure speech and noise of a recording (S,) of at least two windows of 30 ms.

    The noise is that of the windows within 3 dB of the quietest tenth, taken as pauses (after
    Martin, 2001, whose minimum statistics follow the floor over time); its power is taken off that
    of the speech. Noise that stops in the pauses, as that of a voice in a conversation, is missed.
    """
    levels = window_levels(high_pass(waveform - waveform.mean(), sample_rate), sample_rate)
    powers = 10.0 ** (levels / 10.0)
    noise = powers[levels <= torch.quantile(levels, 0.1) + 3.0].mean()
    # By three windows together: one alone stands out of any noise now and then.
    smooth = torch.nn.functional.avg_pool1d(powers[None], 3, 1, 1, count_include_pad=False)[0]
    heard = torch.nonzero(smooth > noise * 10 ** (_ABOVE_NOISE_DB / 10))[:, 0]
    noise_db = float(10.0 * noise.log10())
    if not heard.numel():
        return SpeechLevels(speech_db=float("-inf"), noise_db=noise_db)
    speech = powers[int(heard[0]) : int(heard[-1]) + 1].mean() - noise
    return SpeechLevels(speech_db=float(10.0 * speech.clamp(min=_FLOOR).log10()), noise_db=noise_db)


def reverberation_seconds(waveform: Tensor, sample_rate: int) -> float | None:
    """Estimate the reverberation time (fall by 60 dB) of the room that speech (S,) was recorded in.

    Where a sound ends, its level falls no faster than the room lets it. So the steepest falls in
    bands of speech say how fast that is (after Wen, Habets and Naylor, 2008, "Blind estimation of
    reverberation time based on the distribution of signal decay rates"). Speech in a dry room gives
    0.1 to 0.2 s, as sounds of speech take time to end themselves.

    Returns:
        Seconds; None where no sound ends clearly above the noise.
    """
    samples = resample(waveform.float(), sample_rate, _DECAY_RATE)
    if samples.shape[0] < _DECAY_SIZE * 8:
        return None
    frames = samples.unfold(0, _DECAY_SIZE, _DECAY_HOP) * torch.hann_window(_DECAY_SIZE)
    power = torch.fft.rfft(frames).abs().square()
    edges = [round(hertz * _DECAY_SIZE / _DECAY_RATE) for hertz in _DECAY_EDGES]
    bands = torch.stack(
        [power[:, low:high].mean(dim=1) for low, high in zip(edges, edges[1:], strict=False)]
    )
    levels = 10.0 * bands.clamp(min=_FLOOR).log10()  # (K, T)
    floor = torch.quantile(levels, 0.1, dim=1, keepdim=True)
    runs = levels.unfold(1, _DECAY_FRAMES, 1)  # (K, T', frames of a run)
    time = torch.arange(_DECAY_FRAMES) * (_DECAY_HOP / _DECAY_RATE)
    time = time - time.mean()
    slopes = (runs * time).sum(dim=2) / time.square().sum()
    # Straight falls that begin well above the noise and end above it.
    residual = runs - runs.mean(dim=2, keepdim=True) - slopes[..., None] * time
    is_fall = (
        (runs[..., 0] >= floor + _DECAY_START_DB)
        & (runs[..., -1] >= floor + _DECAY_END_DB)
        & (residual.square().mean(dim=2).sqrt() <= _DECAY_RESIDUAL_DB)
        & (slopes < -1.0)
    )
    falls = slopes[is_fall]
    if falls.numel() < _MIN_FALLS:
        return None
    return float(-60.0 / torch.quantile(falls, 0.1))


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
