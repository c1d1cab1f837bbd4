"""Splicing: putting new sound between two parts of a recording.

Two sounds of one voice seldom have the same phase. Before they are cross-faded, the new one is
moved by some milliseconds to where it is most like the recording, as overlap-add does (Verhelst
and Roelands, 1993, WSOLA).

Shapes: S samples, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FADE_SECONDS = 0.03
"""Of a cross-fade."""
SHIFT_SECONDS = 0.008
"""Most that new sound is moved: a period of the deepest voices lies within twice that."""


def best_shift(recorded: Tensor, rendered: Tensor) -> int:
    """Where a piece of a recording is most like one of a longer rendering.

    Args:
        recorded: (S,).
        rendered: (S + R,).

    Returns:
        Index of the first sample in `rendered`, 0 .. R; the middle where either is silent.
    """
    size, room = recorded.shape[0], rendered.shape[0] - recorded.shape[0]
    if size == 0 or room <= 0:
        return max(room, 0) // 2
    windows = rendered.double().unfold(0, size, 1)
    own = recorded.double()
    norms = windows.norm(dim=1) * own.norm()
    likeness = (windows @ own) / norms.clamp(min=1e-9)
    # Of places that are about as good, such as those of noise, the middle.
    distance = (torch.arange(room + 1) - room / 2).abs() / max(room / 2, 1)
    return int((likeness - 0.05 * distance).argmax())


def cross_fade(old: Tensor, new: Tensor) -> Tensor:
    """A fade (S,) from `old` (S,) to `new` (S,) that keeps the level, however alike they are."""
    size = old.shape[0]
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / max(size, 1)
    into = 0.5 - 0.5 * torch.cos(torch.pi * place)
    a, b = old.double(), new.double()
    likeness = float((a @ b) / (a.norm() * b.norm()).clamp(min=1e-9)) if size else 1.0
    likeness = max(likeness, 0.0)
    power = (1 - into).square() + into.square() + 2 * likeness * into * (1 - into)
    return (((1 - into) * a + into * b) / power.sqrt()).to(old.dtype)


@dataclass(frozen=True, kw_only=True)
class Splice:
    """Samples that take the place of some of a recording."""

    first: int
    """The first sample of the recording that is replaced, in a cross-fade."""
    waveform: Tensor
    """(C, S) what takes their place."""
    last: int
    """The sample behind the last that is replaced."""
    start: int
    """The first sample, in the result, behind the first cross-fade."""
    end: int
    """The first sample of the last cross-fade, in the result."""


def splice(
    recorded: Tensor,
    gains: Tensor,
    before: int,
    after: int,
    rendered: Tensor,
    start: int,
    end: int,
    rate: int,
) -> Splice:
    """New sound for a part of a recording; each channel gets it as loud as it has the speech.

    Args:
        recorded: (C, S) the recording.
        gains: (C,) of its channels.
        before: its first sample that is to be replaced.
        after: the first behind these.
        rendered: (S',) the new sound, with some of the recording, rendered, on both sides.
        start: its first sample that is new.
        end: the first behind these.
        rate: in hertz.

    Returns:
        The samples; cross-fades lie within `FADE_SECONDS` outside of what is replaced.
    """
    fade, shift = round(FADE_SECONDS * rate), round(SHIFT_SECONDS * rate)
    # Quiet, where there is nothing of the recording on a side.
    rendered = functional.pad(rendered, (fade + shift, fade + shift))
    start, end = start + fade + shift, end + fade + shift
    reference = common_channel(recorded, gains)
    left, right = min(fade, before), min(fade, recorded.shape[1] - after)
    inner = min(shift, (end - start) // 4)
    first, last = start - left - shift, end - inner
    begin = first + best_shift(reference[before - left : before], rendered[first : start + inner])
    stop = last + best_shift(reference[after : after + right], rendered[last : end + right + shift])
    rows = []
    for own, gain in zip(recorded, gains, strict=True):
        new = gain * rendered
        tail = cross_fade(own[after : after + right].flip(0), new[stop : stop + right].flip(0))
        rows.append(
            torch.cat(
                [
                    cross_fade(own[before - left : before], new[begin : begin + left]),
                    new[begin + left : stop],
                    tail.flip(0),
                ]
            )
        )
    return Splice(
        first=before - left,
        waveform=torch.stack(rows),
        last=after + right,
        start=before,
        end=before + stop - begin - left,
    )


def channel_gains(recorded: Tensor) -> Tensor:
    """How loud each channel (C, S) has what they have in common; (C,).

    That is the first principal component of the channels. The mean square of the gains is 1, so
    that one channel has 1. A channel may have it with the opposite sign.
    """
    if recorded.shape[0] == 1 or not recorded.any():
        return recorded.new_ones(recorded.shape[0])
    table = recorded.double()
    _, vectors = torch.linalg.eigh(table @ table.T)
    gains = vectors[:, -1] * math.sqrt(recorded.shape[0])
    if gains.sum() < 0:
        gains = -gains
    return gains.to(recorded)


def common_channel(recorded: Tensor, gains: Tensor) -> Tensor:
    """What channels (C, S) with these gains (C,) have in common, (S,)."""
    return gains @ recorded / gains.square().sum()
