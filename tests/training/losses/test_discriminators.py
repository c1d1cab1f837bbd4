"""Discriminators of waveforms."""

from __future__ import annotations

import pytest
import torch

from training.losses.discriminators import (
    PeriodDiscriminator,
    SpectrumDiscriminator,
    WaveformDiscriminator,
)


def build() -> WaveformDiscriminator:
    torch.manual_seed(0)
    return WaveformDiscriminator(
        periods=(2, 3),
        period_channels=(2, 4),
        resolutions=((64, 16), (128, 32)),
        spectrum_channels=3,
    )


def test_a_score_map_and_features_of_each() -> None:
    scores, features = build()(torch.randn(2, 600))
    assert len(scores) == len(features) == 4
    assert [len(layers) for layers in features] == [2, 2, 4, 4]
    # 600 samples in rows of 2, twice every third: 300, 100, 34.
    assert scores[0].shape == (2, 1, 34, 2)
    assert all(score.shape[0] == 2 and score.shape[1] == 1 for score in scores)


@pytest.mark.parametrize("samples", [600, 601])
def test_period_folds_any_length(samples: int) -> None:
    score, _ = PeriodDiscriminator(7, (2,))(torch.randn(1, samples))
    assert score.shape[3] == 7


def test_period_columns_do_not_mix() -> None:
    """A discriminator of period 3 sees each phase for itself."""
    torch.manual_seed(0)
    model = PeriodDiscriminator(3, (2, 2))
    waveform = torch.randn(1, 90)
    changed = waveform.clone()
    changed[:, 1::3] += 1
    before, after = model(waveform)[0], model(changed)[0]
    torch.testing.assert_close(before[..., [0, 2]], after[..., [0, 2]])
    assert not torch.allclose(before[..., 1], after[..., 1])


def test_spectrum_does_not_hear_the_sign() -> None:
    torch.manual_seed(0)
    model = SpectrumDiscriminator(64, 16, 2)
    waveform = torch.randn(1, 500)
    torch.testing.assert_close(model(waveform)[0], model(-waveform)[0])


def test_gradients_reach_everything() -> None:
    model = build()
    waveform = torch.randn(1, 600, requires_grad=True)
    scores, _ = model(waveform)
    sum((score.square().sum() for score in scores), torch.zeros(())).backward()
    assert waveform.grad is not None and bool(waveform.grad.isfinite().all())
    assert all(weight.grad is not None for weight in model.parameters())
