"""Alignment of the words of a segment with its speech tokens, while these come in.

The CTC outputs of the token recogniser say where each unit, a phone or a character, is read; the
silent tokens say where a pause is.

Shapes: T places of CTC outputs, U units known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from tokenlm.models.token_recognizer import align_ctc
from tokenlm.synthesis.guards import ReadBack

ROUND_TOKENS = 8
"""Speech tokens after which the words so far are aligned."""
HELD_TOKENS = 5
"""Tokens behind the beginning of a word before the word in front of it is settled."""
CONTEXT_TOKENS = 75
"""Tokens before the first open word that the recogniser sees."""
LEAD_SECONDS = 0.075
"""Most sound of a word before its first unit is read. Where the last unit of the word in front of
it is nearer, that is where it begins: the recogniser reads units towards their ends."""
EARLY_SECONDS = 0.01
"""Of that, what the last unit of a word is read too late."""
TAIL_SECONDS = 0.07
"""Most sound of a word after its last unit, where nothing follows it."""
MAX_CLOSURE_TOKENS = 2
"""A silence up to this length before a stop is its closure, and no pause."""
_STOPS = frozenset("p t k b d g ch jh c j q".split())
"""Units, phones or letters, that begin with silence."""


Span = tuple[float, float]
"""First and last place of a word on the time axis of its segment, in tokens."""


class SegmentAligner:
    """Aligns the words of a segment with its tokens as they come in.

    The result depends on the tokens alone, not on how many of them come at once: words are aligned
    every `ROUND_TOKENS`, and settled when the next word has begun `HELD_TOKENS` before.
    """

    def __init__(
        self,
        read_back: ReadBack,
        silent_tokens: Collection[int],
        token_rate: int,
        *,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> None:
        """Creates it for a segment without tokens.

        Args:
            read_back: reads the tokens.
            silent_tokens: codes of silence; may be empty.
            token_rate: tokens per second.
            check_cancelled: called before each alignment; what it raises ends the work.
        """
        self._check_cancelled = check_cancelled
        self.spans: list[Span | None] = []
        """Of the words so far that are settled; None for words of a segment without tokens."""
        self._read_back, self._silent = read_back, frozenset(silent_tokens)
        self._lead, self._tail = LEAD_SECONDS * token_rate, TAIL_SECONDS * token_rate
        self._early = EARLY_SECONDS * token_rate
        self._tokens: list[int] = []
        self._num_aligned = 0
        """Tokens at the last round."""
        self._first_place = 0
        """The place behind the last unit of the settled words."""
        self._start = 0.0
        """Where the first open word begins."""
        self._has_begun = False
        """Whether a word with units has been settled."""
        names = read_back.unit_names
        self._stops = {unit for unit, name in enumerate(names, start=1) if name in _STOPS}

    def add(
        self,
        tokens: Sequence[int],
        words: Callable[[int | None], Sequence[str]],
        *,
        is_last: bool = False,
    ) -> None:
        """Appends tokens; with `is_last` the segment ends.

        Args:
            tokens: the next of them.
            words: function from a number of tokens to the words that may have begun by then, and
                from None to all words.
            is_last: whether these are the last.
        """
        self._tokens += tokens
        while len(self._tokens) - self._num_aligned >= ROUND_TOKENS:
            self._num_aligned += ROUND_TOKENS
            self._align(self._num_aligned, words(self._num_aligned), is_last=False)
        if is_last:
            self._align(len(self._tokens), words(None), is_last=True)

    def _align(self, num_tokens: int, words: Sequence[str], *, is_last: bool) -> None:
        """Settles words of the first `num_tokens`."""
        words = words[len(self.spans) :]
        if not words:
            return
        self._check_cancelled()
        if not self._tokens:
            self.spans += [None] * len(words)
            return
        units, owners = self._units(words)
        rate = self._read_back.outputs_per_token
        places = align_ctc(self._log_probs(num_tokens), units, is_complete=is_last)
        if places is None:  # more units than places: nobody can say so much in so short a time
            if is_last:
                self._spread(words, num_tokens)
            return
        # Of each word, the tokens at which its first unit and its last are read.
        read: list[Span | None] = [None] * len(words)
        for owner, (first, last) in zip(owners, places, strict=False):
            if owner is not None:
                start, end = (self._first_place + first) / rate, (self._first_place + last) / rate
                known = read[owner]
                read[owner] = (start if known is None else known[0], end)
        num_settled = len(words)
        if not is_last:
            limit = num_tokens - HELD_TOKENS
            begun = [n for n, span in enumerate(read) if span is not None and span[0] <= limit]
            num_settled = begun[-1] if begun else 0
        firsts = [0] * len(words)
        for unit, owner in zip(reversed(units), reversed(owners), strict=True):
            if owner is not None:
                firsts[owner] = unit
        self._settle(read, firsts, num_settled, num_tokens)

    def _units(self, words: Sequence[str]) -> tuple[list[int], list[int | None]]:
        """Units of words, and the word of each; None for a space between two."""
        units: list[int] = []
        owners: list[int | None] = []
        for number, word in enumerate(words):
            own = self._read_back.encode(word)
            if own and (units or self._has_begun) and self._read_back.space:
                units.append(self._read_back.space)
                owners.append(None)
            units += own
            owners += [number] * len(own)
        return units, owners

    @torch.inference_mode()
    def _log_probs(self, num_tokens: int) -> Tensor:
        """CTC log-probabilities (T, U + 1) from the first open place on."""
        rate = self._read_back.outputs_per_token
        first = max(self._first_place // rate - CONTEXT_TOKENS, 0)
        recognizer = self._read_back.recognizer
        tokens = torch.tensor([self._tokens[first:num_tokens]], device=recognizer.ctc.weight.device)
        log_probs = self._read_back.log_probs(recognizer.code_vectors(tokens))[0]
        return log_probs[self._first_place - first * rate :]

    def _settle(
        self, read: Sequence[Span | None], firsts: Sequence[int], num_settled: int, num_tokens: int
    ) -> None:
        """Settles the first words.

        Args:
            read: of each word where its units are read.
            firsts: the first unit of each word, 0 of one without units.
            num_settled: words to settle.
            num_tokens: tokens so far.
        """
        for number in range(num_settled):
            span = read[number]
            if span is None:  # a word without units takes no time
                self.spans.append((self._start, self._start))
                continue
            if not self._has_begun:
                self._has_begun = True
                _, self._start = self._boundary(0.0, span[0], firsts[number], is_start=True)
            later = [n for n in range(number + 1, len(read)) if read[n] is not None]
            start, end = self._start, span[1]
            if later:
                following = read[later[0]]
                assert following is not None
                stop, begin = self._boundary(end, following[0], firsts[later[0]])
            else:
                stop, begin = self._boundary(end, float(num_tokens), 0, is_end=True)
            # The next word may be read earlier now than when this one was settled.
            stop = max(stop, start)
            self.spans.append((start, stop))
            self._start = max(begin, stop)
            self._first_place = round(end * self._read_back.outputs_per_token)

    def _boundary(
        self, end: float, start: float, unit: int, *, is_start: bool = False, is_end: bool = False
    ) -> Span:
        """Where a word ends and the next one begins.

        Args:
            end: where the last unit of the word is read.
            start: where the first unit of the next one is read.
            unit: this first unit.
            is_start: whether there is no word in front.
            is_end: whether there is no next word.
        """
        stop = min(int(-(-start // 1)), len(self._tokens))
        silent = [n for n in range(int(end), stop) if self._tokens[n] in self._silent]
        is_closure = len(silent) <= MAX_CLOSURE_TOKENS and unit in self._stops and not is_start
        if silent and is_closure:
            place = max(end, float(silent[0]))
            return place, place
        if silent:
            return max(end, float(silent[0])), min(start, silent[-1] + 1.0)
        if is_end:
            return min(end + self._tail, start), start
        place = max(end - self._early, start - self._lead)
        return place, place

    def _spread(self, words: Sequence[str], num_tokens: int) -> None:
        """Parts what is left of the tokens among words by their letters."""
        letters = [max(len(word), 1) for word in words]
        start, total = self._start, sum(letters)
        step = max(num_tokens - start, 0.0) / total
        for count in letters:
            self.spans.append((start, start + count * step))
            start += count * step
