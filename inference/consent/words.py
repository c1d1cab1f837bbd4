"""Whether a recording says the sentence that was drawn for it.

The drawn words compete with all words that might have been drawn, and with leaving them out; the
statement competes with denials of it, with other names, and with leaving it or the name out. So the
decision is one between texts, and needs no absolute scale of a recogniser. How much likelier
another text may be is a bound of the settings: a statement or a name that is nearer to the right
one than to those here is not told from it.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from inference.consent.challenge import WORDS, Challenge
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.guards import ReadBack
from tokenlm.text.normalize import frontend

SAMPLE_RATE = 16_000
"""Of what is listened to, in hertz."""
DENIALS = ("do not", "don't", "never", "will not")
"""Before "let": what makes the opposite of the statement."""
OTHER_NAMES = ("John Smith", "Maria Garcia", "Emily Brown", "Peter Johnson", "David Lee")
"""That stand for anybody else's; those that are like the person's own are left out."""
MAX_NAME_LIKENESS = 0.6
"""Share of letters that names have in common, beyond which they may sound the same."""


class TextScorer(Protocol):
    """Says how likely a recording says texts."""

    def log_probabilities(self, waveform: Tensor, texts: Sequence[str]) -> list[float]:
        """Natural logarithms, over the whole of each text, that compare between texts.

        Args:
            waveform: (S,) at `SAMPLE_RATE`.
            texts: as they are written.
        """
        ...


class RecognizerScorer:
    """The recogniser of a bundle: its speech tokenizer, then CTC of its token recogniser."""

    def __init__(self, components: Components) -> None:
        """Takes the models.

        Raises:
            BundleError: the bundle has no token recogniser.
        """
        self._tokenizer = components.speech_tokenizer
        self._read_back = ReadBack(components.token_recognizer, components.text_tokenizer)
        self._normalize = frontend(components.text_tokenizer.config.normalizer).normalize
        self._device = components.device

    @torch.inference_mode()
    def log_probabilities(self, waveform: Tensor, texts: Sequence[str]) -> list[float]:
        """See `TextScorer`; the recording is encoded once."""
        tokens = self._tokenizer.encode(waveform.to(self._device)[None])[0]
        codes = self._read_back.recognizer.code_vectors(tokens)
        log_probs = self._read_back.log_probs(codes).float().cpu().transpose(0, 1)
        units = [self._read_back.encode(self._normalize(text)) for text in texts]
        losses = functional.ctc_loss(
            log_probs.expand(-1, len(texts), -1),
            torch.tensor([unit for text in units for unit in text], dtype=torch.long),
            torch.full((len(texts),), log_probs.shape[0], dtype=torch.long),
            torch.tensor([len(text) for text in units], dtype=torch.long),
            reduction="none",
        )
        return (-losses).tolist()


@dataclass(frozen=True, kw_only=True)
class WordsScore:
    """How well the drawn words were heard."""

    margins: tuple[float, ...]
    """Of each drawn word: its log-probability less that of the likeliest other text in its place.
    Minus infinity where nothing can be aligned."""
    statement_margin: float
    """The same of the statement before them, against those of `other_statements`."""

    @property
    def lowest(self) -> float:
        """The least of all."""
        return min(*self.margins, self.statement_margin)


def score_words(scorer: TextScorer, waveform: Tensor, challenge: Challenge) -> WordsScore:
    """Compares the sentence of a challenge with those that it might be taken for.

    Args:
        scorer: listens.
        waveform: (S,) at `SAMPLE_RATE`.
        challenge: what was to be said.
    """
    words = list(challenge.words)
    rivals = other_statements(challenge)
    texts = [_sentence(statement, words) for statement in (challenge.statement, *rivals)]
    places = []
    for place in range(len(words)):
        others = [word for word in WORDS if word not in words]
        for other in ["", *others]:
            texts.append(
                _sentence(challenge.statement, [*words[:place], other, *words[place + 1 :]])
            )
            places.append(place)
    found = scorer.log_probabilities(waveform, texts)
    said, others = found[0], found[1 : 1 + len(rivals)]
    best = [float("-inf")] * len(words)
    for place, value in zip(places, found[1 + len(rivals) :], strict=True):
        best[place] = max(best[place], value)
    return WordsScore(
        margins=tuple(_margin(said, other) for other in best),
        statement_margin=_margin(said, max(others)),
    )


def other_statements(challenge: Challenge) -> list[str]:
    """Statements that the one of a challenge is told apart from; an empty one is none at all."""
    own = challenge.who.lower()
    names = [
        name
        for name in OTHER_NAMES
        if SequenceMatcher(None, name.lower(), own).ratio() < MAX_NAME_LIKENESS
    ]
    return [
        "",
        "I let tokenlm copy my voice.",
        "Let tokenlm copy my voice.",
        *(f"I, {challenge.who}, {denial} let tokenlm copy my voice." for denial in DENIALS),
        *(f"I, {name}, let tokenlm copy my voice." for name in names),
    ]


def _margin(said: float, other: float) -> float:
    return said - other if said > float("-inf") else float("-inf")


def _sentence(statement: str, words: Sequence[str]) -> str:
    return f"{statement} {', '.join(word for word in words if word)}."
