"""Segments with quiet at their ends, whole and in pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokenlm.audio.joining import SegmentJoiner

RATE = 1000
"""Windows of 20 samples at steps of 10; 30 samples stay before the first sound; fades of 5."""


def sound(*parts: tuple[float, int]) -> Tensor:
    return torch.cat([torch.full((size,), level) for level, size in parts])


def test_quiet_before_a_segment_is_left_out() -> None:
    """100 quiet samples: the window from 90 on is loud, 30 samples before it stay."""
    out = SegmentJoiner(RATE).push(sound((0.0001, 100), (0.5, 100)), final=True)
    assert out.shape == (200 - 60,)
    assert float(out[39]) < 0.001 and out[41] == 0.5
    assert out[-1] == 0.0 and float(out[-3]) == pytest.approx(0.25)


def test_a_segment_that_begins_with_sound_fades_in() -> None:
    out = SegmentJoiner(RATE).push(sound((0.5, 100)), final=True)
    assert out[:6].tolist() == [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert out.shape == (100,)


def test_quiet_at_the_end_counts_as_pause() -> None:
    """The last loud window ends at 110: 70 quiet samples are heard, 30 are the segment's."""
    joiner = SegmentJoiner(RATE)
    assert joiner.pause(0.0).shape == (0,)
    assert joiner.push(sound((0.5, 100), (0.0, 80)), final=True).shape == (180,)
    assert joiner.pause(0.2).shape == (160,)
    assert joiner.pause(0.03).shape == (0,)
    joiner.push(sound((0.5, 100)), final=True)
    assert joiner.pause(0.2).shape == (200,)


def test_silence_alone_is_bounded() -> None:
    """Not more than half a second is left out, however long it takes."""
    assert SegmentJoiner(RATE).push(sound((0.0, 2000)), final=True).shape == (1500,)
    assert SegmentJoiner(RATE).push(sound((0.0, 200)), final=True).shape[0] <= 50
    assert SegmentJoiner(RATE).push(torch.zeros(0), final=True).shape == (0,)


@pytest.mark.parametrize("quiet", [0, 45, 499, 531, 540, 549, 560, 900])
@pytest.mark.parametrize("size", [1, 17, 120, 400])
def test_pieces_equal_the_whole(quiet: int, size: int) -> None:
    generator = torch.Generator().manual_seed(quiet)
    waveform = 0.3 * torch.randn(quiet + 700, generator=generator)
    waveform[:quiet] *= 1e-4
    waveform[quiet + 300 : quiet + 420] *= 1e-4
    waveform[quiet + 640 :] *= 1e-4
    whole, pieces = SegmentJoiner(RATE), SegmentJoiner(RATE)
    for _ in range(2):
        expected = whole.push(waveform, final=True)
        # The last piece is no shorter than the fade, as that of a vocoder is not.
        parts = [*waveform[:-20].split(size), waveform[-20:]]
        heard = [
            pieces.push(part, final=index == len(parts) - 1) for index, part in enumerate(parts)
        ]
        assert torch.equal(torch.cat(heard), expected)
        assert torch.equal(whole.pause(0.35), pieces.pause(0.35))


def test_nothing_is_held_back_once_it_is_heard() -> None:
    joiner = SegmentJoiner(RATE)
    assert joiner.push(sound((0.5, 40))).shape == (40,)
    assert joiner.push(sound((0.0, 333))).shape == (333,)
    assert joiner.push(sound((0.5, 7))).shape == (7,)
