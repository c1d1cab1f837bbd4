"""The checker: was this phrase said in this recording?

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tokenlm.models.phrase_checker import PhraseChecker, PhraseCheckerConfig, spot_ctc
from tokenlm.text.tokenizers import PhonemeTokenizer
from tokenlm.trigger.kinds import load_net

SAMPLE_RATE = 16_000
LOWEST_SCORE = -50.0
"""Log-probability of what cannot have been said: the recording is too short for it, or silent."""
_MIN_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What the checker found of a phrase."""

    log_probability: float
    """Of the phrase beside that of whatever the checker reads best, per phone: 0 where it reads
    just the phrase, the more negative the less it sounds like it."""
    start_seconds: float
    """Where the phrase begins, most likely."""
    end_seconds: float
    """Where it ends."""
    branch_log_probability: float | None = None
    """Of the discriminative branch, for a phrase that it was trained on."""
    spans: tuple[tuple[float, float], ...] = ()
    """Start and end of every phone in seconds."""


class Checker:
    """Scores phrases in recordings; any phrase, without training."""

    def __init__(self, model: PhraseChecker, tokenizer: PhonemeTokenizer) -> None:
        """Takes the net and what knows how words are pronounced.

        Raises:
            ValueError: the tokenizer has phones that the net does not know.
        """
        missing = sorted(set(tokenizer.sounds) - set(model.config.phones))
        if missing:
            raise ValueError(f"the checker does not know the phones {', '.join(missing)}")
        self.model, self.tokenizer = model.eval(), tokenizer
        self._numbers = {phone: n for n, phone in enumerate(model.config.phones, start=1)}

    @classmethod
    def load(cls, folder: str | Path, text_tokenizer: str | Path) -> Checker:
        """Reads the component of a `PhraseChecker` and the folder of a text tokenizer.

        Raises:
            ComponentError: the folder holds no such component.
        """
        return cls(
            load_net(folder, PhraseChecker), PhonemeTokenizer.from_folder(str(text_tokenizer))
        )

    @classmethod
    def untrained(cls, tokenizer: PhonemeTokenizer, **sizes: int) -> Checker:
        """A checker with random weights, to train or to test with.

        Args:
            tokenizer: whose phones it knows.
            sizes: of `PhraseCheckerConfig`.
        """
        config = PhraseCheckerConfig(phones=tokenizer.sounds, **sizes)  # pyright: ignore[reportArgumentType]
        return cls(PhraseChecker(config), tokenizer)

    def phones_of(self, phrase: str | Sequence[str]) -> list[str]:
        """Phones of words, or these phones.

        Raises:
            ValueError: there are none, or the checker does not know one of them.
        """
        if isinstance(phrase, str):
            phones = self.tokenizer.pronounce(phrase.lower())
        else:
            phones = list(phrase)
        if not phones:
            raise ValueError(f"the phrase {phrase!r} has nothing to say")
        unknown = [phone for phone in phones if phone not in self._numbers]
        if unknown:
            raise ValueError(
                f"the checker does not know the phone {unknown[0]!r}; it knows "
                + ", ".join(self._numbers)
            )
        return phones

    def score(self, waveform: Tensor, phrase: str | Sequence[str]) -> Scored:
        """How likely a phrase is said anywhere in a recording.

        Args:
            waveform: (S,) mono at 16 kHz.
            phrase: normalised words, or phones.

        Returns:
            `Scored`; `LOWEST_SCORE` at no place where the recording is too short, or silent.

        Raises:
            ValueError: the phrase has nothing to say, or the waveform is not (S,).
        """
        return self.score_all(waveform, [phrase])[0]

    @torch.inference_mode()
    def score_all(self, waveform: Tensor, phrases: Sequence[str | Sequence[str]]) -> list[Scored]:
        """Scores of several phrases in one recording, which is encoded once; see `score`."""
        if waveform.ndim != 1:
            raise ValueError(f"a recording is (S,), got {tuple(waveform.shape)}")
        units = [[self._numbers[p] for p in self.phones_of(phrase)] for phrase in phrases]
        waveform = torch.nan_to_num(waveform.float()).clamp(-1.0, 1.0)
        if waveform.shape[0] < _MIN_SECONDS * SAMPLE_RATE or not bool(waveform.any()):
            return [self._nothing(phrase) for phrase in phrases]
        hidden, _ = self.model(waveform[None], torch.tensor([waveform.shape[0]]))
        log_probs = self.model.phone_log_probs(hidden)[0].double().numpy()
        known = self.model.config.phrases
        branch = self.model.phrase_log_probs(hidden)[0, :, :, 0].amax(dim=0) if known else None
        seconds = self.model.place_seconds
        found = []
        for phrase, numbers in zip(phrases, units, strict=True):
            score, spans = spot_ctc(log_probs, numbers)
            if not spans:
                found.append(self._nothing(phrase))
                continue
            in_branch = None
            if branch is not None and isinstance(phrase, str) and phrase in known:
                in_branch = float(branch[known.index(phrase)])
            found.append(
                Scored(
                    log_probability=max(score / len(numbers), LOWEST_SCORE),
                    start_seconds=spans[0][0] * seconds,
                    end_seconds=spans[-1][1] * seconds,
                    branch_log_probability=in_branch,
                    spans=tuple((first * seconds, last * seconds) for first, last in spans),
                )
            )
        return found

    def _nothing(self, phrase: str | Sequence[str]) -> Scored:
        """Scores of a phrase that cannot have been said; the same ones as of any recording."""
        is_known = isinstance(phrase, str) and phrase in self.model.config.phrases
        return Scored(
            log_probability=LOWEST_SCORE,
            start_seconds=0.0,
            end_seconds=0.0,
            branch_log_probability=LOWEST_SCORE if is_known else None,
        )
