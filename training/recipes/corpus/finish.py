"""From what an engine gave to what is stored: warp, high-pass, trim, level, whole blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr
import torch

from training.data.augment import equalize
from training.recipes.corpus.config import CorpusConfig
from training.recipes.corpus.engines import EngineError, Phones, Speech

FRAME_SECONDS = 0.01
SILENCE_DB = -42.0
"""A frame this far below the loudest one is silence."""
MAX_PEAK = 0.95


def finish(
    speech: Speech, formant: float, config: CorpusConfig, timbre: Sequence[float] = ()
) -> tuple[np.ndarray, Phones]:
    """Make an engine's speech what the corpus stores.

    Args:
        speech: the engine's waveform at any rate, with its aligned phones.
        formant: factor by which to move formants and pitch up (and shorten the speech).
        config: rates and levels.
        timbre: gains in dB of the bands of a filter, lowest first; empty for none.

    Returns:
        Waveform (S,) float32 at `config.sample_rate`, S a multiple of `config.block_samples`,
        and the phones with their ends in seconds on it.

    Raises:
        EngineError: the speech is silent.
    """
    rate = config.sample_rate
    # Saying that the samples came faster than they did is what moves the formants.
    waveform = soxr.resample(speech.waveform, speech.sample_rate * formant, rate, quality="HQ")
    waveform = highpass(waveform, rate, config.highpass_hz)
    if timbre:
        waveform = equalize(torch.from_numpy(waveform), rate, torch.tensor(timbre)).numpy()
    first, last = speech_bounds(waveform, rate)
    if last <= first:
        raise EngineError("the engine gave silence")
    pad = round(config.pad_seconds * rate)
    begin = first - pad
    length = -(-(last + pad - begin) // config.block_samples) * config.block_samples
    cut = np.zeros(length, dtype=np.float64)
    source = waveform[max(begin, 0) : begin + length]
    offset = max(-begin, 0)
    cut[offset : offset + len(source)] = source[: length - offset]
    level = np.sqrt(np.mean(cut**2))
    gain = min(10 ** (config.level_dbfs / 20) / level, MAX_PEAK / np.abs(cut).max())
    phones = shift_phones(speech.phones, formant, begin / rate, length / rate)
    return (cut * gain).astype(np.float32), phones


def highpass(waveform: np.ndarray, sample_rate: int, corner: float) -> np.ndarray:
    """Filter without moving anything in time: a Butterworth of order 2 run both ways.

    Args:
        waveform: samples (S,), S at least 1.
        sample_rate: rate in Hz.
        corner: frequency in Hz at which half of the amplitude is left.

    Returns:
        Samples (S,) float64.
    """
    # Mirrored ends keep the filter from ringing where an offset would begin and end.
    pad = min(round(4 * sample_rate / corner), len(waveform) - 1)
    padded = np.pad(waveform.astype(np.float64) - waveform.mean(), pad, mode="reflect")
    spectrum = np.fft.rfft(padded)
    frequencies = np.fft.rfftfreq(len(padded), 1 / sample_rate)
    gain = frequencies**4 / (frequencies**4 + corner**4)
    return np.fft.irfft(spectrum * gain, len(padded))[pad : pad + len(waveform)]


def speech_bounds(waveform: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """First and one past the last sample of the frames that are not silence; (0, 0) if all are.

    Args:
        waveform: samples (S,).
        sample_rate: rate in Hz.
    """
    size = round(FRAME_SECONDS * sample_rate)
    num_frames = len(waveform) // size
    if num_frames == 0:
        return 0, 0
    energy = np.mean(waveform[: num_frames * size].reshape(num_frames, size) ** 2, axis=1)
    if energy.max() < 1e-9:
        return 0, 0
    loud = np.flatnonzero(energy > energy.max() * 10 ** (SILENCE_DB / 10))
    return int(loud[0]) * size, (int(loud[-1]) + 1) * size


def shift_phones(phones: Phones, formant: float, begin: float, duration: float) -> Phones:
    """Move phone ends from the engine's time to that of the stored waveform.

    Args:
        phones: phones with ends in seconds of the engine's waveform.
        formant: factor by which the waveform was shortened.
        begin: second of the shortened waveform at which the stored one begins.
        duration: seconds stored.

    Returns:
        Phones with rising ends; the last ends at `duration`.
    """
    moved: Phones = []
    for name, end in phones:
        shifted = round(min(end / formant - begin, duration), 4)
        if shifted > (moved[-1][1] if moved else 0.0):
            moved.append((name, shifted))
    if moved:
        moved[-1] = (moved[-1][0], round(duration, 4))
    return moved
