"""How much sound there is above 8 kHz, where speech that was learned from 16 kHz has none.

Shapes: S samples.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SPLIT_HZ, TOP_HZ = 8000.0, 11_500.0
FLOOR_DB = -120.0
"""Of a recording with nothing above."""


def high_band_db(waveform: Tensor, sample_rate: int) -> float | None:
    """Energy from 8 to 11.5 kHz over that below, in decibels.

    Args:
        waveform: (S,).
        sample_rate: in hertz.

    Returns:
        None where the rate is too low for such a band, or where nothing is to be heard.
    """
    if sample_rate < 2 * TOP_HZ or not waveform.shape[0]:
        return None
    # In double precision: single puts the noise of its own rounding where there is nothing.
    power = torch.fft.rfft(waveform.double()).abs().square().numpy()
    hertz = np.arange(len(power)) * sample_rate / waveform.shape[0]
    low = float(power[hertz < SPLIT_HZ].sum())
    high = float(power[(hertz >= SPLIT_HZ) & (hertz < TOP_HZ)].sum())
    if low <= 0.0:
        return None
    return max(10.0 * float(np.log10(max(high / low, 1e-30))), FLOOR_DB)
