"""Guards that look at whole segments: speech tokens are read back, and decoded again if need be.

Tokens are read by the ASR half of their own tokenizer: no vocoder is needed, and no judge of
`tokenlm evaluate` is involved. Phones are compared where recogniser and text tokenizer know them,
otherwise characters.

Shapes: B rows, N tokens, C digits of a code, U units (phones or characters) known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn import functional

from tokenlm.models.lm.guards import GuardConfig
from tokenlm.models.token_recognizer import PHONES_PER_TOKEN, TokenRecognizer, greedy_ctc
from tokenlm.modules.exact import mix
from tokenlm.text.segmentation import UNSPACED
from tokenlm.text.tokenizers import PhonemeTokenizer, TextTokenizer
from tokenlm.text.transcripts import WordErrors, decode_characters, encode_characters, word_errors

_UNSPACED = re.compile(f"[{UNSPACED}]")

NUM_DURATION_ATTEMPTS = 4
"""Attempts at a segment that is to have a given duration."""
RETRY_SEED = 0x5EED
"""Separates the seeds of further attempts from all others."""


@dataclass(frozen=True, kw_only=True)
class ReadBackScore:
    """How well speech tokens say a text."""

    error_rate: float
    """Edit distance between the units that were read and those of the text, per unit of the text.
    Deletions are what was skipped or left out at the end, insertions what was repeated, babbled or
    leaked from the prompt."""
    ctc_loss: float
    """Negative CTC log-likelihood of the text, natural logarithm per unit of it: of several with
    the same errors, the clearest has the lowest."""
    words: WordErrors = WordErrors()
    """Words that were lost, doubled or inserted. One lost word of ten is a small error rate, but
    what listeners mind most."""


class ReadBack:
    """Reads speech tokens and compares the result with texts."""

    def __init__(
        self, recognizer: TokenRecognizer, text_tokenizer: TextTokenizer | None = None
    ) -> None:
        """Creates it.

        Args:
            recognizer: of the tokens.
            text_tokenizer: pronounces texts in phones; without one characters are compared.
        """
        self.recognizer = recognizer
        self._unit_of = {p: number for number, p in enumerate(recognizer.config.phones, start=1)}
        self._pronunciation: PhonemeTokenizer | None = None
        if isinstance(text_tokenizer, PhonemeTokenizer):
            if self._unit_of.keys() >= set(text_tokenizer.sounds):
                self._pronunciation = text_tokenizer
        self.space = 0
        """The unit between words, where characters are compared and they have one."""
        if self._pronunciation is None:
            self.space = recognizer.config.alphabet.find(" ") + 1

    @property
    def unit(self) -> str:
        """Unit of comparison: "phone" or "character"."""
        return "character" if self._pronunciation is None else "phone"

    @property
    def unit_names(self) -> Sequence[str]:
        """Phones or characters, in the order of their indices, which begin at 1."""
        config = self.recognizer.config
        return config.alphabet if self._pronunciation is None else config.phones

    @property
    def outputs_per_token(self) -> int:
        """Places of CTC at each token."""
        return 1 if self._pronunciation is None else PHONES_PER_TOKEN

    def encode(self, text: str) -> list[int]:
        """Indices, 1 and up, of the units of a normalised text; none where it has none of them."""
        if self._pronunciation is None:
            return encode_characters(text, self.recognizer.config.alphabet)
        return [unit for word in self.encode_words(text) for unit in word]

    def encode_words(self, text: str) -> list[list[int]]:
        """The same, word for word; of scripts that part no words each character is one."""
        if self._pronunciation is not None:
            said = map(self._pronunciation.pronounce, text.replace("-", " ").split())
            return [[self._unit_of[phone] for phone in word] for word in said if word]
        alphabet = self.recognizer.config.alphabet
        words: list[list[int]] = [[]]
        for unit in encode_characters(text, alphabet):
            if unit == self.space:
                words.append([])
            elif not self.space or _UNSPACED.match(alphabet[unit - 1]):
                words += [[unit], []]
            else:
                words[-1].append(unit)
        return [word for word in words if word]

    def log_probs(self, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        """CTC log-probabilities of units, with a gradient for the code vectors.

        Args:
            codes: (B, N, C).
            mask: (B, N) True where valid.

        Returns:
            (B, N * `outputs_per_token`, U + 1), blank first.
        """
        hidden, characters = self.recognizer(codes, mask)
        if self._pronunciation is None:
            return characters
        return self.recognizer.phone_log_probs(hidden)

    @torch.inference_mode()
    def __call__(
        self, texts: Sequence[str], rows: Sequence[Sequence[int]]
    ) -> list[ReadBackScore | None]:
        """Compare rows of speech tokens with the texts that they were to say.

        Args:
            texts: normalised.
            rows: speech tokens of each.

        Returns:
            A score of each; None for a text without any known unit, which cannot be checked.
        """
        references = [self.encode(text) for text in texts]
        scores: list[ReadBackScore | None] = [
            self._score_of_silence(text) if reference else None
            for text, reference in zip(texts, references, strict=True)
        ]
        filled = [n for n, (units, row) in enumerate(zip(references, rows, strict=True))
                  if units and row]  # fmt: skip
        if not filled:
            return scores
        device = self.recognizer.ctc.weight.device
        lengths = torch.tensor([len(rows[n]) for n in filled], device=device)
        tokens = torch.zeros(len(filled), int(lengths.max()), dtype=torch.long, device=device)
        for place, n in enumerate(filled):
            tokens[place, : len(rows[n])] = torch.tensor(list(rows[n]), device=device)
        mask = torch.arange(tokens.shape[1], device=device)[None] < lengths[:, None]
        log_probs = self.log_probs(self.recognizer.code_vectors(tokens), mask).float()
        paths = log_probs.argmax(dim=-1)
        ends = lengths * self.outputs_per_token
        if device.type == "mps":  # which has no CTC
            log_probs, ends = log_probs.cpu(), ends.cpu()
        losses = functional.ctc_loss(
            log_probs.transpose(0, 1),
            torch.tensor([unit for n in filled for unit in references[n]], device=ends.device),
            ends,
            torch.tensor([len(references[n]) for n in filled], device=ends.device),
            reduction="none",
        )
        for place, n in enumerate(filled):
            end, count = int(ends[place]), len(references[n])
            read = self._tidy(greedy_ctc(paths[place, :end].cpu().tolist()))
            scores[n] = ReadBackScore(
                error_rate=Levenshtein.distance(references[n], read) / count,
                ctc_loss=float(losses[place]) / count,
                words=self._word_errors(texts[n], read),
            )
        return scores

    def _score_of_silence(self, text: str) -> ReadBackScore:
        """Where there is no speech at all."""
        return ReadBackScore(
            error_rate=1.0, ctc_loss=float("inf"), words=self._word_errors(text, [])
        )

    def _word_errors(self, text: str, read: list[int]) -> WordErrors:
        return word_errors(self.encode_words(text), [unit for unit in read if unit != self.space])

    def _tidy(self, read: list[int]) -> list[int]:
        """Units that were read, without spaces at the ends or several in a row."""
        if self._pronunciation is not None:
            return read
        alphabet = self.recognizer.config.alphabet
        return encode_characters(decode_characters(read, alphabet), alphabet)


Decode = Callable[[Sequence[tuple[int, int]]], list[list[int]]]
"""Speech tokens of attempts, given as (index of the text, number of the attempt)."""
Check = Callable[[Sequence[str], list[list[int]]], list[ReadBackScore | None]]
"""Scores of speech tokens that are to say texts, as `ReadBack` gives them."""


@dataclass(frozen=True, kw_only=True)
class CheckedTokens:
    """The best attempt at one text."""

    tokens: list[int]
    num_attempts: int = 1
    score: ReadBackScore | None = None
    """None where the text could not be checked."""


def attempt_seed(seed: int, attempt: int) -> int:
    """The seed of an attempt; attempt 0 has that of the request."""
    return seed if attempt == 0 else mix(seed, RETRY_SEED, attempt)


def decode_checked(
    texts: Sequence[str], decode: Decode, check: Check, guards: GuardConfig
) -> list[CheckedTokens]:
    """Decodes texts, reads them back, and tries again where that differs from the text.

    Attempts are made one after another, the first `num_candidates` of them at once, until no word
    is lost, doubled or inserted and the error rate is low enough. Of a text that cannot be checked,
    such as one in another script than the recogniser's, the first attempt is taken.

    Args:
        texts: normalised.
        decode: the LM.
        check: scores what it decoded.
        guards: the number of attempts, and what is accepted.

    Returns:
        The best attempt at each text: the one with the fewest word errors, then the lowest error
        rate, then the lowest CTC loss.
    """
    best: dict[int, CheckedTokens] = {}
    remaining = list(range(len(texts)))
    most = max(guards.max_attempts, guards.num_candidates)
    done = 0
    while remaining and done < most:
        count = guards.num_candidates if done == 0 else 1
        attempts = [(index, done + number) for index in remaining for number in range(count)]
        rows = decode(attempts)
        scores = check([texts[index] for index, _ in attempts], rows)
        for (index, _), tokens, score in zip(attempts, rows, scores, strict=True):
            if index not in best or _is_better(score, best[index].score):
                best[index] = CheckedTokens(tokens=tokens, score=score)
        done += count
        for index in remaining:
            best[index] = replace(best[index], num_attempts=done)
        remaining = [index for index in remaining if _is_rejected(best[index].score, guards)]
    return [best[index] for index in range(len(texts))]


def decode_nearest(
    texts: Sequence[str], targets: Sequence[float], decode: Decode, check: Check | None
) -> list[list[int]]:
    """Decodes texts several times, and takes of each what comes nearest to a length.

    The first attempt counts. Another one that is nearer takes its place if it has no more errors in
    words than the first.

    Args:
        texts: normalised.
        targets: numbers of tokens.
        decode: the LM.
        check: scores what it decoded; None where nothing can read it, and all attempts count.
    """
    attempts = [(index, n) for index in range(len(texts)) for n in range(NUM_DURATION_ATTEMPTS)]
    rows = decode(attempts)
    scores = [None] * len(rows) if check is None else check([texts[i] for i, _ in attempts], rows)
    best: dict[int, list[int]] = {}
    allowed: dict[int, int] = {}
    for (index, attempt), row, score in zip(attempts, rows, scores, strict=True):
        num_errors = 0 if score is None else score.words.total
        if attempt == 0:
            best[index], allowed[index] = row, num_errors
            continue
        is_nearer = abs(len(row) - targets[index]) < abs(len(best[index]) - targets[index])
        if is_nearer and num_errors <= allowed[index]:
            best[index] = row
    return [best[index] for index in range(len(texts))]


def _is_rejected(score: ReadBackScore | None, guards: GuardConfig) -> bool:
    if score is None:
        return False
    return bool(score.words.total) or score.error_rate > guards.max_read_error


def _is_better(score: ReadBackScore | None, other: ReadBackScore | None) -> bool:
    if score is None or other is None:
        return False
    return _badness(score) < _badness(other)


def _badness(score: ReadBackScore) -> tuple[float, ...]:
    return score.words.total, score.error_rate, score.ctc_loss
