"""Normalisation of text that is still being written: words come out as soon as they are settled."""

from __future__ import annotations

import re
from collections import deque

from tokenlm.text.normalize import normalize_paragraphs

PARAGRAPH = "\n"
"""Stands among the words where a paragraph ends."""

HELD_WORDS = 4
"""A word is settled when so many further words have not changed it."""
_LONG_CHARACTERS = 300
"""From this length on, what is settled is cut off, so that a word costs the same anywhere."""
_OPEN_CHARACTERS = 200
"""A bracket or tag that stays open for longer is none."""

_LINE_END = r"(?:\r\n?+|[\n\u2028\u0085\v\f])"
BLANK_LINE = re.compile(rf"{_LINE_END}[^\S\r\n\u2028\u0085\v\f]*{_LINE_END}|\u2029")
_OPEN = re.compile(r"[\[<](?=[A-Za-z/!])[^\]>]*$")


class IncrementalNormalizer:
    """`normalize_paragraphs` for text in pieces.

    After every word as it is written the text so far is normalised; a spoken word is given out when
    it has stayed the same over the next few. So what comes out depends on the text alone, not on
    how it was cut. It is what the whole text gives, except where a rule looks further than
    that (at a sentence written all in capitals, for instance).
    """

    def __init__(self) -> None:
        self._text = ""
        self._scanned = 0
        """Characters of the text that have been looked at."""
        self._num_given = 0
        """Words of the text that have been given out."""
        self._recent: deque[tuple[int, list[str]]] = deque(maxlen=HELD_WORDS + 1)
        """Where the last words end, and what the text up to there is when spoken."""
        self._ends: list[tuple[int, int]] = []
        """Where sentences end, and the number of spoken words up to there."""
        self._pending_break = False

    def feed(self, piece: str) -> list[str]:
        """The words that the next piece settles, and `PARAGRAPH` where one ends."""
        self._text += piece
        words: list[str] = []
        while self._scanned < len(self._text):
            position = self._scanned
            self._scanned += 1
            if not self._text[position].isspace():
                continue
            if position and not self._text[position - 1].isspace():
                words += self._word_ended(position)
            rest = self._text[: position + 1]
            blank = rest[len(rest.rstrip()) :]
            if BLANK_LINE.search(blank):
                words += self._close(position + 1)
                self._pending_break = True
        return words

    def finish(self) -> list[str]:
        """The words that are left: the text is complete."""
        return self._close(len(self._text))

    def _word_ended(self, position: int) -> list[str]:
        text = self._text[:position]
        self._recent.append((position, _speak(text)))
        if text[-1] in ".?!":
            self._ends.append((position, len(self._recent[-1][1])))
        if len(self._recent) <= HELD_WORDS:
            return []
        spoken = [words for _, words in self._recent]
        opened = _OPEN.search(text, max(len(text) - _OPEN_CHARACTERS, 0))
        if opened:
            spoken.append(_speak(text[: opened.start()]))
        settled = _common(spoken)
        given = self._give(spoken[0][:settled])
        if len(text) > _LONG_CHARACTERS:
            self._cut()
        return given

    def _close(self, position: int) -> list[str]:
        """Gives out all that is left of the text up to `position`, and forgets it."""
        given = self._give(_speak(self._text[:position]))
        self._text = self._text[position:]
        self._scanned = self._num_given = 0
        self._recent.clear()
        self._ends.clear()
        return given

    def _give(self, words: list[str]) -> list[str]:
        given = words[self._num_given :]
        self._num_given = max(self._num_given, len(words))
        if given and self._pending_break:
            self._pending_break = False
            return [PARAGRAPH, *given]
        return given

    def _cut(self) -> None:
        """Forgets whole sentences, where what follows them is spoken the same without them."""
        for position, count in reversed(self._ends):
            if count > self._num_given or position >= self._recent[0][0]:
                continue
            shorter = [
                (end - position, _speak(self._text[position:end])) for end, _ in self._recent
            ]
            if all(
                own == words[count:]
                for (_, own), (_, words) in zip(shorter, self._recent, strict=True)
            ):
                self._text = self._text[position:]
                self._scanned -= position
                self._num_given -= count
                self._recent = deque(shorter, maxlen=HELD_WORDS + 1)
                self._ends = [
                    (end - position, number - count) for end, number in self._ends if end > position
                ]
                return


def _speak(text: str) -> list[str]:
    """The words of a text, with `PARAGRAPH` between paragraphs."""
    words: list[str] = []
    for paragraph in normalize_paragraphs(text):
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
