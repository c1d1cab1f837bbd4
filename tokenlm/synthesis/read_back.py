"""Reading speech tokens back: whether they say what they should.

Tokens are read by the ASR half of their own tokenizer: no vocoder is needed, and a judge of
`tokenlm evaluate` has no part in it. What is compared are phones, where recogniser and text
tokenizer know them, otherwise characters.

Shapes: B rows, N tokens, C digits of a code, U units (phones or characters) known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn import functional

from tokenlm.models.token_recognizer import PHONES_PER_TOKEN, TokenRecognizer, greedy_ctc
from tokenlm.text.alphabet import decode_characters, encode_characters
from tokenlm.text.errors import WordErrors, word_errors
from tokenlm.text.segmentation import UNSPACED
from tokenlm.text.tokenizers import PhonemeTokenizer, TextTokenizer

_UNSPACED = re.compile(f"[{UNSPACED}]")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How well speech tokens say a text."""

    error: float
    """Units that were read otherwise (edit distance), per unit of the text. Deletions are what was
    skipped or left out at the end, insertions what was repeated, babbled or leaked from the
    prompt."""
    surprise: float
    """Negative CTC log-likelihood of the text, natural logarithm per unit of it. It tells readings
    apart that have the same errors: the clearer one surprises less."""
    words: WordErrors = WordErrors()
    """Words that were lost, doubled or put in. One lost word of ten is a small error of the whole,
    and to who listens the worst."""


class ReadBack:
    """Reads speech tokens, and compares what it reads with texts."""

    def __init__(
        self, recognizer: TokenRecognizer, text_tokenizer: TextTokenizer | None = None
    ) -> None:
        """Take the reader.

        Args:
            recognizer: of the tokens.
            text_tokenizer: says the phones of texts; without one characters are compared.
        """
        self.recognizer = recognizer
        self._numbers = {p: number for number, p in enumerate(recognizer.config.phones, start=1)}
        self._pronunciation: PhonemeTokenizer | None = None
        if isinstance(text_tokenizer, PhonemeTokenizer):
            if self._numbers.keys() >= set(text_tokenizer.sounds):
                self._pronunciation = text_tokenizer
        self._space = 0
        """The unit between words, where characters are compared and they have one."""
        if self._pronunciation is None:
            self._space = recognizer.config.alphabet.find(" ") + 1

    @property
    def unit(self) -> str:
        """What is compared: "phone" or "character"."""
        return "character" if self._pronunciation is None else "phone"

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
            return [[self._numbers[phone] for phone in word] for word in said if word]
        alphabet = self.recognizer.config.alphabet
        words: list[list[int]] = [[]]
        for unit in encode_characters(text, alphabet):
            if unit == self._space:
                words.append([])
            elif not self._space or _UNSPACED.match(alphabet[unit - 1]):
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
    def __call__(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> list[Reading | None]:
        """Compare rows of speech tokens with the texts that they were to say.

        Args:
            texts: normalised.
            rows: speech tokens of each.

        Returns:
            A reading of each, None of a text without a unit that is known: it cannot be checked.
        """
        references = [self.encode(text) for text in texts]
        found: list[Reading | None] = [
            self._unread(text) if reference else None
            for text, reference in zip(texts, references, strict=True)
        ]
        filled = [n for n, (units, row) in enumerate(zip(references, rows, strict=True))
                  if units and row]  # fmt: skip
        if not filled:
            return found
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
        surprises = functional.ctc_loss(
            log_probs.transpose(0, 1),
            torch.tensor([unit for n in filled for unit in references[n]], device=ends.device),
            ends,
            torch.tensor([len(references[n]) for n in filled], device=ends.device),
            reduction="none",
        )
        for place, n in enumerate(filled):
            end, count = int(ends[place]), len(references[n])
            heard = self._tidy(greedy_ctc(paths[place, :end].cpu().tolist()))
            found[n] = Reading(
                error=Levenshtein.distance(references[n], heard) / count,
                surprise=float(surprises[place]) / count,
                words=self._word_errors(texts[n], heard),
            )
        return found

    def _unread(self, text: str) -> Reading:
        """Of no speech at all."""
        return Reading(error=1.0, surprise=float("inf"), words=self._word_errors(text, []))

    def _word_errors(self, text: str, heard: list[int]) -> WordErrors:
        return word_errors(self.encode_words(text), [unit for unit in heard if unit != self._space])

    def _tidy(self, heard: list[int]) -> list[int]:
        """What was read, without spaces at the ends or more than one in a row."""
        if self._pronunciation is not None:
            return heard
        alphabet = self.recognizer.config.alphabet
        return encode_characters(decode_characters(heard, alphabet), alphabet)
