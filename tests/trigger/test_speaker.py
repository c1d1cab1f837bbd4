"""Profiles of speakers, scores, and places where one person takes over from another."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from tokenlm.trigger.speaker import (
    MIN_SPREAD,
    SpeakerProfile,
    SpeakerProfileError,
    embed_windows,
    enrol,
    score_recording,
    split_agreement,
)

RATE = 16_000


class Bands(SpeakerEncoder):
    """Tells tones apart: its embedding is how loud each band of 50 Hz is."""

    def __init__(self) -> None:
        super().__init__(SpeakerEncoderConfig(dim=8, num_layers=1, embedding_dim=8))

    def embed_recording(self, waveform: Tensor) -> Tensor:
        power = torch.fft.rfft(waveform, n=RATE).abs()[: 50 * 40]
        return functional.normalize(power.unflatten(0, (40, 50)).sum(dim=1), dim=0)


def tone(hertz: float, seconds: float = 4.0) -> Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)


def at(*degrees: float) -> Tensor:
    angles = torch.tensor([math.radians(value) for value in degrees])
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_a_profile_by_hand() -> None:
    """Three recordings at 0, 10 and 20 degrees: the outer ones lie 15 from the mean of the others,
    the middle one lies on it."""
    profile = SpeakerProfile.of(at(0, 10, 20))
    torch.testing.assert_close(profile.mean, at(10)[0])
    outer = math.cos(math.radians(15))
    assert profile.own_similarity == pytest.approx((2 * outer + 1) / 3)
    assert profile.spread == MIN_SPREAD, "three that agree are less sure than they look"
    wide = SpeakerProfile.of(at(0, 60, 120))
    assert wide.spread == pytest.approx(float(torch.tensor([0.0, 1.0, 0.0]).std()), abs=1e-6)
    score = profile.score(at(70)[0], at(10)[0])
    assert (score.phrase, score.extended) == pytest.approx((0.5, 1.0))
    assert score.similarity == pytest.approx(0.75)
    assert score.deviation == pytest.approx((profile.own_similarity - 0.75) / MIN_SPREAD)
    assert profile.score(at(70)[0]).similarity == pytest.approx(0.5)


def test_a_profile_is_kept(tmp_path: Path) -> None:
    profile = SpeakerProfile.of(at(0, 40, 80))
    profile.save(tmp_path / "ann.profile")
    read = SpeakerProfile.load(tmp_path / "ann.profile")
    assert torch.equal(read.mean, profile.mean)
    assert (read.spread, read.num_recordings) == (profile.spread, 3)
    (tmp_path / "broken").write_bytes(b"nothing")
    for name in ("broken", "absent"):
        with pytest.raises(SpeakerProfileError, match=name):
            SpeakerProfile.load(tmp_path / name)
    for nothing in (torch.zeros(0, 2), torch.zeros(3)):
        with pytest.raises(SpeakerProfileError):
            SpeakerProfile.of(nothing)
    with pytest.raises(SpeakerProfileError):
        enrol(Bands(), [])


def test_another_person_scores_lower_alone_and_with_what_follows() -> None:
    encoder = Bands()
    profile = enrol(encoder, [tone(200, 1.0), tone(203, 1.1), tone(205, 0.9)])
    own = score_recording(encoder, profile, tone(202, 1.0), tone(204, 2.0))
    other = score_recording(encoder, profile, tone(410, 1.0), tone(410, 2.0))
    assert own.extended is not None and own.similarity > 0.9 and own.deviation < 2
    assert other.similarity < 0.3 and other.deviation > 5
    assert score_recording(encoder, profile, tone(202), torch.zeros(0)).extended is None


def test_where_another_person_takes_over() -> None:
    encoder = Bands()
    alone, spliced = tone(200, 6.0), torch.cat([tone(200, 3.0), tone(410, 3.0)])
    assert split_agreement(encoder, alone) > 0.95
    assert split_agreement(encoder, spliced) < 0.3
    mean = SpeakerProfile.of(embed_windows(encoder, alone)).mean
    assert float((embed_windows(encoder, alone) @ mean).min()) > 0.95
    assert float((embed_windows(encoder, spliced) @ mean).min()) < 0.3
    end = torch.cat([tone(200, 6.0), tone(410, 1.5)])
    assert float((embed_windows(encoder, end) @ mean).min()) < 0.95, "no window is left out"
    for short in (tone(200, 0.5), tone(200, 2.5)):
        assert split_agreement(encoder, short) > 0.9
        assert embed_windows(encoder, short).shape[0] >= 2
