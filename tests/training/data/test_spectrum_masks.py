"""SpecAugment: which part of a spectrogram is kept."""

from __future__ import annotations

import pytest
import torch

from training.data.spectrum_masks import SpectrumMaskConfig, draw_spectrum_mask


def draw(config: SpectrumMaskConfig, seed: int = 0, frames: int = 300) -> torch.Tensor:
    return draw_spectrum_mask(frames, 80, 100.0, config, torch.Generator().manual_seed(seed))


def test_nothing_is_masked_unless_asked() -> None:
    assert SpectrumMaskConfig().is_empty
    assert draw(SpectrumMaskConfig()).all()


def test_masks_are_whole_bands_and_whole_frames_within_their_sizes() -> None:
    bands = SpectrumMaskConfig(num_band_masks=2, max_bands=12)
    times = SpectrumMaskConfig(time_masks_per_second=1.0, max_frames=8)
    widths, lengths = [], []
    for seed in range(50):
        keep = draw(bands, seed)
        assert (keep == keep[:1]).all()
        widths.append(int((~keep[0]).sum()))
        keep = draw(times, seed)
        assert (keep == keep[:, :1]).all()
        lengths.append(int((~keep[:, 0]).sum()))
    assert max(widths) <= 24 and 8 < sum(widths) / 50 < 14  # two of 6 on average, seldom the same
    assert max(lengths) <= 24 and 9 < sum(lengths) / 50 < 14  # three of 4
    assert draw(bands, 3).equal(draw(bands, 3)) and not draw(bands, 3).equal(draw(bands, 4))


def test_short_utterances_and_wide_masks() -> None:
    assert draw(SpectrumMaskConfig(time_masks_per_second=1.0), frames=0).shape == (0, 80)
    wide = SpectrumMaskConfig(num_band_masks=3, max_bands=500, time_masks_per_second=200.0)
    assert draw(wide, frames=4).shape == (4, 80)


@pytest.mark.parametrize(
    "values", [{"num_band_masks": -1}, {"time_masks_per_second": -0.1}, {"max_frames": 0}]
)
def test_values_out_of_range(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        SpectrumMaskConfig(**values)
