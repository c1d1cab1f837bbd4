"""Waveform augmentation: pure functions of (waveform, sample rate, draws).

Shapes: S samples, N samples of an impulse response, K bands. Waveforms are (S,) float32; every
function returns as many samples as it was given, aligned with them. What filters does so in the
frequency domain, so that 5 s of audio take some 10 ms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from training.data.codec import encode_decode, mu_law_telephone, quantize

Others = Callable[[torch.Generator], Tensor]
_EFFECTS = ("reverb", "noise", "equalize", "clip", "band_limit", "codec", "gain")
_NOISES = ("white", "pink", "hum", "babble")
_VOICES = {"babble": 0, "talker": 1}
"""Kinds of noise that are other utterances, and how many; 0 is `num_babble`."""
_ALL_NOISES = (*_NOISES, "passing", "street", "talker")
_SILENCE_POWER = 1e-10


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How often each effect is applied, and how strongly. Ranges are (lowest, highest)."""

    clean: float = 0.0
    """Probability that an utterance is left as it is."""
    reverb: float = 0.3
    """Probability of reverberation."""
    noise: float = 0.5
    """Probability of additive noise."""
    equalize: float = 0.3
    """Probability of a random smooth filter."""
    clip: float = 0.05
    """Probability of clipping."""
    band_limit: float = 0.2
    """Probability of a telephone band or a low-pass."""
    codec: float = 0.2
    """Probability of a codec."""
    gain: float = 0.5
    """Probability of a lower level."""
    snr_db: tuple[float, float] = (5.0, 40.0)
    """Signal to noise ratio."""
    talker_snr_db: tuple[float, float] = (5.0, 20.0)
    """The same where the noise is one other voice: who is meant is who is louder."""
    noises: tuple[str, ...] = _NOISES
    """Kinds of noise: white, pink, hum, passing, street; and, only where other utterances are
    given, babble (several voices) and talker (one)."""
    num_babble: int = 4
    """Voices of babble."""
    reverb_seconds: tuple[float, float] = (0.15, 0.8)
    """Time in which the reverberation falls by 60 dB."""
    direct_db: tuple[float, float] = (0.0, 15.0)
    """Level of the direct sound over the reverberation."""
    equalize_db: float = 8.0
    """Largest boost or cut of a band."""
    equalize_bands: int = 6
    """Bands of the random filter."""
    low_pass_hz: tuple[float, float] = (2500.0, 7500.0)
    """Corner of the low-pass."""
    codecs: tuple[str, ...] = ("mu_law", "quantize")
    """Codecs: mu_law, quantize, and mp3 and opus, which take some 10 times as long."""
    quantize_bits: tuple[int, int] = (6, 10)
    """Bits of a sample after coarse quantization."""
    clip_share: tuple[float, float] = (0.3, 0.9)
    """Level of clipping as a share of the peak."""
    gain_db: tuple[float, float] = (-30.0, 0.0)
    """Change of level."""

    def __post_init__(self) -> None:
        for name in ("clean", *_EFFECTS):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, not {getattr(self, name)}.")
        for name, valid in (
            ("noises", _ALL_NOISES),
            ("codecs", ("mu_law", "quantize", "mp3", "opus")),
        ):
            unknown = set(getattr(self, name)) - set(valid)
            if unknown or not getattr(self, name):
                raise ValueError(f"{name} has {sorted(unknown)}; valid are: {', '.join(valid)}.")
        if self.reverb_seconds[0] <= 0:
            raise ValueError("reverb_seconds must be positive.")


def augment(
    waveform: Tensor,
    sample_rate: int,
    generator: torch.Generator,
    config: AugmentConfig,
    others: Others | None = None,
) -> Tensor:
    """Apply each effect with its probability, in the order in which a recording meets them.

    With the probability `config.clean`, none.

    Args:
        waveform: (S,) clean speech.
        sample_rate: In Hz.
        generator: Its state is the only source of randomness.
        config: Probabilities and ranges.
        others: Draws another utterance, for babble; None leaves babble out.

    Returns:
        (S,) of the same length, finite.
    """
    return augment_with_target(waveform, sample_rate, generator, config, others)[0]


def augment_with_target(
    waveform: Tensor,
    sample_rate: int,
    generator: torch.Generator,
    config: AugmentConfig,
    others: Others | None = None,
) -> tuple[Tensor, Tensor]:
    """The same as `augment`, and the clean speech that is in its result.

    Returns:
        (S,) as `augment` gives it, and (S,) the input at the level that its direct sound has there.
    """
    # Every effect has draws of its own: another probability of one leaves the others as they are.
    seeds = torch.randint(2**62, (len(_EFFECTS),), generator=generator).tolist()
    if uniform(0.0, 1.0, generator) < config.clean:
        return waveform, waveform
    effects = {
        name: torch.Generator().manual_seed(seed)
        for name, seed in zip(_EFFECTS, seeds, strict=True)
    }
    target = waveform
    for name in _EFFECTS:
        draws = effects[name]
        if uniform(0.0, 1.0, draws) < getattr(config, name):
            waveform, gain = _apply(name, waveform, sample_rate, draws, config, others)
            target = target if gain == 1.0 else target * gain
    return waveform, target


def _apply(
    name: str,
    waveform: Tensor,
    sample_rate: int,
    draws: torch.Generator,
    config: AugmentConfig,
    others: Others | None,
) -> tuple[Tensor, float]:
    """The waveform with an effect, and the gain of the direct sound in it."""
    if name == "reverb":
        response = impulse_response(sample_rate, uniform(*config.reverb_seconds, draws), draws)
        return _reverberate(waveform, response, uniform(*config.direct_db, draws))
    if name == "gain":
        gain_db = uniform(*config.gain_db, draws)
        return change_gain(waveform, gain_db), 10 ** (gain_db / 20)
    return _distort(name, waveform, sample_rate, draws, config, others), 1.0


def _distort(
    name: str,
    waveform: Tensor,
    sample_rate: int,
    draws: torch.Generator,
    config: AugmentConfig,
    others: Others | None,
) -> Tensor:
    if name == "noise":
        snr = uniform(*config.snr_db, draws)
        kinds = [kind for kind in config.noises if kind not in _VOICES or others is not None]
        if not kinds:
            return waveform
        kind = kinds[_choose(len(kinds), draws)]
        if kind in _VOICES:
            assert others is not None
            if kind == "talker":
                snr = uniform(*config.talker_snr_db, draws)
            voices = [others(draws) for _ in range(_VOICES[kind] or config.num_babble)]
            return add_noise(waveform, babble(voices, len(waveform), draws), snr)
        return add_noise(waveform, make_noise(kind, len(waveform), sample_rate, draws), snr)
    if name == "equalize":
        gains = (2 * torch.rand(config.equalize_bands, generator=draws) - 1) * config.equalize_db
        return equalize(waveform, sample_rate, gains)
    if name == "clip":
        return clip(waveform, uniform(*config.clip_share, draws))
    if name == "band_limit":
        if _choose(2, draws):
            return band_limit(waveform, sample_rate, 300.0, 3400.0)
        return band_limit(waveform, sample_rate, 0.0, uniform(*config.low_pass_hz, draws))
    assert name == "codec"
    kind = config.codecs[_choose(len(config.codecs), draws)]
    if kind == "mu_law":
        return mu_law_telephone(waveform, sample_rate)
    if kind == "quantize":
        low, high = config.quantize_bits
        return quantize(waveform, low + _choose(high - low + 1, draws))
    return encode_decode(waveform, sample_rate, kind, uniform(0.3, 0.9, draws))


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Draw a number between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def _choose(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def add_noise(waveform: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """Add noise at a signal to noise ratio, both as mean power over the whole waveform.

    Args:
        waveform: (S,) speech; silence is returned as it is.
        noise: (S,) noise of any level.
        snr_db: Power of the speech over that of the noise, in dB.
    """
    speech_power = float(waveform.square().mean()) if len(waveform) else 0.0
    noise_power = float(noise.square().mean()) if len(noise) else 0.0
    if speech_power < _SILENCE_POWER or noise_power < _SILENCE_POWER:
        return waveform
    scale = math.sqrt(speech_power / noise_power) * 10 ** (-snr_db / 20)
    return waveform + scale * noise


def make_noise(kind: str, num_samples: int, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Return noise (S,) of power near 1.

    Args:
        kind: "white", "pink" (power falls by 3 dB per octave), "hum" (mains and harmonics),
            "passing" (some sounds that come and go, each of its own colour) or "street" (rumble,
            in which vehicles pass).
        num_samples: S.
        sample_rate: In Hz.
        generator: Draws.
    """
    if kind == "white":
        return torch.randn(num_samples, generator=generator)
    if kind == "pink":
        size = _fast_size(max(num_samples, 2))
        bins = size // 2 + 1
        spectrum = torch.complex(
            torch.randn(bins, generator=generator), torch.randn(bins, generator=generator)
        )
        index = torch.arange(bins, dtype=torch.float32)
        # Flat below 20 Hz, where 1/f would put most of the power and nothing is heard.
        spectrum = spectrum / index.clamp(min=max(1.0, 20.0 * size / sample_rate)).sqrt()
        noise = torch.fft.irfft(spectrum, size)[:num_samples]
        return noise / noise.square().mean().sqrt().clamp(min=1e-12)
    if kind == "hum":
        mains = (50.0, 60.0)[_choose(2, generator)]
        # A tenth of a second holds whole periods of either mains: one is made, the rest repeats it.
        size = max(1, sample_rate // 10)
        time = torch.arange(size) / (10 * size)
        noise = torch.zeros(size)
        for harmonic in range(1, 7):
            level = float(torch.rand((), generator=generator)) / harmonic
            phase = uniform(0.0, 2 * math.pi, generator)
            noise += level * torch.sin(2 * math.pi * mains * harmonic * time + phase)
        return noise.repeat(-(-num_samples // size))[:num_samples]
    if kind == "passing":
        return _passing(num_samples, sample_rate, generator, (0.02, 1.5), (-6.0, 3.0))
    if kind == "street":
        rumble = _coloured(num_samples, sample_rate, -6.0, generator)
        passing = _passing(num_samples, sample_rate, generator, (1.0, 4.0), (-6.0, -4.0))
        return rumble + uniform(0.5, 1.5, generator) * passing
    raise ValueError(f"There is no noise {kind!r}; valid are: white, pink, hum, passing, street.")


def _coloured(
    num_samples: int, sample_rate: int, slope_db: float, generator: torch.Generator
) -> Tensor:
    """Noise (S,) of power 1 that changes by `slope_db` per octave, flat below 50 Hz."""
    noise = torch.randn(num_samples, generator=generator)

    def transfer(frequencies: Tensor) -> Tensor:
        return 10 ** (slope_db * (frequencies.clamp(min=50.0) / 50.0).log2() / 20)

    noise = filter_spectrum(noise, sample_rate, transfer)
    return noise / noise.square().mean().sqrt().clamp(min=1e-12)


def _passing(
    num_samples: int,
    sample_rate: int,
    generator: torch.Generator,
    rise_seconds: tuple[float, float],
    slope_db: tuple[float, float],
) -> Tensor:
    """One to four noises that rise and fall, at random places."""
    total = torch.zeros(num_samples)
    time = torch.arange(num_samples) / sample_rate
    for _ in range(1 + _choose(4, generator)):
        middle = uniform(0.0, num_samples / sample_rate, generator)
        rise, fall = (uniform(*rise_seconds, generator) for _ in range(2))
        width = torch.where(time < middle, rise, fall)
        swell = torch.exp(-0.5 * ((time - middle) / (0.5 * width)).square())
        colour = uniform(*slope_db, generator)
        level = 10 ** (uniform(-6.0, 0.0, generator) / 20)
        total += level * swell * _coloured(num_samples, sample_rate, colour, generator)
    return total


def babble(voices: list[Tensor], num_samples: int, generator: torch.Generator) -> Tensor:
    """Lay other voices over each other, each repeated to length and turned to a random start."""
    total = torch.zeros(num_samples)
    for voice in voices:
        if len(voice) == 0 or num_samples == 0:
            continue
        level = voice.square().mean().sqrt().clamp(min=1e-6)
        start = _choose(len(voice), generator)
        times = -(-(num_samples + start) // len(voice))
        total += voice.repeat(times)[start : start + num_samples] / level
    return total


def impulse_response(sample_rate: int, seconds: float, generator: torch.Generator) -> Tensor:
    """Return the reverberation of a made-up room.

    White noise under a decay of 60 dB in `seconds`, after a gap of 2 to 20 ms in which only the
    direct sound is heard, duller the longer it lasts as air and walls take the treble first.

    Returns:
        (N,) of energy 1, without the direct sound.
    """
    size = max(2, int(seconds * sample_rate))
    time = torch.arange(size) / sample_rate
    noise = torch.randn(size, generator=generator)
    decay = torch.exp(-time * (math.log(1000.0) / seconds))
    smooth = torch.nn.functional.avg_pool1d(noise[None], 4, 1, 2, count_include_pad=False)[0, :size]
    late = (time / seconds).clamp(max=1.0)
    response = ((1 - late) * noise + late * smooth) * decay
    gap = int(uniform(0.002, 0.02, generator) * sample_rate)
    response = torch.nn.functional.pad(response, (gap, 0))[:size]
    return response / response.square().sum().sqrt().clamp(min=1e-9)


def reverberate(waveform: Tensor, response: Tensor, direct_db: float) -> Tensor:
    """Add the reverberation of a waveform to it; the level (mean power) stays what it was.

    Args:
        waveform: (S,).
        response: (N,) of energy 1, without the direct sound.
        direct_db: Level of the direct sound over the reverberation, in dB.
    """
    return _reverberate(waveform, response, direct_db)[0]


def _reverberate(waveform: Tensor, response: Tensor, direct_db: float) -> tuple[Tensor, float]:
    """The same, and the gain of the direct sound in it."""
    if len(waveform) == 0:
        return waveform, 1.0
    size = _fast_size(len(waveform) + len(response))
    spectrum = torch.fft.rfft(waveform, size)
    transfer = 1.0 + 10 ** (-direct_db / 20) * torch.fft.rfft(response, size)
    wet = torch.fft.irfft(spectrum * transfer, size)[: len(waveform)]
    gain = (waveform.square().mean() / wet.square().mean().clamp(min=1e-12)).sqrt()
    return wet * gain, float(gain)


def equalize(waveform: Tensor, sample_rate: int, gains_db: Tensor) -> Tensor:
    """Filter with gains that run smoothly between bands.

    Args:
        waveform: (S,).
        sample_rate: In Hz.
        gains_db: (K,) gains of bands whose centres go from 80 Hz to 0.45 sample rates in equal
            ratios.
    """

    def transfer(frequencies: Tensor) -> Tensor:
        lowest, highest = math.log(80.0), math.log(0.45 * sample_rate)
        place = (frequencies.clamp(min=1.0).log() - lowest) / (highest - lowest)
        place = (place.clamp(0.0, 1.0) * (len(gains_db) - 1)).clamp(max=len(gains_db) - 1)
        below = place.floor().long().clamp(max=max(len(gains_db) - 2, 0))
        above = (below + 1).clamp(max=len(gains_db) - 1)
        share = 0.5 - 0.5 * torch.cos(math.pi * (place - below))
        return 10 ** ((gains_db[below] * (1 - share) + gains_db[above] * share) / 20)

    return filter_spectrum(waveform, sample_rate, transfer)


def band_limit(waveform: Tensor, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """Keep the band from `low_hz` (0: all) to `high_hz`; the slopes are a fifth of an octave."""

    def transfer(frequencies: Tensor) -> Tensor:
        octaves = frequencies.clamp(min=1e-3).log2()
        gain = 1.0 - _slope((octaves - math.log2(high_hz)) * 5)
        return gain if low_hz <= 0 else gain * _slope((octaves - math.log2(low_hz)) * 5 + 1)

    return filter_spectrum(waveform, sample_rate, transfer)


def _fast_size(size: int) -> int:
    """Return the next size that a Fourier transform is quick at."""
    return int(next_fast_len(size, real=True) or size)


def _slope(place: Tensor) -> Tensor:
    return 0.5 - 0.5 * torch.cos(math.pi * place.clamp(0.0, 1.0))


def filter_spectrum(
    waveform: Tensor, sample_rate: int, transfer: Callable[[Tensor], Tensor]
) -> Tensor:
    """Filter without delay.

    Args:
        waveform: (S,).
        sample_rate: In Hz.
        transfer: Gain (F,) of frequencies (F,) in Hz.
    """
    if len(waveform) == 0:
        return waveform
    # Room behind, so that the filter does not wrap the end around to the beginning.
    size = _fast_size(len(waveform) + sample_rate // 20)
    frequencies = torch.arange(size // 2 + 1) * (sample_rate / size)
    spectrum = torch.fft.rfft(waveform, size) * transfer(frequencies)
    return torch.fft.irfft(spectrum, size)[: len(waveform)]


def clip(waveform: Tensor, share: float) -> Tensor:
    """Cut the waveform at `share` of its peak."""
    if len(waveform) == 0:
        return waveform
    peak = float(waveform.abs().max())
    return waveform.clamp(-share * peak, share * peak)


def change_gain(waveform: Tensor, gain_db: float) -> Tensor:
    """Multiply by a gain in dB."""
    return waveform * 10 ** (gain_db / 20)
