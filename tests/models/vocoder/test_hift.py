"""Source-filter vocoders: streams equal the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tokenlm.models.vocoder import HiFT, HiFTConfig


@pytest.fixture(scope="module", params=[False, True])
def vocoder(request: pytest.FixtureRequest) -> HiFT:
    torch.manual_seed(0)
    model = HiFT(HiFTConfig(is_causal=request.param, dim=16, pitch_dim=8))
    with torch.no_grad():
        model.pitch.head.weight.mul_(2000.0)  # pitches of a voice
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.randn(2, 40, 80, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", [[25, 15], [3, 30, 1, 6]])
def test_chunks_equal_the_whole(vocoder: HiFT, mel: torch.Tensor, sizes: list[int]) -> None:
    whole = vocoder(mel)
    assert whole.shape == (2, 40 * 480) and 0 < whole.abs().max() <= 0.99
    state, parts, fed, given = vocoder.init_state(2), [], 0, 0
    for size in sizes:
        parts.append(vocoder(mel[:, fed : fed + size], state))
        fed, given = fed + size, given + parts[-1].shape[1]
        assert fed * 480 - given <= vocoder.config.lookahead_samples
    parts.append(vocoder.flush(state))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-4)


def test_items_of_a_batch_do_not_mix(vocoder: HiFT, mel: torch.Tensor) -> None:
    torch.testing.assert_close(vocoder(mel[1:]), vocoder(mel)[1:], rtol=0, atol=1e-4)


def test_the_look_ahead_is_no_larger_than_said(vocoder: HiFT, mel: torch.Tensor) -> None:
    """What lies behind the look-ahead changes nothing before it."""
    changed = mel.clone()
    changed[:, 30:] += 1.0
    safe = 30 * 480 - vocoder.config.lookahead_samples
    difference = (vocoder(changed) - vocoder(mel)).abs()
    assert difference[:, :safe].max() < 1e-4 < difference[:, 30 * 480 :].max()


def test_a_copied_state_goes_its_own_way(vocoder: HiFT, mel: torch.Tensor) -> None:
    state: Any = vocoder.init_state(2)
    vocoder(mel[:, :30], state)
    other = state.clone()
    expected = vocoder(mel[:, 30:], state)
    assert torch.equal(vocoder(mel[:, 30:], other), expected)


def test_a_state_keeps_two_frames_and_not_the_first_piece(vocoder: HiFT, mel: torch.Tensor) -> None:
    state = vocoder.init_exact(2)
    vocoder(mel[:, :30], state)
    held = state.stages[-1].held
    assert held.shape[2] == 2 and held.untyped_storage().nbytes() == held.nbytes


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="make 240 samples of a frame, the mel has 480"):
        HiFTConfig(upsample_rates=(4, 5, 3))
    with pytest.raises(ValueError, match="one number for each rate"):
        HiFTConfig(source_kernels=(7, 7))


def test_empty_streams(vocoder: HiFT) -> None:
    num_mels = vocoder.config.mel.num_mels
    assert vocoder(torch.zeros(2, 0, num_mels)).shape == (2, 0)
    state = vocoder.init_exact(2)
    assert vocoder(torch.zeros(2, 0, num_mels), state).shape == (2, 0)
    assert vocoder.flush(state).shape == (2, 0)
