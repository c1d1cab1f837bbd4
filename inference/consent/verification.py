"""Whether a spoken consent is accepted: the recording, its words, and who says them.

Every recording gets a decision with reasons, whatever is in it.

Shapes: S samples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inference.consent.challenge import Challenge
from inference.consent.evidence import ConsentError
from inference.consent.settings import ConsentConfig
from inference.consent.words import SAMPLE_RATE, RecognizerScorer, TextScorer, score_words
from tokenlm.audio.level import high_pass, is_silent, sound_span, trim_silence
from tokenlm.audio.resample import resample
from tokenlm.checkpoint.component import load_component
from tokenlm.models.speaker_encoder import SpeakerEncoder
from tokenlm.models.synthetic_detector import DETECTOR_KINDS, SyntheticDetector
from tokenlm.synthesis.components import Components
from tokenlm.trigger.speaker import SpeakerProfile, embed_windows, split_agreement

MIN_SECONDS, MAX_SECONDS = 2.0, 30.0
"""Sound of a recording, silence at both ends left out; only a sentence may be too long."""
VOICE_RATE = 24_000
"""Rate in hertz at which a voice is made of a recording: what is not in it there cuts nothing."""
MAX_CLIPPED_SHARE = 0.002
"""Of the samples, those in runs at full scale; beyond it the recording is distorted."""
CLIPPED_RUN = 3
"""Samples at full scale in a row that are no peak of the sound."""
NARROW_HZ, MAX_NARROW_DB = 4200.0, -55.0
"""A recording with less than this level above this frequency, against below, is a telephone's."""
LEAST_MARGIN = -1e4
"""Margin where nothing can be aligned; evidence holds finite numbers alone."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a consent is accepted, and why not."""

    accepted: bool
    reasons: tuple[str, ...]
    """A sentence for each thing that is missing; none where it is accepted."""
    scores: Mapping[str, float | None]
    """See `SCORES`; None where something was not measured."""


class ConsentVerifier:
    """Listens to spoken consent with the models of a bundle."""

    def __init__(
        self,
        components: Components,
        config: ConsentConfig,
        *,
        scorer: TextScorer | None = None,
    ) -> None:
        """Loads what it listens with.

        Args:
            components: of the bundle; its speaker encoder tells persons apart.
            config: the bounds, and where the synthetic-speech detector is.
            scorer: hears words; None takes the recogniser of the bundle.

        Raises:
            ConsentError: the bundle has no recogniser, or the speaker encoder of another project.
            ComponentError: the detector cannot be loaded.
        """
        manifest = components.manifest
        if scorer is None and not components.has_token_recognizer:
            raise ConsentError(
                f"the bundle {manifest.name!r} has no token recogniser to hear spoken consent "
                "with; the setting consent.bundle names another bundle, such as mini-en."
            )
        encoder = components.speaker_encoder
        if not isinstance(encoder, SpeakerEncoder):
            raise ConsentError(
                f"spoken consent is not compared by the speaker encoder of the bundle "
                f"{manifest.name!r}; the setting consent.bundle names another one, such as mini-en."
            )
        self._encoder = encoder
        self.bundle = manifest.name
        self._device = components.device
        self._scorer = scorer or RecognizerScorer(components)
        self._config = config
        self._detector: SyntheticDetector | None = None
        if config.synthetic_detector is not None:
            detector = load_component(config.synthetic_detector, DETECTOR_KINDS)
            assert isinstance(detector, SyntheticDetector)
            self._detector = detector

    @property
    def detects_synthetic(self) -> bool:
        """Whether there are weights that score whether the sentence is synthetic."""
        return self._detector is not None

    @torch.inference_mode()
    def verify(
        self,
        challenge: Challenge,
        sentence: Tensor,
        sentence_rate: int,
        sample: Tensor,
        sample_rate: int,
    ) -> Decision:
        """Compares a recording of the sentence with the challenge and with the sample.

        Args:
            challenge: what was to be said; that it is fresh is for `Challenges`.
            sentence: (S,) recording of it.
            sentence_rate: its sample rate in hertz.
            sample: (S,) recording that the voice is to be made of.
            sample_rate: its sample rate in hertz.
        """
        reasons = [
            f"the recording of the {name} {problem}"
            for name, waveform, rate, most in (
                ("sentence", sentence, sentence_rate, MAX_SECONDS),
                ("voice", sample, sample_rate, math.inf),
            )
            if (problem := find_problem(waveform, rate, most)) is not None
        ]  # fmt: skip
        scores: dict[str, float | None] = dict.fromkeys(
            ("words", "speaker", "lowest_window", "agreement", "synthetic", "watermark")
        )
        if not reasons:
            said, voice = (
                prepare(sentence, sentence_rate).to(self._device),
                prepare(sample, sample_rate).to(self._device),
            )
            try:
                scores |= self._scores(challenge, said, voice)
            except (ValueError, RuntimeError) as error:
                logger.exception("a spoken consent could not be scored")
                reasons.append(f"the recording of the sentence cannot be scored: {error}")
            else:
                reasons += self._shortcomings(challenge, scores)
        return Decision(accepted=not reasons, reasons=tuple(reasons), scores=scores)

    def _scores(self, challenge: Challenge, said: Tensor, voice: Tensor) -> dict[str, float | None]:
        words = score_words(self._scorer, said, challenge)
        of_said, of_voice = embed_windows(self._encoder, said), embed_windows(self._encoder, voice)
        profile, other = SpeakerProfile.of(of_voice), SpeakerProfile.of(of_said)
        whole = self._encoder.embed_recording(said)
        lowest = min(float((of_said @ profile.mean).min()), float((of_voice @ other.mean).min()))
        found: dict[str, float | None] = {
            "words": max(words.lowest, LEAST_MARGIN),
            "speaker": profile.score(whole).similarity,
            "lowest_window": lowest,
            "agreement": min(
                split_agreement(self._encoder, said), split_agreement(self._encoder, voice)
            ),
        }
        if self._detector is not None:
            found["synthetic"] = self._detector.probability(said.cpu())
        return {
            name: None if value is None else round(value, 4) if math.isfinite(value) else None
            for name, value in found.items()
        }

    def _shortcomings(self, challenge: Challenge, scores: Mapping[str, float | None]) -> list[str]:
        """Sentences about the scores that are not what they should be."""
        config, found = self._config, []
        missed = {
            "words": "it was not heard to say the statement as it is written and then the words "
            f"{', '.join(challenge.words)}",
            "speaker": "it is not the same person as in the recording of the voice",
            "lowest_window": "in a part of the recordings another person speaks",
            "agreement": "the voice changes within a recording",
        }
        for name, sentence in missed.items():
            value, least = scores[name], config.thresholds[name]
            if value is None:
                found.append(f"{name} could not be measured")
            elif value < least:
                found.append(f"{sentence} ({name} {value:.2f}, at least {least:g})")
        synthetic = scores["synthetic"]
        if synthetic is not None and synthetic > config.max_synthetic:
            found.append(
                "the sentence sounds synthetic "
                f"(synthetic {synthetic:.2f}, at most {config.max_synthetic:g})"
            )
        return found


def find_problem(
    waveform: Tensor, sample_rate: int, max_seconds: float = MAX_SECONDS
) -> str | None:
    """Why nothing can be said of a recording (S,), as the end of a sentence; None where it can."""
    if waveform.ndim != 1 or waveform.shape[0] == 0 or not bool(waveform.isfinite().all()):
        return "holds no sound"
    if sample_rate < SAMPLE_RATE:
        return (
            f"has a sample rate of {sample_rate} Hz: at least {SAMPLE_RATE} Hz are needed to tell "
            "who speaks"
        )
    clean = high_pass(waveform.float() - waveform.float().mean(), sample_rate)
    if is_silent(clean, -60.0):
        return "is silent"
    first, last = sound_span(clean, sample_rate)
    sound = waveform[first:last]
    seconds = sound.shape[0] / sample_rate
    if seconds < MIN_SECONDS:
        return f"holds only {seconds:.1f} s of sound: at least {MIN_SECONDS:g} s are needed"
    if seconds > max_seconds:
        return f"lasts {seconds:.0f} s: at most {max_seconds:g} s are listened to"
    if (share := clipped_share(sound)) > MAX_CLIPPED_SHARE:
        return f"is distorted: {100 * share:.1f} % of it is at full scale; record it more quietly"
    if _band_db(clean[first:last], sample_rate) < MAX_NARROW_DB:
        return "holds nothing above 4 kHz, as a telephone's does: who speaks cannot be told"
    return None


def prepare(waveform: Tensor, sample_rate: int) -> Tensor:
    """A recording (S,) as the models hear it: at `SAMPLE_RATE`, silence cut off both ends.

    Silence is what `clean_recording` takes for it when a voice is made, so that a sound which the
    voice does not keep, such as rumble, does not decide what is listened to.
    """
    sound = resample(waveform.float(), sample_rate, VOICE_RATE)
    sound = trim_silence(high_pass(sound - sound.mean(), VOICE_RATE), VOICE_RATE)
    return resample(sound, VOICE_RATE, SAMPLE_RATE).clamp(-1.0, 1.0)


def clipped_share(waveform: Tensor) -> float:
    """Share of the samples of a recording (S,) that are in runs at its highest level."""
    peak = float(waveform.abs().max())
    if peak < 0.2 or waveform.shape[0] < CLIPPED_RUN:
        return 0.0
    high = (waveform.abs() >= 0.998 * peak).float()[None, None]
    runs = -functional.max_pool1d(-high, CLIPPED_RUN, stride=1)  # 1 where a run begins
    inside = functional.max_pool1d(functional.pad(runs, (CLIPPED_RUN - 1,) * 2), CLIPPED_RUN, 1)
    return float(inside.mean())


def _band_db(waveform: Tensor, sample_rate: int) -> float:
    """Level above `NARROW_HZ` against that below."""
    power = torch.fft.rfft(waveform.double()).abs().square()
    edge = round(NARROW_HZ / sample_rate * 2 * (power.shape[0] - 1))
    low, high = float(power[:edge].sum()), float(power[edge:].sum())
    return 10 * math.log10(max(high, 1e-20) / max(low, 1e-20))
