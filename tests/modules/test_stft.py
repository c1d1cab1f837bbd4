"""Causal inverse transform: against the definition, chunks == whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokenlm.modules.stft import CausalInverseSTFT
from tokenlm.modules.streaming import batched


def spectrum_of(waveform: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Windowed spectra (B, T, F) of the frames that start at t * hop_length."""
    frames = waveform.unfold(1, n_fft, hop_length) * torch.hann_window(n_fft)
    return torch.fft.rfft(frames)


def test_one_frame_by_hand() -> None:
    """Window 0, .5, 1, .5: the frame is windowed again, then divided by the squared window."""
    inverse = CausalInverseSTFT(4, 2)
    frame = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    state = inverse.init_state(1)
    out = inverse(torch.fft.rfft(frame), state)
    # sample 0: 1 * 0 / floor; sample 1: 2 * .5 / .25
    torch.testing.assert_close(out, torch.tensor([[0.0, 4.0]]))
    torch.testing.assert_close(state.tail, torch.tensor([[3.0, 2.0]]))
    torch.testing.assert_close(state.envelope, torch.tensor([[1.0, 0.25]]))


@pytest.mark.parametrize(("n_fft", "hop_length"), [(8, 4), (8, 2), (12, 3)])
def test_inverts_the_forward_transform(n_fft: int, hop_length: int) -> None:
    torch.manual_seed(0)
    waveform = torch.randn(2, n_fft + 9 * hop_length)
    out = CausalInverseSTFT(n_fft, hop_length)(spectrum_of(waveform, n_fft, hop_length))
    assert out.shape == (2, 10 * hop_length)
    # The first samples lie under an edge of the window.
    start = n_fft - hop_length
    torch.testing.assert_close(
        out[:, start:], waveform[:, start : 10 * hop_length], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("schedule", [[1] * 10, [3, 3, 4], [7, 1, 2], [10]])
@pytest.mark.parametrize(("n_fft", "hop_length"), [(8, 4), (8, 2), (12, 2)])
def test_chunks_equal_whole(schedule: list[int], n_fft: int, hop_length: int) -> None:
    torch.manual_seed(0)
    inverse = CausalInverseSTFT(n_fft, hop_length)
    spectrum = torch.randn(2, 10, n_fft // 2 + 1, dtype=torch.complex64)
    state = inverse.init_state(2)
    pieces = [inverse(piece, state) for piece in spectrum.split(schedule, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), inverse(spectrum), atol=1e-5, rtol=0)


def test_streams_at_different_positions_share_a_batch() -> None:
    torch.manual_seed(0)
    inverse = CausalInverseSTFT(8, 2)
    spectrum = torch.randn(2, 6, 5, dtype=torch.complex64)
    whole = inverse(spectrum)
    states = []
    for item, start in enumerate((1, 4)):
        state = inverse.init_state(1)
        inverse(spectrum[item : item + 1, :start], state)
        states.append(state)
    with batched(states) as joined:
        out = inverse(torch.stack([spectrum[0, 1:3], spectrum[1, 4:6]]), joined)
    torch.testing.assert_close(out[0], whole[0, 2:6], atol=1e-5, rtol=0)
    torch.testing.assert_close(out[1], whole[1, 8:12], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n_fft", "hop_length"), [(8, 3), (8, 8)])
def test_frames_must_overlap_evenly(n_fft: int, hop_length: int) -> None:
    with pytest.raises(ValueError, match="must be a multiple"):
        CausalInverseSTFT(n_fft, hop_length)
