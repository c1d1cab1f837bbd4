"""How noisy and how reverberant a recording of speech is, by the recording alone.

Shapes: S samples, W windows, F frequencies, T frames, K bands. Levels are in dBFS.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlm.audio.level import high_pass
from tokenlm.audio.resample import resample

WINDOW_SECONDS = 0.03
"""Windows that levels are measured in."""
CLEAN_SNR_DB = 25.0
"""Speech over noise from which on a recording is clean: below it a listener hears the noise, and a
vocoder learns it. Of clean speech of the natural corpus 96 % have more, in 20 dB of pink or street
noise 0 to 1 % (120 sentences)."""
CLEAN_ECHO_SECONDS = 0.45
"""Estimated reverberation time up to which a room counts as dry; all of that speech has less."""
USABLE_SNR_DB = 2.0
"""Speech over noise, below which speech is not to be enhanced: it is at least as loud as the noise,
and the estimate errs by about 2 dB."""
USABLE_ROOM_SPL_DB = 65.0
"""Noise of a room in dB SPL, where the microphone is calibrated, above which speech is not to be
enhanced: as loud as speech itself."""
_FLOOR = 1e-10
_ABOVE_NOISE_DB = 3.0
"""Speech and noise together, over the noise alone, where speech is as loud as noise."""
_DECAY_RATE, _DECAY_SIZE, _DECAY_HOP = 16_000, 512, 128
_DECAY_EDGES = (250.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0)
_DECAY_FRAMES = 12
"""Frames of a fall, 0.1 s."""
_DECAY_START_DB, _DECAY_END_DB, _DECAY_RESIDUAL_DB = 20.0, 3.0, 2.0
_MIN_FALLS = 10


def window_levels(waveform: Tensor, sample_rate: int) -> Tensor:
    """Level (W,) in dB of windows of 30 ms that do not overlap; the rest behind them is left."""
    size = round(WINDOW_SECONDS * sample_rate)
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
