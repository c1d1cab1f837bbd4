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
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tokenlm.synthesis.read_back import ReadBack, Reading
from tokenlm.text.alphabet import collect_alphabet
from tokenlm.text.errors import char_error

_log = logging.getLogger(__name__)

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

    def value(self, reading: Reading) -> float:
        """What a reading is worth, from 0 to 1."""
        raise NotImplementedError


class TokenAsrReward(_ReadBackReward):
    """How much of the text is read in the tokens."""

    def value(self, reading: Reading) -> float:
        """1 less the share of the units that are wrong; insertions count as much as deletions."""
        return max(1.0 - reading.error, 0.0)


class TokenLikelihoodReward(_ReadBackReward):
    """How clearly the text is in the tokens."""

    def value(self, reading: Reading) -> float:
        """The likelihood per unit, a geometric mean; 0 where the speech is too short for it."""
        return math.exp(-max(reading.surprise, 0.0))


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


def word_error(text: str, heard: str) -> float:
    """Errors per word of an English text.

    Raises:
        ValueError: the text has no English words.
    """
    from training.evaluation.error_rate import word_errors

    return word_errors(text, heard).rate


def written_error(text: str, heard: str) -> float | None:
    """Errors per character of a text in any script, as it is written, without marks.

    Spaces count where the text has them. None where it has neither letters nor digits.
    """
    alphabet = collect_alphabet([text, heard])
    if " " not in collect_alphabet([text]):
        alphabet = alphabet.replace(" ", "")
    return char_error(text, heard, alphabet)


class WaveformAsrReward:
    """What a recogniser hears in the sound of the tokens, against the text."""

    def __init__(
        self,
        render: Render,
        hear: Callable[[bytes], str],
        error: Callable[[str, str], float | None] = word_error,
    ) -> None:
        """Take the chain behind the LM, a recogniser, and how its texts are compared.

        Args:
            render: the chain.
            hear: 16-bit samples at 16 kHz to text.
            error: of what was heard (second) against the text.
        """
        self.render, self.hear, self.error = render, hear, error

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """1 less the error, None where rendering, hearing or comparing fails."""
        return [_guarded(self._value, answer) for answer in answers]

    def _value(self, answer: Answer) -> float | None:
        if not answer.tokens:
            return 0.0
        samples = self.render(answer.tokens).clamp(-1.0, 1.0).numpy()
        heard = self.hear((samples * 32767.0).astype("<i2").tobytes())
        error = self.error(answer.text, heard)
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
        _log.warning("a reward failed for %r: %s", answer.text[:40], error)
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
