"""Normalisation of text that arrives in pieces: words are emitted as soon as they are settled."""

from __future__ import annotations

import re
from collections import deque

from tokenlm.text.normalize import LOOKAHEAD_WORDS, normalize_paragraphs
from tokenlm.text.segmentation import PARAGRAPH

PARAGRAPH_END = "\u2029"
"""Ends a paragraph where it stands in a text, as a blank line does, but at once: `PARAGRAPH` does
not wait for the words of the next one."""

_GROWTH_SHARE = 8
"""The text is normalised again when it has grown by this part of itself, so that the work per
letter does not depend on its length."""
_LONG_CHARACTERS = 256
"""From this length on, whole sentences that are settled are cut off."""
_ENDLESS_CHARACTERS = 384
"""From this length on, a sentence is cut between its words."""
_MOST_CHARACTERS = 768
"""At this length all up to the last few words counts as settled."""
_CONTEXT_CHARACTERS = 128
"""Length that is kept of a sentence that is cut, as context of what comes next."""
_MAX_TRIES = 3
"""Places that are tried for a cut; if all fail, the text grows by a quarter before the next try."""
_LONG_WORD, _WORD_PART = 192, 64
"""A word longer than the first is taken as words of the second length."""
_MOST_BLANKS = 64
"""Characters of white space in a row, other than line ends, that are kept."""
_LINE_CHARACTERS = 200
"""Characters at the start of a line that tell what kind of line it is."""
_OPEN_CHARACTERS = 200
"""A bracket or tag that stays open for longer is not taken as one."""

_LINE_END = r"(?:\r\n?+|[\n\u2028\u0085\v\f])"
BLANK_LINE = re.compile(rf"{_LINE_END}[^\S\r\n\u2028\u0085\v\f]*{_LINE_END}|\u2029")
_LINE_END_MARKS = re.compile(f"{_LINE_END}|\u2029")
_LINE_ENDS = frozenset("\r\n\u2028\u2029\u0085\v\f")
_OPEN = re.compile(r"[\[<](?=[A-Za-z/!])[^\]>]*+$")
_CLOSING = "\"')]}”’»*_"
"""May stand behind the mark that ends a sentence."""


class IncrementalNormalizer:
    """`normalize_paragraphs` for text in pieces.

    While a text arrives, it is normalised again and again from the same start; a spoken word is
    emitted when the next `LOOKAHEAD_WORDS` written words have not changed it. So the result depends
    on the text alone, not on how it is cut, and nothing that was emitted changes. It is that of the
    whole text, except where a rule looks further ahead (at a sentence written all in capitals, for
    instance), and in what has no end: a sentence, a word or a bracket of some hundred characters.

    Work is linear in the length of the text, and memory is bounded, whatever the text is.
    """

    def __init__(self) -> None:
        self._pending_break = False
        self._begin()

    def _begin(self) -> None:
        self._text = ""
        """The text since the last cut: what may still matter."""
        self._line_start = ""
        """What was cut off of its first line."""
        self._blank = ""
        """The white space that it ends with."""
        self._word_length = 0
        """Characters of the word that it ends with."""
        self._num_emitted = 0
        """Spoken words of the text that have been emitted."""
        self._ends: list[int] = []
        """Where words end."""
        self._sentence_ends: list[int] = []
        """Where sentences or lines end, among these."""
        self._results: deque[tuple[int, int, list[str]]] = deque()
        """The latest results: number of written words and of characters that were normalised, and
        the spoken words. The first of them is `LOOKAHEAD_WORDS` words ago, or more."""
        self._next_cut = _LONG_CHARACTERS
        """Length from which on a cut is tried."""

    def feed(self, piece: str) -> list[str]:
        """Return the words that the next piece settles, and `PARAGRAPH` where one ends."""
        words: list[str] = []
        for character in piece:
            if character.isspace():
                if self._word_length:
                    words += self._word_ended()
                words += self._add_space(character)
                continue
            if self._word_length >= _LONG_WORD and self._word_length % _WORD_PART == 0:
                words += self._word_ended(is_part=True)
            self._text += character
            self._word_length += 1
            self._blank = ""
        return words

    def finish(self) -> list[str]:
        """Return the words that are left: the text is complete."""
        return self._close()

    def _add_space(self, character: str) -> list[str]:
        self._word_length = 0
        is_line_end = character in _LINE_ENDS
        if not is_line_end and len(self._blank) >= _MOST_BLANKS:
            return []
        if is_line_end and self._ends and self._sentence_ends[-1:] != self._ends[-1:]:
            self._sentence_ends.append(self._ends[-1])
        self._text += character
        self._blank += character
        if not (is_line_end and BLANK_LINE.search(self._blank)):
            return []
        words = self._close()
        if character == PARAGRAPH_END:
            self._pending_break = False
            return [*words, PARAGRAPH]
        self._pending_break = True
        return words

    def _word_ended(self, is_part: bool = False) -> list[str]:
        text = self._text
        self._ends.append(len(text))
        if not is_part and text.rstrip(_CLOSING)[-1:] in (".", "?", "!"):
            self._sentence_ends.append(len(text))
        last = self._results[-1][1] if self._results else 0
        if len(text) - last < len(text) // _GROWTH_SHARE:
            return []
        return self._normalize_text()

    def _normalize_text(self) -> list[str]:
        """Normalise the text as it is, after a word, and emit what is settled."""
        text, results = self._text, self._results
        results.append((len(self._ends), len(text), self._words(text)))
        settled_end = len(self._ends) - LOOKAHEAD_WORDS
        if results[0][0] > settled_end:
            return []
        while results[1][0] <= settled_end:
            results.popleft()
        spoken = [words for _, _, words in results]
        opened = _OPEN.search(text, max(len(text) - _OPEN_CHARACTERS, 0))
        if opened:
            spoken.append(self._words(text[: opened.start()]))
        emitted = self._emit(spoken[0][: _common(spoken)])
        if len(text) >= self._next_cut:
            emitted += self._cut()
        return emitted

    def _words(self, text: str) -> list[str]:
        return normalized_words(text, self._line_start)

    def _line_until(self, place: int) -> str:
        """The start of the line that goes on at a place."""
        before = self._text[:place]
        line = _LINE_END_MARKS.split(before)[-1]
        is_first = len(line) == len(before)
        return ((self._line_start if is_first else "") + line)[:_LINE_CHARACTERS]

    def _close(self) -> list[str]:
        """Emit all that is left of the text, and forget it."""
        emitted = self._emit(self._words(self._text))
        self._begin()
        return emitted

    def _emit(self, words: list[str]) -> list[str]:
        emitted = words[self._num_emitted :]
        self._num_emitted = max(self._num_emitted, len(words))
        if emitted and self._pending_break:
            self._pending_break = False
            return [PARAGRAPH, *emitted]
        return emitted

    def _cut(self) -> list[str]:
        """Forget what is settled, where all that follows is spoken the same without it."""
        length, last = len(self._text), self._results[0][1]
        places = [end for end in self._sentence_ends if end <= last][-_MAX_TRIES:]
        if length >= _ENDLESS_CHARACTERS:
            latest = min(last, length - _CONTEXT_CHARACTERS)
            places = [end for end in self._ends if end <= latest][-_MAX_TRIES:] + places
        for place in reversed(places):
            if self._cut_at(place):
                return []
        if length < _MOST_CHARACTERS:
            self._next_cut = length + length // 4
            return []
        rest, line_start = self._text[last:], self._line_until(last)
        emitted = self._emit(self._results[0][2])
        self._begin()
        self._line_start = line_start
        return emitted + self.feed(rest) + self._word_ended()

    def _cut_at(self, place: int) -> bool:
        """Forget the text before `place`, if that changes none of the results."""
        count = len(self._words(self._text[:place]))
        if count > self._num_emitted:
            return False
        shorter = []
        line_start = self._line_until(place)
        is_break = all(words[count : count + 1] == [PARAGRAPH] for _, _, words in self._results)
        count += is_break
        for _, end, words in self._results:
            own = normalized_words(self._text[place:end], line_start)
            shorter.append(own)
            if own != words[count:]:
                return False
        num_words = self._ends.index(place) + 1
        self._text, self._line_start = self._text[place:], line_start
        if count > self._num_emitted:  # the break is all that has not been emitted
            self._pending_break = True
        self._num_emitted = max(self._num_emitted - count, 0)
        self._results = deque(
            (number - num_words, end - place, own)
            for (number, end, _), own in zip(self._results, shorter, strict=True)
        )
        self._ends = [end - place for end in self._ends[num_words:]]
        self._sentence_ends = [end - place for end in self._sentence_ends if end > place]
        self._next_cut = _LONG_CHARACTERS
        return True


def normalized_words(text: str, line_start: str = "") -> list[str]:
    """The spoken words of a whole text, with `PARAGRAPH` between paragraphs."""
    words: list[str] = []
    for paragraph in normalize_paragraphs(text, line_start=line_start):
        if words:
            words.append(PARAGRAPH)
        words += paragraph.split()
    return words


def _common(lists: list[list[str]]) -> int:
    """Length of the longest common start."""
    shortest = min(map(len, lists))
    for index in range(shortest):
        if any(words[index] != lists[0][index] for words in lists):
            return index
    return shortest
