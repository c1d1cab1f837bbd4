"""Normalisation of text that is still being written: words come out as soon as they are settled."""

from __future__ import annotations

import re
from collections import deque

from tokenlm.text.normalize import LOOKAHEAD_WORDS, normalize_paragraphs
from tokenlm.text.segmentation import PARAGRAPH

PARAGRAPH_END = "\u2029"
"""Ends a paragraph where it stands in a text, as a blank line does, but at once: `PARAGRAPH` does
not wait for the words of the next one."""

_READ_SHARE = 8
"""The text is read again when it has grown by this part of itself: so a letter is read as often,
however long the text is."""
_LONG_CHARACTERS = 256
"""From this length on, whole sentences that are settled are cut off."""
_ENDLESS_CHARACTERS = 384
"""From this length on, a sentence is cut between its words."""
_MOST_CHARACTERS = 768
"""At this length all that was read up to the last few words is settled, come what may."""
_CONTEXT_CHARACTERS = 128
"""Before what comes next, so much stays of a sentence that is cut."""
_MAX_TRIES = 3
"""Places that are tried for a cut; when none will do, the text grows by a quarter before others
are."""
_LONG_WORD, _WORD_PART = 192, 64
"""What goes on for longer without a space is taken as words of so many characters."""
_MOST_BLANKS = 64
"""White space in a row, line ends apart, that is kept."""
_LINE_CHARACTERS = 200
"""Of the start of a line, as much tells what kind of line it is."""
_OPEN_CHARACTERS = 200
"""A bracket or tag that stays open for longer is none."""

_LINE_END = r"(?:\r\n?+|[\n\u2028\u0085\v\f])"
BLANK_LINE = re.compile(rf"{_LINE_END}[^\S\r\n\u2028\u0085\v\f]*{_LINE_END}|\u2029")
_LINE_END_MARKS = re.compile(f"{_LINE_END}|\u2029")
_LINE_ENDS = frozenset("\r\n\u2028\u2029\u0085\v\f")
_OPEN = re.compile(r"[\[<](?=[A-Za-z/!])[^\]>]*+$")
_CLOSING = "\"')]}”’»*_"
"""May stand behind the mark that ends a sentence."""


class IncrementalNormalizer:
    """`normalize_paragraphs` for text in pieces.

    While a text is written, what there is of it is normalised again and again, always behind the
    same words; a spoken word is given out when it has stayed the same over the next few that were
    written. So what comes out depends on the text alone, not on how it was cut. It is what the
    whole text gives, except where a rule looks further than that (at a sentence written all in
    capitals, for instance), and in what has no end: a sentence, a word or a bracket of more than
    some hundred characters.

    The work is linear in the length of the text, and what is held of it is bounded, whatever the
    text is.
    """

    def __init__(self) -> None:
        self._pending_break = False
        self._begin()

    def _begin(self) -> None:
        self._text = ""
        """What may still matter: all since the last cut."""
        self._line_start = ""
        """What was cut off of its first line."""
        self._blank = ""
        """The white space that it ends with."""
        self._word_length = 0
        """Characters of the word that it ends with."""
        self._num_given = 0
        """Words of the text that have been given out."""
        self._ends: list[int] = []
        """Where words end."""
        self._sentence_ends: list[int] = []
        """Where sentences or lines end, among these."""
        self._readings: deque[tuple[int, int, list[str]]] = deque()
        """Where the text was read last: number of words, of characters, and what they are when
        spoken. The first of them is `LOOKAHEAD_WORDS` words ago, or more."""
        self._next_cut = _LONG_CHARACTERS
        """Length from which on a cut is tried."""

    def feed(self, piece: str) -> list[str]:
        """The words that the next piece settles, and `PARAGRAPH` where one ends."""
        words: list[str] = []
        for character in piece:
            if character.isspace():
                if self._word_length:
                    words += self._word_ended()
                words += self._take_blank(character)
                continue
            if self._word_length >= _LONG_WORD and self._word_length % _WORD_PART == 0:
                words += self._word_ended(is_part=True)
            self._text += character
            self._word_length += 1
            self._blank = ""
        return words

    def finish(self) -> list[str]:
        """The words that are left: the text is complete."""
        return self._close()

    def _take_blank(self, character: str) -> list[str]:
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
        last = self._readings[-1][1] if self._readings else 0
        if len(text) - last < len(text) // _READ_SHARE:
            return []
        return self._read()

    def _read(self) -> list[str]:
        """Normalises the text as it is, after a word, and gives out what is settled."""
        text, readings = self._text, self._readings
        readings.append((len(self._ends), len(text), self._speak(text)))
        settled_end = len(self._ends) - LOOKAHEAD_WORDS
        if readings[0][0] > settled_end:
            return []
        while readings[1][0] <= settled_end:
            readings.popleft()
        spoken = [words for _, _, words in readings]
        opened = _OPEN.search(text, max(len(text) - _OPEN_CHARACTERS, 0))
        if opened:
            spoken.append(self._speak(text[: opened.start()]))
        given = self._give(spoken[0][: _common(spoken)])
        if len(text) >= self._next_cut:
            given += self._cut()
        return given

    def _speak(self, text: str) -> list[str]:
        return _speak(text, self._line_start)

    def _line_until(self, place: int) -> str:
        """The start of the line that goes on at a place."""
        before = self._text[:place]
        line = _LINE_END_MARKS.split(before)[-1]
        is_first = len(line) == len(before)
        return ((self._line_start if is_first else "") + line)[:_LINE_CHARACTERS]

    def _close(self) -> list[str]:
        """Gives out all that is left of the text, and forgets it."""
        given = self._give(self._speak(self._text))
        self._begin()
        return given

    def _give(self, words: list[str]) -> list[str]:
        given = words[self._num_given :]
        self._num_given = max(self._num_given, len(words))
        if given and self._pending_break:
            self._pending_break = False
            return [PARAGRAPH, *given]
        return given

    def _cut(self) -> list[str]:
        """Forgets what is settled, where all that follows is spoken the same without it."""
        length, last = len(self._text), self._readings[0][1]
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
        given = self._give(self._readings[0][2])
        self._begin()
        self._line_start = line_start
        return given + self.feed(rest) + self._word_ended()

    def _cut_at(self, place: int) -> bool:
        """Forgets the text before `place`, if that changes nothing of what has been read."""
        count = len(self._speak(self._text[:place]))
        if count > self._num_given:
            return False
        shorter = []
        line_start = self._line_until(place)
        is_break = all(words[count : count + 1] == [PARAGRAPH] for _, _, words in self._readings)
        count += is_break
        for _, end, words in self._readings:
            own = _speak(self._text[place:end], line_start)
            shorter.append(own)
            if own != words[count:]:
                return False
        num_words = self._ends.index(place) + 1
        self._text, self._line_start = self._text[place:], line_start
        if count > self._num_given:  # the break is all that has not been given out
            self._pending_break = True
        self._num_given = max(self._num_given - count, 0)
        self._readings = deque(
            (number - num_words, end - place, own)
            for (number, end, _), own in zip(self._readings, shorter, strict=True)
        )
        self._ends = [end - place for end in self._ends[num_words:]]
        self._sentence_ends = [end - place for end in self._sentence_ends if end > place]
        self._next_cut = _LONG_CHARACTERS
        return True


def _speak(text: str, line_start: str) -> list[str]:
    """The words of a text, with `PARAGRAPH` between paragraphs."""
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
