from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tokenlm.audio.resample import resample
from training.evaluation.formants import MAX_WARP, estimate_warp, spectral_envelope

Vowels = Callable[..., torch.Tensor]


def envelope(waveform: torch.Tensor) -> np.ndarray:
    found = spectral_envelope(waveform.numpy())
    assert found is not None
    return found


@pytest.mark.parametrize("pitch", [100.0, 150.0, 220.0])
@pytest.mark.parametrize("moved", [0.9, 1.1, 1.2])
def test_pitch_alone_is_no_warp(say_vowels: Vowels, pitch: float, moved: float) -> None:
    found = estimate_warp(envelope(say_vowels(pitch * moved)), envelope(say_vowels(pitch)))
    assert found == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("pitch", [100.0, 150.0, 220.0])
@pytest.mark.parametrize("warp", [0.9, 0.95, 1.05, 1.1])
@pytest.mark.parametrize("moved", [0.9, 1.0, 1.1])
def test_formants_are_followed_whatever_the_pitch_does(
    say_vowels: Vowels, pitch: float, warp: float, moved: float
) -> None:
    found = estimate_warp(envelope(say_vowels(pitch * moved, warp)), envelope(say_vowels(pitch)))
    assert found == pytest.approx(warp, abs=0.012)


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.05, 1.1])
def test_a_resampled_recording_is_moved_by_the_factor(say_vowels: Vowels, factor: float) -> None:
    plain = say_vowels(130.0)
    moved = resample(plain, round(16_000 * factor), 16_000)
    assert estimate_warp(envelope(moved), envelope(plain)) == pytest.approx(factor, abs=0.008)


def test_level_and_tilt_do_not_matter_and_the_other_way_is_the_inverse(say_vowels: Vowels) -> None:
    plain, moved = say_vowels(130.0), say_vowels(130.0, 1.07)
    tilted = 0.01 * torch.cat([moved[:1], moved[1:] - 0.7 * moved[:-1]])
    reference = envelope(plain)
    assert estimate_warp(envelope(tilted), reference) == pytest.approx(1.07, abs=0.015)
    there = estimate_warp(envelope(moved), reference)
    assert estimate_warp(reference, envelope(moved)) == pytest.approx(1 / there, abs=1e-3)


def test_what_is_moved_too_far_stays_within_the_bounds(say_vowels: Vowels) -> None:
    found = estimate_warp(envelope(say_vowels(130.0, 1.4)), envelope(say_vowels(130.0)))
    assert 1 / MAX_WARP <= found <= MAX_WARP


def test_without_a_voice_there_is_no_envelope() -> None:
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(0)).numpy()
    assert spectral_envelope(noise) is None
    assert spectral_envelope(np.zeros(16_000)) is None
    assert spectral_envelope(noise[:100]) is None
