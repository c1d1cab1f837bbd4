"""Mels at another pace, whole and in pieces."""

from __future__ import annotations

import pytest
import torch

from tokenlm.audio.mel import MelTempo, check_speed


def test_frames_are_interpolated() -> None:
    """Frames 0, 10, 20, 30 at twice and at half the speed."""
    mel = torch.tensor([0.0, 10.0, 20.0, 30.0]).view(1, 4, 1)
    assert MelTempo(2.0).push(mel, final=True).flatten().tolist() == [0.0, 20.0]
    slow = MelTempo(0.5).push(mel, final=True).flatten().tolist()
    assert slow == [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]
    assert MelTempo(1.0).push(mel, final=True) is mel
    assert MelTempo(1.5).push(mel, final=True).flatten().tolist() == [0.0, 15.0, 30.0]


@pytest.mark.parametrize("speed", [0.25, 0.7, 1.0, 1.1, 1.5, 3.3, 4.0])
@pytest.mark.parametrize("sizes", [[1] * 40, [7, 20, 13], [40], [0, 39, 1, 0]])
def test_pieces_equal_the_whole(speed: float, sizes: list[int]) -> None:
    mel = torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(0))
    whole = MelTempo(speed).push(mel, final=True)
    assert abs(whole.shape[1] - 40 / speed) < 1 / speed + 1
    tempo = MelTempo(speed)
    pieces = [tempo.push(piece) for piece in mel.split(sizes, dim=1)]
    joined = torch.cat([*pieces, tempo.push(mel[:, :0], final=True)], dim=1)
    torch.testing.assert_close(joined, whole, atol=1e-5, rtol=0)


def test_range() -> None:
    assert check_speed(4) == 4.0
    for speed in (0.2, 4.1, float("nan")):
        with pytest.raises(ValueError, match="speed must be from 0.25 to 4, got"):
            check_speed(speed)
