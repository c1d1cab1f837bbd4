"""Times of words: when each word of a request is said.

The text that was asked for is aligned with the speech tokens by the CTC outputs of the token
recogniser. No sound is looked at, so times are known as soon as the tokens are, and streamed speech
has the same times as whole speech.

Shapes: S samples, T places of CTC outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenlm.models.token_recognizer import align_ctc
from tokenlm.synthesis.guards import ReadBack
from tokenlm.text.written import WrittenWords

ROUND_TOKENS = 5
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


@dataclass(frozen=True, kw_only=True)
class TimedWord:
    """A written word of a request, and when it is said."""

    text: str
    """As it was written, with the marks at its ends: `text[text_start:text_end]` of the request."""
    spoken: str
    """As it is said, with the marks that make pauses: "one thousand two hundred fifty," for
    "1,250,"."""
    start_seconds: float
    """Where it begins, from the first sample of the speech."""
    end_seconds: float
    text_start: int
    text_end: int
    """Where it stands in the text of the request, in characters."""


class Speech(Tensor):
    """A waveform (S,), and the words that begin in it.

    What is computed from it is a plain tensor.
    """

    words: tuple[TimedWord, ...]
    """In a stream also words that began in an earlier chunk and were not known then."""

    @staticmethod
    def of(waveform: Tensor, words: Sequence[TimedWord]) -> Speech:
        """Speech that shares the samples of a waveform."""
        speech = waveform.as_subclass(Speech)
        speech.words = tuple(words)
        return speech

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Computes as for plain tensors; see "Extending PyTorch" in its documentation."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> Speech:
        return memo.setdefault(id(self), Speech.of(self.as_subclass(Tensor).clone(), self.words))


Span = tuple[float, float]
"""First and last place of a word on the time axis of its segment, in tokens."""


class SegmentAligner:
    """Aligns the words of a segment with its tokens as they come in.

    The result depends on the tokens alone, not on how many of them come at once: words are aligned
    every `ROUND_TOKENS`, and settled when the next word has begun `HELD_TOKENS` before.
    """

    def __init__(
        self, read_back: ReadBack, silent_tokens: Collection[int], token_rate: int
    ) -> None:
        """Creates it for a segment without tokens.

        Args:
            read_back: reads the tokens.
            silent_tokens: codes of silence; may be empty.
            token_rate: tokens per second.
        """
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
            begun = [n for n, span in enumerate(read) if span is not None]
            begun = [n for n in begun if read[n][0] <= num_tokens - HELD_TOKENS]  # type: ignore[index]
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
            if own and units and self._read_back.space:
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


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a segment stands in the speech."""

    token_seconds: float
    """Where its first token begins, also if that is cut off."""
    sample_seconds: float
    """Where its first sample is."""
    speed: float


class WordTimer:
    """Times of the words of a request, from its text, its tokens and how it is joined."""

    def __init__(
        self,
        read_back: ReadBack,
        written: WrittenWords,
        *,
        silent_tokens: Collection[int],
        token_rate: int,
        words_at: Callable[[int, int | None], Sequence[str]],
    ) -> None:
        """Creates it for a request without tokens.

        Args:
            read_back: reads the tokens.
            written: words of the request.
            silent_tokens: codes of silence; may be empty.
            token_rate: tokens per second.
            words_at: function from the number of a segment and of its tokens to the words of the
                segment that may have begun by then; without a number of tokens all of them.
        """
        self.words: list[TimedWord] = []
        """Those that `take` gave."""
        self._written = written
        self._words_at = words_at
        self._token_rate = token_rate
        self._new_aligner = lambda: SegmentAligner(read_back, silent_tokens, token_rate)
        self._aligners: list[SegmentAligner] = []
        self._origins: list[Placement | None] = []
        """Where each segment stands in the speech; None for one without sound."""
        self._next = 0, 0
        """Segment, and word in it, of which the time is read next."""
        self._letters = 0
        """Letters of the last spoken word so far, if it goes on in another word of a segment."""
        self._spoken: list[Span | None] = []
        """Seconds of each spoken word so far."""
        self._num_owned = 0
        """Spoken words of the written words that were given."""

    def add(self, number: int, tokens: Sequence[int], *, is_last: bool) -> None:
        """Appends tokens to a segment; with `is_last` it ends."""
        while len(self._aligners) <= number:
            self._aligners.append(self._new_aligner())
        self._aligners[number].add(
            tokens, lambda count: self._words_at(number, count), is_last=is_last
        )

    def place(self, number: int, origin: Placement | None) -> None:
        """Sets where a segment begins in the speech; may be called again, which changes nothing.

        Args:
            number: of the segment; those before it are placed.
            origin: where it stands; None where it has no sound, and its words no times.
        """
        if number == len(self._origins):
            self._origins.append(origin)

    def snapshot(self) -> Callable[[], None]:
        """A function that restores what `place` and `take` change."""
        origins, spoken, words = [*self._origins], [*self._spoken], [*self.words]
        state = self._next, self._letters, self._num_owned

        def restore() -> None:
            self._origins, self._spoken, self.words = origins, spoken, words
            self._next, self._letters, self._num_owned = state

        return restore

    def take(self, end_seconds: float) -> list[TimedWord]:
        """The next words, in their order, that begin before a second and are settled."""
        self._read_spans()
        found: list[TimedWord] = []
        owners, first = self._written.owners, self._num_owned
        while first < len(self._spoken) and first < len(owners):
            last = first + 1
            while last < len(owners) and owners[last] == owners[first]:
                last += 1
            is_settled = last < len(owners) or (self._written.is_finished and last == len(owners))
            is_cut = last == len(self._spoken) and self._letters
            if not is_settled or is_cut or last > len(self._spoken):
                break
            spans = [span for span in self._spoken[first:last] if span is not None]
            if spans:
                if spans[0][0] >= end_seconds:
                    break
                found.append(self._timed(owners[first], first, last, spans))
            first = self._num_owned = last
        self.words += found
        return found

    def _timed(self, owner: int, first: int, last: int, spans: Sequence[Span]) -> TimedWord:
        written = self._written.written[owner]
        return TimedWord(
            text=written.text,
            spoken=" ".join(self._written.spoken[first:last]),
            start_seconds=round(spans[0][0], 3),
            end_seconds=round(spans[-1][1], 3),
            text_start=written.start,
            text_end=written.end,
        )

    def _read_spans(self) -> None:
        """Reads the times of the words of segments that are placed."""
        number, word = self._next
        while number < len(self._origins):
            words = self._words_at(number, None)
            spans = self._aligners[number].spans if number < len(self._aligners) else []
            is_past = number + 1 < len(self._origins)
            count = len(words) if is_past else len(spans)
            for index in range(word, count):
                self._add_span(words[index], spans[index] if index < len(spans) else None, number)
            if not is_past:
                self._next = number, max(word, count)
                return
            number, word = number + 1, 0
        self._next = number, word

    def _add_span(self, word: str, span: Span | None, number: int) -> None:
        """Adds the time of a word of a segment, which may be a part of an overlong spoken one."""
        origin = self._origins[number]
        if origin is None or span is None:
            span = None
        else:
            seconds = 1.0 / (self._token_rate * origin.speed)
            start, end = (
                max(origin.token_seconds + place * seconds, origin.sample_seconds) for place in span
            )
            span = start, end
        if not self._letters:
            self._spoken.append(span)
        elif span is not None:
            known = self._spoken[-1]
            self._spoken[-1] = (span if known is None else known)[0], span[1]
        self._letters += len(word.strip())
        if self._letters >= len(self._written.spoken[len(self._spoken) - 1]):
            self._letters = 0
