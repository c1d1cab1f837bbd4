"""Pitch of sounds whose pitch is known."""

from __future__ import annotations

import math

import pytest
import torch

from training.data.pitch import estimate_periodicity, estimate_pitch
from training.losses.spectral import pitch_loss

RATE, HOP = 24_000, 480


def tone(hertz: float, seconds: float = 0.5) -> torch.Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    return sum(
        (torch.sin(2 * math.pi * hertz * n * time) / n for n in range(1, 8)), torch.zeros(())
    )


@pytest.mark.parametrize("hertz", [72.5, 110.0, 233.3, 401.0, 640.0])
def test_tones(hertz: float) -> None:
    pitch = estimate_pitch(0.1 * tone(hertz)[None], RATE, HOP)
    assert pitch.shape == (1, 25)
    torch.testing.assert_close(pitch[0, 2:-2], torch.full((21,), hertz), rtol=3e-3, atol=0)


def test_what_has_no_pitch() -> None:
    noise = torch.randn(12_000, generator=torch.Generator().manual_seed(0))
    found = estimate_pitch(torch.stack([torch.zeros(12_000), noise]), RATE, HOP)
    assert bool((found[0] == 0).all())
    assert float((found[1] == 0).float().mean()) > 0.9


def test_frames_are_where_the_sound_is() -> None:
    """A frame is voiced as soon as most of what lies around its middle is."""
    wave = torch.cat([torch.zeros(4800), tone(150.0, 0.2), tone(300.0, 0.2), torch.zeros(4800)])
    found = estimate_pitch(wave[None], RATE, HOP)[0]
    assert bool((found[:9] == 0).all()) and bool((found[-9:] == 0).all())
    torch.testing.assert_close(found[12:18], torch.full((6,), 150.0), rtol=3e-3, atol=0)
    torch.testing.assert_close(found[22:28], torch.full((6,), 300.0), rtol=3e-3, atol=0)


def test_items_of_a_batch_do_not_see_one_another() -> None:
    both = torch.stack([0.01 * tone(120.0), tone(200.0)])
    alone = [estimate_pitch(row[None], RATE, HOP)[0] for row in both]
    torch.testing.assert_close(estimate_pitch(both, RATE, HOP), torch.stack(alone))


def test_loss_by_hand() -> None:
    predicted = torch.tensor([[100.0, 0.0], [50.0, 70.0]])
    target = torch.tensor([[110.0, 0.0], [50.0, 0.0]])
    assert pitch_loss(predicted, target).item() == 5.0 + 35.0


def test_periodicity() -> None:
    time = torch.arange(16_000) / 16_000
    tone = torch.sin(2 * torch.pi * 200 * time)
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    pitch, share = estimate_periodicity(torch.stack([tone, noise, 0 * tone]), 16_000, 160)
    assert torch.equal(pitch, estimate_pitch(torch.stack([tone, noise, 0 * tone]), 16_000, 160))
    assert float(share[0, 5:-5].min()) > 0.95
    assert float(share[1].mean()) < 0.5 and not share[2].any()
