"""Augmentation: as strong as asked, deterministic, finite, as long as the input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.data.augment import (
    AugmentConfig,
    add_noise,
    augment,
    augment_with_target,
    babble,
    band_limit,
    change_gain,
    clip,
    equalize,
    impulse_response,
    make_noise,
    reverberate,
)
from training.data.codec import encode_decode, mu_law, mu_law_telephone, quantize

RATE = 16000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tones(*frequencies: float, num_samples: int = RATE) -> Tensor:
    time = torch.arange(num_samples) / RATE
    return sum(
        (0.2 * torch.sin(2 * math.pi * f * time) for f in frequencies), torch.zeros(num_samples)
    )


def level_db(waveform: Tensor, frequency: float) -> float:
    """Level of one frequency, of a whole number of periods in a second."""
    spectrum = torch.fft.rfft(waveform[:RATE]).abs()
    return 20 * math.log10(float(spectrum[int(frequency)]) + 1e-9)


def delay(output: Tensor, waveform: Tensor) -> int:
    size = 1 << 16
    product = torch.fft.rfft(output, size) * torch.fft.rfft(waveform, size).conj()
    peak = int(torch.fft.irfft(product, size).argmax())
    return peak if peak < size // 2 else peak - size


@pytest.mark.parametrize("kind", ["white", "pink", "hum"])
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
def test_noise_has_the_ratio_that_was_asked_for(kind: str, snr_db: float) -> None:
    speech = tones(300.0)
    noisy = add_noise(speech, make_noise(kind, RATE, RATE, seeded()), snr_db)
    ratio = speech.square().mean() / (noisy - speech).square().mean()
    assert 10 * math.log10(float(ratio)) == pytest.approx(snr_db, abs=0.01)


def test_noise_leaves_silence_alone() -> None:
    assert torch.equal(add_noise(torch.zeros(9), torch.ones(9), 0.0), torch.zeros(9))
    assert torch.equal(add_noise(torch.ones(9), torch.zeros(9), 0.0), torch.ones(9))


def test_pink_noise_falls_by_three_db_per_octave() -> None:
    power = torch.fft.rfft(make_noise("pink", 10 * RATE, RATE, seeded())).abs().square()
    octaves = [power[500 * 2**k * 10 : 1000 * 2**k * 10].mean() for k in range(3)]
    for low, high in zip(octaves, octaves[1:], strict=False):
        assert 10 * math.log10(float(low / high)) == pytest.approx(3.0, abs=0.3)


def test_hum_has_lines_at_the_mains_only() -> None:
    hum = make_noise("hum", RATE, RATE, seeded(1))
    spectrum = torch.fft.rfft(hum).abs()
    peaks = set(torch.nonzero(spectrum > 0.001 * spectrum.max()).flatten().tolist())
    assert peaks <= {50 * k for k in range(1, 7)} or peaks <= {60 * k for k in range(1, 7)}
    with pytest.raises(ValueError, match="no noise 'brown'"):
        make_noise("brown", 10, RATE, seeded())


def test_babble_repeats_short_voices() -> None:
    total = babble([torch.ones(3), torch.empty(0)], 10, seeded())
    assert torch.allclose(total, torch.ones(10))


def test_reverberation_decays_as_asked_and_keeps_the_level() -> None:
    response = impulse_response(RATE, 0.5, seeded())
    assert float(response.square().sum()) == pytest.approx(1.0, abs=1e-4)
    early, late = response[1600:2400].square().mean(), response[4800:5600].square().mean()
    # 0.2 s of a decay of 60 dB in 0.5 s: 24 dB, and the tail is smoothed by a few dB more.
    assert 24.0 - 2.0 < 10 * math.log10(float(early / late)) < 24.0 + 6.0
    speech = torch.randn(RATE, generator=seeded(1))
    wet = reverberate(speech, response, 0.0)
    assert float(wet.square().mean()) == pytest.approx(float(speech.square().mean()), rel=1e-4)
    assert delay(wet, speech) == 0
    assert torch.allclose(reverberate(speech, response, 120.0), speech, atol=1e-3)


def test_equalizer_gains() -> None:
    speech = tones(80.0, 7200.0)
    out = equalize(speech, RATE, torch.tensor([6.0, -6.0]))
    assert level_db(out, 80.0) - level_db(speech, 80.0) == pytest.approx(6.0, abs=0.2)
    assert level_db(out, 7200.0) - level_db(speech, 7200.0) == pytest.approx(-6.0, abs=0.2)
    assert torch.allclose(equalize(speech, RATE, torch.zeros(1)), speech, atol=1e-5)


def test_band_limit() -> None:
    speech = tones(100.0, 1000.0, 5000.0)
    out = band_limit(speech, RATE, 300.0, 3400.0)
    assert abs(level_db(out, 1000.0) - level_db(speech, 1000.0)) < 0.1
    for frequency in (100.0, 5000.0):
        assert level_db(out, frequency) < level_db(speech, frequency) - 30.0
    low_pass = band_limit(speech, RATE, 0.0, 3400.0)
    assert abs(level_db(low_pass, 100.0) - level_db(speech, 100.0)) < 0.1


def test_clip_gain_and_quantize_by_hand() -> None:
    waveform = torch.tensor([0.5, -1.0, 0.25])
    assert clip(waveform, 0.5).tolist() == [0.5, -0.5, 0.25]
    assert change_gain(waveform, -20.0).tolist() == pytest.approx([0.05, -0.1, 0.025])
    assert quantize(torch.tensor([1.0, 0.4, -0.1]), 2).tolist() == pytest.approx(
        [4 / 3, 2 / 3, 0.0]
    )
    assert torch.equal(quantize(torch.zeros(3), 4), torch.zeros(3))


def test_mu_law_by_hand() -> None:
    assert mu_law(torch.tensor([0.0, 1.0, -1.0, 2.0])).tolist() == pytest.approx([0, 1, -1, 1])
    fine = mu_law(torch.tensor([0.01]))
    assert abs(float(fine) - 0.01) < 0.0005, "small samples have small steps"


def test_telephone_is_aligned_and_narrow() -> None:
    out = mu_law_telephone(tones(440.0, 6000.0, num_samples=RATE + 3), RATE)
    assert out.shape == (RATE + 3,)
    assert delay(out, tones(440.0, num_samples=RATE + 3)) == 0
    assert level_db(out, 6000.0) < level_db(tones(6000.0), 6000.0) - 20.0


@pytest.mark.parametrize("kind", ["mp3", "opus"])
def test_codecs_are_aligned_and_close(kind: str) -> None:
    speech = band_limit(torch.randn(RATE // 2, generator=seeded()) * 0.1, RATE, 200.0, 3000.0)
    out = encode_decode(speech, RATE, kind, 0.5)
    assert out.shape == speech.shape and delay(out, speech) == 0
    assert float((out - speech).square().mean() / speech.square().mean()) < 0.2


EVERYTHING = AugmentConfig(
    reverb=1.0, noise=1.0, equalize=1.0, clip=1.0, band_limit=1.0, codec=1.0, gain=1.0
)


@pytest.mark.parametrize("num_samples", [0, 1, 7, 1001, 8000])
@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_everything_at_once_keeps_length_and_stays_finite(num_samples: int, scale: float) -> None:
    waveform = torch.randn(num_samples, generator=seeded()) * scale
    for seed in range(4):
        out = augment(waveform, RATE, seeded(seed), EVERYTHING, lambda draws: torch.randn(500))
        assert out.shape == waveform.shape and out.dtype == torch.float32
        assert bool(out.isfinite().all())


def test_deterministic_and_leaves_its_input_alone() -> None:
    waveform = tones(300.0)
    kept = waveform.clone()
    one = augment(waveform, RATE, seeded(5), EVERYTHING)
    assert torch.equal(one, augment(waveform, RATE, seeded(5), EVERYTHING))
    assert not torch.equal(one, augment(waveform, RATE, seeded(6), EVERYTHING))
    assert torch.equal(waveform, kept)


def test_effects_draw_independently() -> None:
    """Turning one effect off leaves the draws of the others as they were."""
    quiet = AugmentConfig(
        reverb=0.0, noise=0.0, equalize=0.0, clip=0.0, band_limit=0.0, codec=0.0, gain=1.0
    )
    both = AugmentConfig(
        reverb=0.0,
        noise=1.0,
        equalize=0.0,
        clip=0.0,
        band_limit=0.0,
        codec=0.0,
        gain=1.0,
        snr_db=(200.0, 200.0),
    )
    waveform = tones(300.0)
    torch.testing.assert_close(
        augment(waveform, RATE, seeded(2), quiet), augment(waveform, RATE, seeded(2), both)
    )
    off = AugmentConfig(reverb=0, noise=0, equalize=0, clip=0, band_limit=0, codec=0, gain=0)
    assert torch.equal(augment(waveform, RATE, seeded(2), off), waveform)


def test_a_share_is_left_clean() -> None:
    waveform = tones(300.0)
    some = AugmentConfig(clean=0.7, gain=1.0, gain_db=(-20.0, -10.0))
    kept = [torch.equal(augment(waveform, RATE, seeded(n), some), waveform) for n in range(100)]
    assert 55 < sum(kept) < 85
    always = AugmentConfig(gain=1.0, gain_db=(-20.0, -10.0))
    for seed, clean in enumerate(kept):
        if not clean:
            one = augment(waveform, RATE, seeded(seed), some)
            assert torch.equal(one, augment(waveform, RATE, seeded(seed), always))


def test_bad_config() -> None:
    with pytest.raises(ValueError, match="clean is a probability"):
        AugmentConfig(clean=-0.1)
    with pytest.raises(ValueError, match="reverb is a probability"):
        AugmentConfig(reverb=1.5)
    with pytest.raises(ValueError, match=r"noises has \['brown'\]"):
        AugmentConfig(noises=("brown",))
    with pytest.raises(ValueError, match="codecs"):
        AugmentConfig(codecs=())


@pytest.mark.parametrize("kind", ["passing", "street"])
def test_noises_that_come_and_go(kind: str) -> None:
    noise = make_noise(kind, 24_000, 8_000, torch.Generator().manual_seed(1))
    assert noise.shape == (24_000,) and bool(noise.isfinite().all())
    levels = noise.unfold(0, 800, 800).square().mean(dim=1)
    assert float(levels.max() / levels.min().clamp(min=1e-9)) > (10 if kind == "passing" else 1.5)
    with pytest.raises(ValueError, match="passing, street"):
        make_noise("silence", 10, 8_000, torch.Generator())


def test_the_target_is_the_speech_that_is_in_the_result() -> None:
    speech = torch.randn(8_000, generator=torch.Generator().manual_seed(0)) * 0.1
    silent = {name: 0.0 for name in ("equalize", "clip", "band_limit", "codec")}
    config = AugmentConfig(reverb=1.0, noise=0.0, gain=1.0, **silent)
    noisy, target = augment_with_target(speech, 8_000, torch.Generator().manual_seed(3), config)
    assert torch.equal(noisy, augment(speech, 8_000, torch.Generator().manual_seed(3), config))
    scale = float(target.norm() / speech.norm())
    torch.testing.assert_close(target, speech * scale)
    # The direct sound of white noise is what of it is found again.
    assert float(noisy @ speech / speech.square().sum()) == pytest.approx(scale, rel=0.1)
    talker = AugmentConfig(
        reverb=0.0, noise=1.0, noises=("talker",), talker_snr_db=(7.0, 7.0), gain=0.0, **silent
    )
    other = torch.sin(torch.arange(500) * 0.3)
    noisy, target = augment_with_target(
        speech, 8_000, torch.Generator().manual_seed(3), talker, lambda draws: other
    )
    assert torch.equal(target, speech)
    ratio = speech.square().mean() / (noisy - speech).square().mean()
    assert float(10 * ratio.log10()) == pytest.approx(7.0, abs=0.1)
