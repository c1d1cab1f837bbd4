"""Which written word each spoken word stands for.

Normalisation rewrites a text in many passes, and no pass says where its words come from: "1,250" is
one written word and becomes four spoken ones. So the two are aligned afterwards. Most words are
found at once, as they are read the same alone and in their text; the others are aligned by their
letters, within a window.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from tokenlm.text.normalize import Frontend
from tokenlm.text.segmentation import NORMALIZED, PARAGRAPH, RAW_WORD

_DASHES = "—–…"
_SPACED_WORD = re.compile(rf"()([^\s{_DASHES}]+[{_DASHES}]*|[{_DASHES}]+)")
"""A written word of a normalised text; a long dash parts words, too. Groups as in `RAW_WORD`."""
_NO_LETTER = re.compile(r"\W+")
_MARKS = ",.?!;:"
_MARKUP = re.compile(
    r"</?[A-Za-z][A-Za-z0-9:-]{0,31}(?:\s[^<>]{0,1101})?/?>|<\?xml[^<>]{0,200}\?>|<!--.*?-->"
    r"|\[pause(?:\s+[-+.]?[0-9][^\[\]]{0,29})?\]",
    re.IGNORECASE | re.DOTALL,
)
"""What `MarkupReader` takes for itself and what the front-end drops; all else is words."""
_OPEN_MARKUP = re.compile(r"[<\[][^<>\]]{0,1000}$")

_WINDOW = 24
"""Written words, and spoken ones, that are aligned at once."""
_HELD = 8
"""Spoken words at the end of a window whose alignment may change with what follows."""
_MAX_GROWTH = 6
"""Spoken words that a written one may have beyond those it has alone."""
_MAX_CACHED = 20_000


@dataclass(frozen=True)
class WrittenWord:
    """A word as it was written, with its marks: `text[start:end]` of the text."""

    text: str
    start: int
    end: int


class WrittenWords:
    """Aligns the words of a text, whole or while it comes in, with its spoken words.

    Written words without sound (a dash, a word of a script that is not read) own no spoken word.
    """

    def __init__(
        self,
        text_frontend: Frontend,
        *,
        hides_markup: bool = False,
        respell: Callable[[str], str] | None = None,
        unspell: Callable[[str], str] = str,
    ) -> None:
        """Creates it for an empty text.

        Args:
            text_frontend: what the text goes through.
            hides_markup: whether elements and pauses of `tokenlm.text.markup` are no words.
            respell: how a text is written before the front-end reads it, with a lexicon.
            unspell: puts the words of elements with pronunciations in the place of what stands for
                them.
        """
        self._unspell = unspell
        self._respell = respell
        self._hides_markup = hides_markup
        self.written: list[WrittenWord] = []
        """Complete written words so far."""
        self.owners: list[int] = []
        """Index of the written word of each spoken word, as far as that is settled."""
        self.spoken: list[str] = []
        """Spoken words so far."""
        self._words = text_frontend.words
        self._pattern = _SPACED_WORD if text_frontend.rules is NORMALIZED else RAW_WORD
        self._rest, self._num_read = "", 0
        """Text behind the last complete word, and the characters before it."""
        self._bare: list[str] = []
        """The spoken words without marks."""
        self._next = 0
        """The first written word that owns no settled spoken word yet."""
        self.is_finished = False
        """Whether the text is complete, and all spoken words are settled."""
        self._is_complete = False
        self._readings: dict[str, list[str]] = {}

    def feed(self, piece: str) -> None:
        """Appends the next piece of the written text."""
        self._rest += piece

    def add(self, spoken: Sequence[str]) -> None:
        """Appends spoken words that the front-end gave for the text so far."""
        words = [word.strip() for word in spoken if word != PARAGRAPH]
        self._bare += map(_bare, words)
        self.spoken += words
        self._read_words()
        self._settle()

    def finish(self) -> None:
        """Marks text and spoken words as complete: all spoken words are then settled."""
        self._is_complete = True
        self._read_words()
        self._settle()
        self.is_finished = True

    def spoken_text(self, first: int, last: int) -> str:
        """The spoken words `first` to `last` - 1, which belong to one written word.

        A word of a lexicon is given as it was written: how it is respelled is no word.
        """
        written = self.written[self.owners[first]].text
        if self._respell is not None and self._respell(written) != written:
            return written
        return self._unspell(" ".join(self.spoken[first:last]))

    def _read_words(self) -> None:
        text = self._rest
        if self._hides_markup:
            text = _MARKUP.sub(lambda match: " " * len(match[0]), text)
            opened = None if self._is_complete else _OPEN_MARKUP.search(text)
            text = text[: opened.start()] if opened else text
        found = list(self._pattern.finditer(text))
        if found and not self._is_complete and found[-1].end() == len(text):
            found.pop()  # it may go on
        for match in found:
            start, end = match.span(2)
            own = self._rest[start:end]
            self.written.append(WrittenWord(own, self._num_read + start, self._num_read + end))
        if found:
            self._num_read += found[-1].end()
            self._rest = self._rest[found[-1].end() :]

    def _settle(self) -> None:
        while len(self.owners) < len(self._bare) and self.written:
            if self._next < len(self.written):
                reading, first = self._reading(self._next), len(self.owners)
                found = self._bare[first : first + len(reading)]
                if found == reading:
                    self._own(len(found))
                    continue
                if found == reading[: len(found)] and not self._is_complete:
                    return
            elif not self._is_complete:
                return
            if not self._align():
                return

    def _own(self, count: int) -> None:
        """Gives the next spoken words to the next written word."""
        # What is left behind the last written word belongs to that.
        owner = min(self._next, len(self.written) - 1)
        self.owners += [owner] * count
        self._next += 1

    def _align(self) -> bool:
        """Settles the next words by their letters; False if more of the text is needed."""
        first, reading = len(self.owners), self._reading(self._next)
        size = max(_WINDOW, len(reading) + _HELD + _MAX_GROWTH)
        spoken = self._bare[first : first + size]
        is_last = self._is_complete and first + size >= len(self._bare)
        if not is_last and len(spoken) <= _HELD:
            return False
        numbers = range(self._next, min(self._next + size, len(self.written)))
        counts = self._best_counts(list(numbers), spoken, is_last)
        if not counts and not is_last:
            # More is spoken than these words can account for.
            if not self._is_complete:
                return False
            self._own(max(len(spoken) - _HELD, 1))
            return True
        settled = len(spoken) if is_last else len(spoken) - _HELD
        done = 0
        for position, count in enumerate(counts):
            if position and done + count > settled:
                break
            self._own(count)
            done += count
        if is_last:
            self._own(len(spoken) - done)
        return True

    def _best_counts(self, numbers: list[int], spoken: list[str], is_last: bool) -> list[int]:
        """Numbers of spoken words of written words, in the alignment with the fewest edits.

        Args:
            numbers: of the written words.
            spoken: words, without marks.
            is_last: whether both are the end of the text.
        """
        total = len(spoken)
        # costs[n]: edits up to here if n spoken words are taken.
        costs: list[float] = [0.0] + [float("inf")] * total
        taken: list[list[int]] = []
        ends = [costs[total]]
        for number in numbers:
            reading = "".join(self._reading(number))
            letters = _NO_LETTER.sub("", self.written[number].text).lower()
            longest = len(self._reading(number)) + _MAX_GROWTH
            new, chosen = [float("inf")] * (total + 1), [0] * (total + 1)
            for start in range(total + 1):
                if costs[start] == float("inf"):
                    continue
                said = ""
                for count in range(min(longest, total - start) + 1):
                    if count:
                        said += spoken[start + count - 1]
                    edits = Levenshtein.distance(reading, said)
                    if edits and letters != reading:
                        edits = min(edits, Levenshtein.distance(letters, said))
                    if costs[start] + edits < new[start + count]:
                        new[start + count] = costs[start] + edits
                        chosen[start + count] = count
            costs = new
            taken.append(chosen)
            ends.append(costs[total])
        if is_last and ends[-1] < float("inf"):
            last = len(numbers)
        else:
            last = min(range(len(ends)), key=lambda position: (ends[position], position))
        counts: list[int] = []
        for position in range(last - 1, -1, -1):
            counts.append(taken[position][total])
            total -= counts[-1]
        return counts[::-1]

    def _reading(self, number: int) -> list[str]:
        """The spoken words of a written one that stands alone, without marks."""
        if number >= len(self.written):
            return []
        text = self.written[number].text
        if self._respell is not None:
            text = self._respell(text)
        reading = self._readings.get(text)
        if reading is None:
            if text.isascii() and text.isalpha() and text.islower():
                return [text]
            if len(self._readings) >= _MAX_CACHED:
                self._readings.clear()
            words = [_bare(word) for word in self._words(text) if word != PARAGRAPH]
            reading = self._readings[text] = [word for word in words if word]
        return reading


def _bare(word: str) -> str:
    """A spoken word without marks; a mark that is a word of its own stays."""
    return word.strip().rstrip(_MARKS) or word.strip()
