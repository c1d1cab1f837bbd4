"""Measures of sounds that are known, and cutting at pauses."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from toy_sounds import RATE, embed, quiet, tone

from tokenlm.audio.io import load_audio
from tokenlm.audio.resample import resample
from training.refine import segment
from training.refine.config import RefineConfig
from training.refine.measures import bandwidth_hz, clipped_share, measure_sound
from training.refine.segment import normalise_level, segments
from training.refine.speakers import consistency, group_voices

BUNDLE = Path(__file__).resolve().parents[3] / "checkpoints" / "mini-en"


def test_signal_to_noise_is_the_difference_of_the_levels() -> None:
    wave = torch.cat([quiet(0.5, 0.003), tone(2.0) + quiet(2.0, 0.003), quiet(0.5, 0.003)])
    expected = 20 * math.log10(0.3 / math.sqrt(2) / 0.003)
    found = measure_sound(wave, RATE, "one two")
    assert found.snr_db == pytest.approx(expected, abs=1.0)
    assert found.text_length == 6 and found.seconds == 3.0
    assert found.start_edge_db < -30 and found.end_edge_db < -30
    cut = measure_sound(wave[RATE:], RATE, "one two")
    assert cut.start_edge_db == pytest.approx(0.0, abs=0.5)
    assert measure_sound(tone(0.01), RATE, "").seconds == 0.01, "too short, but not lost"


def test_clipping_is_flat_tops_only() -> None:
    wave = tone(1.0, 100.0, 1.0)
    assert clipped_share(wave) < 0.03, "a slow tone lingers at its peak more than any voice"
    assert clipped_share(wave.clamp(-0.5, 0.5)) > 0.3
    assert clipped_share(torch.zeros(100)) == 0.0


def test_bandwidth() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(RATE, generator=generator)
    assert bandwidth_hz(noise, RATE) > 7500
    spectrum = torch.fft.rfft(noise)
    spectrum[3000:] = 0  # one bin is one hertz
    assert bandwidth_hz(torch.fft.irfft(spectrum), RATE) == pytest.approx(3000, abs=150)


def test_recordings_are_cut_at_pauses() -> None:
    wave = torch.cat(
        [quiet(0.6), tone(1.5), quiet(1.0), tone(2.0), quiet(0.2), tone(0.5), quiet(1)]
    )
    places = [
        (start / RATE, stop / RATE)
        for start, stop in segments(wave, RATE, RefineConfig(detector="level"))
    ]
    assert len(places) == 2, "a pause of 0.2 s parts nothing"
    for found, expected in zip(places, [(0.6, 2.1), (3.1, 5.8)], strict=True):
        assert found[0] == pytest.approx(expected[0] - 0.1, abs=0.05)
        assert found[1] == pytest.approx(expected[1] + 0.1, abs=0.05)


def test_speech_without_a_pause_is_cut_where_it_is_quietest() -> None:
    config = RefineConfig(max_seconds=3.0, detector="level")
    wave = torch.cat([tone(2.0), tone(0.1, level=0.1), tone(2.0)])
    (_, first), (second, _) = segments(wave, RATE, config)
    assert first == second and 1.9 < first / RATE < 2.2
    assert all(stop - start <= 3.0 * RATE for start, stop in segments(wave, RATE, config))


def test_a_detector_of_speech_lets_other_sounds_be() -> None:
    speech = load_audio(BUNDLE / "demo_prompt.wav", RATE)
    wave = torch.cat([quiet(1.0), tone(2.0), quiet(1.0), speech, quiet(1.0)])
    by_level = segments(wave, RATE, RefineConfig(detector="level"))
    assert by_level[0][0] < 1.0 * RATE, "a tone is as loud as speech"
    threads = torch.get_num_threads()
    found = segments(wave, RATE, RefineConfig())
    assert torch.get_num_threads() == threads
    assert found[0][0] / RATE == pytest.approx(4.0, abs=0.4)
    assert found[-1][1] == pytest.approx(wave.shape[0] - RATE, abs=0.4 * RATE)
    # At another rate the same places.
    again = segments(resample(wave, RATE, 24_000), 24_000, RefineConfig())
    assert [round(stop / 24_000, 1) for _, stop in again] == [round(s / RATE, 1) for _, s in found]


def test_a_missing_detector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    segment._load_silero.cache_clear()
    with pytest.raises(ValueError, match="pip install silero-vad"):
        segments(tone(2.0), RATE, RefineConfig())


def test_level() -> None:
    wave = normalise_level(tone(1.0, level=0.01), -24.0)
    assert 10 * math.log10(float(wave.square().mean())) == pytest.approx(-24.0, abs=0.01)
    spike = torch.zeros(1000)
    spike[0] = 0.1
    assert float(normalise_level(spike, -10.0).max()) == pytest.approx(0.99)
    assert not normalise_level(torch.zeros(10), -24.0).any()


def test_speakers() -> None:
    low, high = tone(1.0, 200.0), tone(1.0, 3000.0)
    assert consistency(low, embed) > 0.9
    assert consistency(torch.cat([low, high]), embed) < 0.3
    assert group_voices([embed(low), embed(high), embed(low), embed(high)]) == [0, 1, 0, 1]
