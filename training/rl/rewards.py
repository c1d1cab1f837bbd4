"""Rewards: how good an answer of the speech LM is, from 0 to 1, or None where that is not known.

None is "skip": a reward that failed says nothing about the answer, and is never taken for a zero.
Failures are counted, and too many of them stop the run. No reward is a judge of `tokenlm evaluate`:
words are read by the tokenizer's own ASR half or by another recogniser, speakers by the bundle's
own encoder.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tokenlm.audio.resample import resample
from tokenlm.checkpoint.resolve import resolve
from tokenlm.modules.streaming import FULL_CONTEXT
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.guards import ReadBack, ReadBackScore
from tokenlm.text.normalize import NormalizerName
from tokenlm.text.transcripts import char_error, collect_alphabet
from training.evaluation.config import DEFAULT, WHISPER
from training.evaluation.judges import SAMPLE_RATE, load_recognizer

logger = logging.getLogger(__name__)

FLOOR = 0.01
"""Least value that a combination sees: a reward of 0 alone makes it small, not blind."""


class RewardError(ValueError):
    """Too many rewards failed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a policy made of a request."""

    text: str
    """What it was to say, normalised."""
    num_text_tokens: int
    tokens: tuple[int, ...]
    """Speech tokens, without the prompt's."""
    has_ended: bool = True


class Reward(Protocol):
    """Scores answers, each by itself."""

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """One value from 0 to 1 for each answer, or None."""
        ...


class _ReadBackReward:
    """What the ASR half of the tokenizer reads in the tokens, against the text."""

    def __init__(self, read_back: ReadBack) -> None:
        self.read_back = read_back

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """One value for each answer, None where the text has no unit that the recogniser knows."""
        readings = self.read_back(
            [answer.text for answer in answers], [answer.tokens for answer in answers]
        )
        return [None if reading is None else self.value(reading) for reading in readings]

    def value(self, reading: ReadBackScore) -> float:
        """What a reading is worth, from 0 to 1."""
        raise NotImplementedError


class TokenAsrReward(_ReadBackReward):
    """How much of the text is read in the tokens."""

    def value(self, reading: ReadBackScore) -> float:
        """1 less the share of the units that are wrong; insertions count as much as deletions."""
        return max(1.0 - reading.error_rate, 0.0)


class TokenLikelihoodReward(_ReadBackReward):
    """How clearly the text is in the tokens."""

    def value(self, reading: ReadBackScore) -> float:
        """The likelihood per unit, a geometric mean; 0 where the speech is too short for it."""
        return math.exp(-max(reading.ctc_loss, 0.0))


class DurationReward:
    """Whether the speech is about as long as speech of such a text is.

    A text of one word takes more time for each of its sounds than a sentence does: there is silence
    around both, and what ends is drawn out. By one ratio for all texts such words would earn most
    when they are hurried, so the expectation has a part that every text has.
    """

    def __init__(self, start: float, rate: float, deviation: float) -> None:
        """Take the prior.

        Args:
            start: speech tokens that any text takes, however short.
            rate: speech tokens for each text token beyond that.
            deviation: of the logarithm of what speech takes over what is expected.
        """
        assert start >= 0 and rate > 0 and deviation > 0
        self.start, self.rate, self.deviation = start, rate, deviation

    @classmethod
    def fit(cls, lengths: Sequence[tuple[int, int]] | np.ndarray) -> DurationReward:
        """The prior of a corpus, from pairs of text tokens and speech tokens.

        The line is that of the least squares of speech tokens per text token, so that long texts
        do not settle it alone, scaled to be right on average in the logarithm. Where the corpus
        gives no rising line from 0 or above, it is a ratio.

        Raises:
            ValueError: no pair has both.
        """
        pairs = np.asarray(lengths, dtype=float).reshape(-1, 2)
        pairs = pairs[pairs.min(axis=1) > 0]
        if not len(pairs):
            raise ValueError("no utterance has text and speech to learn durations from.")
        text, speech = pairs.T
        design = np.stack([1 / text, np.ones_like(text)], axis=1)
        (start, rate), _, rank, _ = np.linalg.lstsq(design, speech / text, rcond=None)
        if rank < 2 or start < 0 or rate <= 0:
            # Any ratio will do: the scale below makes it that of the corpus.
            start, rate = 0.0, 1.0
        residuals = np.log(speech / (start + rate * text))
        scale = math.exp(residuals.mean())
        deviation = max(float(residuals.std()), 0.05)
        return cls(float(start) * scale, float(rate) * scale, deviation)

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """1 within two deviations, falling off outside; 0 where the speech did not end."""
        return [self._value(answer) for answer in answers]

    def _value(self, answer: Answer) -> float | None:
        if not answer.num_text_tokens:
            return None
        if not answer.tokens or not answer.has_ended:
            return 0.0
        expected = self.start + self.rate * answer.num_text_tokens
        outside = abs(math.log(len(answer.tokens) / expected)) / self.deviation - 2.0
        return math.exp(-0.5 * max(outside, 0.0) ** 2)


Render = Callable[[Sequence[int]], Tensor]
"""Speech tokens to a waveform (S,) at 16 kHz, in the voice that similarity is measured to."""


def word_error(text: str, transcript: str) -> float:
    """Errors per word of an English text.

    Raises:
        ValueError: the text has no English words.
    """
    from training.evaluation.error_rate import word_errors

    return word_errors(text, transcript).rate


def written_error(text: str, transcript: str) -> float | None:
    """Errors per character of a text in any script, as it is written, without marks.

    Spaces count where the text has them. None where it has neither letters nor digits.
    """
    alphabet = collect_alphabet([text, transcript])
    if " " not in collect_alphabet([text]):
        alphabet = alphabet.replace(" ", "")
    return char_error(text, transcript, alphabet)


class WaveformAsrReward:
    """Transcript of the rendered tokens, by a recogniser, against the text."""

    def __init__(
        self,
        render: Render,
        transcribe: Callable[[bytes], str],
        error: Callable[[str, str], float | None] = word_error,
    ) -> None:
        """Take the chain behind the LM, a recogniser, and how its texts are compared.

        Args:
            render: the chain.
            transcribe: 16-bit samples at 16 kHz to text.
            error: of a transcript (second) against its text.
        """
        self.render, self.transcribe, self.error = render, transcribe, error

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """1 less the error, None where rendering, transcribing or comparing fails."""
        return [_guarded(self._value, answer) for answer in answers]

    def _value(self, answer: Answer) -> float | None:
        if not answer.tokens:
            return 0.0
        samples = self.render(answer.tokens).clamp(-1.0, 1.0).numpy()
        transcript = self.transcribe((samples * 32767.0).astype("<i2").tobytes())
        error = self.error(answer.text, transcript)
        return None if error is None else max(1.0 - error, 0.0)


class SimilarityReward:
    """How like the voice of the prompt the speech sounds."""

    def __init__(
        self, render: Render, embed: Callable[[Tensor], Tensor], target: Tensor, floor: float = 0.0
    ) -> None:
        """Take the voice.

        Args:
            render: the chain behind the LM.
            embed: samples (S,) at 16 kHz to an embedding (E,) of length 1.
            target: (E,) of the prompt.
            floor: cosine that is worth nothing, such as that of another voice.
        """
        self.render, self.embed = render, embed
        self.target, self.floor = target, floor

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """The cosine, from the floor (0) to 1; None where rendering fails."""
        return [_guarded(self._value, answer) for answer in answers]

    def _value(self, answer: Answer) -> float | None:
        if not answer.tokens:
            return 0.0
        cosine = torch.cosine_similarity(
            self.embed(self.render(answer.tokens)).float(), self.target.float(), dim=0
        )
        return min(max((float(cosine) - self.floor) / (1.0 - self.floor), 0.0), 1.0)


def _guarded(value: Callable[[Answer], float | None], answer: Answer) -> float | None:
    try:
        return value(answer)
    except (ValueError, RuntimeError, OSError) as error:
        logger.warning("a reward failed for %r: %s", answer.text[:40], error)
        return None


def combine(values: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """The weighted geometric mean of rewards: none can be traded away for another.

    A sum would pay for clear speech in the wrong voice; here what is near 0 pulls all down.

    Args:
        values: by name; None where one failed.
        weights: by name; those of 0 do not count.

    Returns:
        From `FLOOR` to 1; None where any that counts is None or not a number.
    """
    total = logarithm = 0.0
    for name, weight in weights.items():
        if weight <= 0:
            continue
        value = values[name]
        if value is None or not math.isfinite(value):
            return None
        logarithm += weight * math.log(max(value, FLOOR))
        total += weight
    assert total > 0, "no reward has a weight"
    return math.exp(logarithm / total)


class FailureCount:
    """Counts failed rewards, and stops the run when they are too many."""

    def __init__(self, max_share: float, min_answers: int = 50) -> None:
        """Start at nothing.

        Args:
            max_share: of all answers, above which the run stops.
            min_answers: before so many nothing is said about their share.
        """
        self.max_share, self.min_answers = max_share, min_answers
        self.num_answers = self.num_failed = 0

    def add(self, values: Sequence[float | None]) -> None:
        """Take in the rewards of a batch.

        Raises:
            RewardError: too many have failed.
        """
        self.num_answers += len(values)
        self.num_failed += sum(value is None for value in values)
        share = self.num_failed / max(self.num_answers, 1)
        if self.num_answers >= self.min_answers and share > self.max_share:
            raise RewardError(
                f"{self.num_failed} of {self.num_answers} rewards failed, more than the share of "
                f"{self.max_share:g} that is allowed (rewards.max_failed_share). The log says why."
            )


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Weights of the rewards in their geometric mean; 0 turns one off."""

    token_asr: float = 1.0
    """Error of the tokens, in phones or characters, read by the stage's `token_recognizer`."""
    token_likelihood: float = 0.0
    """Likelihood of the text by the same recogniser: finer than its errors, and never satisfied."""
    duration: float = 0.5
    """Length of the speech beside that of its text."""
    waveform_asr: float = 0.0
    """Word error of the sound, of texts that stay as they are written the character error; needs
    `bundle` and `recognizer`."""
    similarity: float = 0.0
    """Likeness of the sound to the voice; needs `bundle`."""
    recognizer: str = ""
    """Recogniser of `waveform_asr`, such as transformers:NAME; it can judge nothing afterwards."""
    bundle: str | None = None
    """Bundle whose flow and vocoder make the sound."""
    voice: str | None = None
    """Voice of the bundle, or file of one; default its first."""
    similarity_floor: float = 0.3
    """Cosine of the bundle's speaker encoder that is worth nothing."""
    max_failed_share: float = 0.1
    """Share of failed rewards above which the run stops."""

    def __post_init__(self) -> None:
        words = (self.token_asr, self.token_likelihood, self.waveform_asr)
        weights = (*words, self.duration, self.similarity)
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError("weights of rewards must not be negative, and one must be above 0")
        if (self.waveform_asr or self.similarity) and self.bundle is None:
            raise ValueError("waveform_asr and similarity need a bundle that makes the sound")
        if self.waveform_asr and not self.recognizer:
            raise ValueError("waveform_asr needs a recognizer")
        kind = self.recognizer.partition(":")[0]
        if kind in (DEFAULT, WHISPER):
            raise ValueError(f"{kind} is a judge of tokenlm evaluate, and is no reward")
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError(f"max_failed_share must be in [0, 1], got {self.max_failed_share}")
        if not -1 <= self.similarity_floor < 1:
            raise ValueError(f"similarity_floor must be in [-1, 1), got {self.similarity_floor}")


class RewardSet:
    """The rewards that are on, by name."""

    def __init__(
        self,
        config: RewardConfig,
        read_back: ReadBack | None,
        lengths: Sequence[tuple[int, int]] | np.ndarray,
        normalizer: NormalizerName = "english",
    ) -> None:
        """Load what the rewards need.

        Args:
            config: which are on.
            read_back: by the recogniser of the stage.
            lengths: text and speech tokens of the corpus, for the prior of durations.
            normalizer: what the texts went through.

        Raises:
            ValueError: something is missing.
        """
        self.rewards: dict[str, Reward] = {}
        self.judges = [config.recognizer] if config.waveform_asr else []
        """Recognisers that can no longer judge what was rewarded by them."""
        readers = {"token_asr": TokenAsrReward, "token_likelihood": TokenLikelihoodReward}
        for name, reader in readers.items():
            if not getattr(config, name):
                continue
            if read_back is None:
                raise ValueError(
                    f"the reward {name} reads tokens: give the ASR half of the tokenizer as "
                    "token_recognizer=FOLDER."
                )
            self.rewards[name] = reader(read_back)
        if config.duration:
            self.rewards["duration"] = DurationReward.fit(lengths)
        self._similarity: SimilarityReward | None = None
        self._sound: Sound | None = None
        if config.bundle is not None:
            sound = self._sound = Sound(config.bundle, config.voice)
            self._similarity = SimilarityReward(
                sound.render, sound.embed, sound.target, config.similarity_floor
            )
            if config.waveform_asr:
                transcribe = load_recognizer(config.recognizer)
                error = word_error if normalizer == "english" else written_error
                self.rewards["waveform_asr"] = WaveformAsrReward(sound.render, transcribe, error)
            if config.similarity:
                self.rewards["similarity"] = self._similarity
        self.weights = {name: float(getattr(config, name)) for name in self.rewards}

    def to(self, device: torch.device) -> None:
        """Move what makes the sound; the stage moves its recogniser itself."""
        if self._sound is not None:
            self._sound.to(device)

    def __call__(self, answers: Sequence[Answer]) -> dict[str, list[float | None]]:
        """Values of every reward, by name."""
        return {name: reward(answers) for name, reward in self.rewards.items()}

    @property
    def render_similarity(self) -> Callable[[Sequence[int]], float | None] | None:
        """Likeness of tokens to the voice; None where nothing makes a sound."""
        reward = self._similarity
        if reward is None:
            return None
        return lambda tokens: reward([Answer(text="", num_text_tokens=0, tokens=tuple(tokens))])[0]


class Sound:
    """The chain behind the LM, in one voice."""

    def __init__(self, bundle: str, voice: str | None) -> None:
        """Load a bundle.

        Raises:
            ValueError: there is no such bundle or voice.
        """
        self._synthesizer = Synthesizer.from_pretrained(
            bundle if Path(bundle).exists() else resolve(bundle)
        )
        names = self._synthesizer.voices
        if voice is None and not names:
            raise ValueError(
                f"the bundle {bundle} has no voice that a reward could speak in: prepare one "
                "(tokenlm prepare-voice) and give it as rewards.voice=FILE.voice."
            )
        self._voice = self._synthesizer.voice(voice or names[0])

    def to(self, device: torch.device) -> None:
        """Move the parts that are used here."""
        parts = self._synthesizer.components
        parts.device = device
        for part in (parts.flow, parts.vocoder, parts.speaker_encoder):
            part.to(device)

    @torch.no_grad()
    def render(self, tokens: Sequence[int]) -> Tensor:
        """Waveform (S,) at 16 kHz of speech tokens."""
        voice, parts = self._voice, self._synthesizer.components
        mel = parts.flow.generate(
            torch.tensor([list(tokens)], device=parts.device),
            seed=0,
            prompt_tokens=voice.prompt_tokens[None].to(parts.device),
            prompt_mel=voice.prompt_mel[None].to(parts.device),
            speaker_embedding=voice.speaker_embedding[None].to(parts.device),
            prompt_seed=voice.seed,
            context=FULL_CONTEXT,
            num_steps=parts.generation.num_steps,
            guidance_scale=parts.generation.guidance_scale,
        )
        waveform = parts.vocoder(mel)[0].cpu()
        return resample(waveform, self._synthesizer.sample_rate, SAMPLE_RATE)

    @torch.no_grad()
    def embed(self, waveform: Tensor) -> Tensor:
        """Embedding (E,) of a waveform (S,) at 16 kHz, by the bundle's own encoder."""
        encoder = self._synthesizer.components.speaker_encoder
        rate = encoder.config.mel.sample_rate
        resampled = resample(waveform, SAMPLE_RATE, rate)
        return encoder.embed_recording(resampled.to(self._synthesizer.components.device)).cpu()

    @property
    def target(self) -> Tensor:
        """Embedding (E,) of the voice."""
        return self._voice.speaker_embedding
