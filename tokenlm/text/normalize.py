"""Front-ends: text as written to the words that a person says, whole or in pieces.

`normalize` gives lower-case words and the marks , . ? ! ; : and -. A text is folded to a small
alphabet, read line by line (headings, lists, tables, wrapped prose), and each line goes through the
passes of `PASSES`, in this order.

Every pass keeps the stable-prefix property, on which text that arrives in pieces depends: what it
makes of the beginning of a text no longer changes once `LOOKAHEAD_WORDS` further words are known.
`IncrementalNormalizer` emits words of such a text as soon as they are settled.

What a text goes through before it is encoded is the `Frontend` that the text tokenizer asks for:
English is normalised, other text is only split into words.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from rapidfuzz.distance import Levenshtein

from tokenlm.text import calendar, letters, measures, numbers, symbols
from tokenlm.text.markup import OPEN_TAG
from tokenlm.text.segmentation import (
    NORMALIZED,
    OPENING_MARKS,
    PARAGRAPH,
    PARAGRAPH_END,
    RAW,
    RAW_WORD,
    UNSPACED,
    WIDE_MARKS,
    SegmentationRules,
)
from tokenlm.text.symbols import Line, fold_characters, read_layout, warn_of_foreign_words

LOOKAHEAD_WORDS = 4
"""Words behind a word that may change how it is read."""


class Pass(NamedTuple):
    """One step of normalisation: a rewriting of a line."""

    rewrite: Callable[[str], str]
    written: str
    """An example,"""
    result: str
    """and what the pass makes of it."""
    trigger: re.Pattern[str] | None = None
    """A line in which it is not found is left as it is."""

    def __call__(self, text: str) -> str:
        """Rewrite a line."""
        return self.rewrite(text) if self.trigger is None or self.trigger.search(text) else text


_DIGIT = numbers.DIGIT

# The order is the grammar: a pass may count on everything above it being words already (a number
# with a unit is gone before bare numbers are read), and case is kept until acronyms, names and
# Roman numerals have been told apart by it.
PASSES: tuple[Pass, ...] = (
    Pass(letters.lower_shouting, "LOOK OUT BELOW!", "look out below!"),
    Pass(numbers.join_groups, "1.234.567,8", "1,234,567.8", _DIGIT),
    Pass(symbols.expand_web, "see a.com", "see a dot com"),
    Pass(letters.expand_verses, "Gen. 1:2", "Genesis one two", _DIGIT),
    Pass(calendar.expand_dates, "May 5, 2024", "may fifth, twenty twenty four"),
    Pass(calendar.expand_times, "at 9:30 am", "at nine thirty a m", _DIGIT),
    Pass(letters.expand_codes, "call 911", "call nine one one", _DIGIT),
    Pass(measures.expand_signs, "it is -5", "it is minus 5"),
    Pass(measures.expand_money, "cost $3", "cost  three dollars"),
    Pass(letters.expand_abbreviations, "Dr. Lee", "doctor Lee"),
    Pass(measures.expand_units, "5 km", "five kilometers"),
    Pass(numbers.expand_ordinals, "the 22nd", "the twenty second", _DIGIT),
    Pass(measures.expand_formulas, "1/2", "one half"),
    Pass(letters.expand_roman, "Henry VIII", "Henry the eighth"),
    Pass(symbols.expand_symbols, "you & me", "you and me"),
    Pass(numbers.expand_ranges, "3-4", "three to 4"),
    Pass(symbols.shape_pauses, "so (it is)", "so , it is, "),
    Pass(letters.expand_acronyms, "FBI", "f b i"),
    Pass(numbers.expand_numbers, "12 of us", " twelve  of us"),
    Pass(symbols.settle, "Twenty-one , we said..", "twenty one, we said."),
)


def normalize_paragraphs(text: str, *, line_start: str = "") -> list[str]:
    """Normalise a text paragraph by paragraph; blank lines and headings separate them.

    Args:
        text: any string.
        line_start: for a text that is the rest of a longer one, what stands before it in its first
            line. It is not read; it tells what kind of line that is, and how long.

    Returns:
        The paragraphs as `normalize` gives them; those without anything to say are left out.
        Joined by newlines they are what `segment` takes for a text with paragraphs.
    """
    layout = read_layout(fold_characters(text), fold_characters(line_start))
    spoken = (_normalize_lines(lines) for lines in layout)
    return [part for part in spoken if part]


def normalize(text: str) -> str:
    """Turn written English into what a person says.

    Words of other scripts are left out; the logger of `tokenlm.text.symbols` warns of them.

    Args:
        text: any string, of any script; never an error.

    Returns:
        Lower-case words of a-z and apostrophes, single spaces, and of marks only , . ? ! ; : and
        a hyphen inside words. '' when there is nothing to say.

    Example:
        >>> normalize("Dr. Smith paid $3.50 on May 5, 2024.")
        'doctor smith paid three dollars and fifty cents on may fifth, twenty twenty four.'
    """
    warn_of_foreign_words(text)
    paragraphs = normalize_paragraphs(text)
    # A blank line ends a sentence: a heading does not run into the text below it.
    closed = [part if part[-1] in ".?!" else f"{part.rstrip(',;:-')}." for part in paragraphs[:-1]]
    return " ".join([*closed, *paragraphs[-1:]])


def _normalize_lines(lines: Sequence[Line]) -> str:
    """The lines of a paragraph in one, each closed as a sentence or with its own mark."""
    said = [(spoken, line.end) for line in lines if (spoken := _normalize_line(line.text))]
    last = len(said) - 1
    for number, (spoken, end) in enumerate(said):
        mark = end or "." if number < last else end.strip(",")
        said[number] = (spoken if spoken[-1] in ".?!;:" else spoken + mark, end)
    return " ".join(spoken for spoken, _ in said)


def _normalize_line(text: str) -> str:
    for rewrite in PASSES:
        text = rewrite(text)
    return text


# --- English in pieces ---

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
_OPEN = re.compile(rf"\[(?=[A-Za-z/!])[^\]>]*+$|{OPEN_TAG}|<!--(?:(?!-->)[\s\S])*\Z")
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


# --- What `<say-as>` holds, in English words ---

_DIGITS = "zero one two three four five six seven eight nine".split()
_SIGNS = {
    ".": "dot", "/": "slash", "\\": "backslash", ":": "colon", ";": "semicolon", ",": "comma",
    "?": "question mark", "!": "exclamation mark", "_": "underscore", "=": "equals", "&": "and",
    "#": "hash", "%": "percent", "~": "tilde", "+": "plus", "-": "dash", "@": "at", "*": "star",
    "'": "apostrophe", '"': "quote", "(": "open bracket", ")": "close bracket", "<": "less than",
    ">": "greater than", "$": "dollar", "€": "euro", "£": "pound", "[": "open square bracket",
    "]": "close square bracket", "{": "open brace", "}": "close brace", "|": "bar", "^": "caret",
    "°": "degrees", "`": "backtick",
}  # fmt: skip
_GROUPS = re.compile(r"[0-9]+|[A-Za-z]+|\+")
_DATE_PARTS = re.compile(r"[0-9]+|[A-Za-z]+")
_ORDINAL = re.compile(r"(?<=[0-9])(?:st|nd|rd|th)\b")
_DATE_FORMATS = ("mdy", "dmy", "ymd", "md", "dm", "ym", "my", "y")


def english_say_as(content: str, kind: str, form: str) -> str:
    """Text to be said for the content of `<say-as>`.

    Args:
        content: as it was written.
        kind: one of `SAY_AS`.
        form: format of a date (`mdy`, `dmy`, `ymd`, `md`, `dm`, `ym`, `my`, `y`); empty is `ymd`
            where the year stands first, else `mdy`.

    Raises:
        ValueError: it is no date in this format, or holds nothing that can be said.
    """
    content = content.strip()
    if kind == "date":
        return _date(content, form)
    said = _characters(content) if kind == "characters" else _telephone(content)
    if not said:
        raise ValueError(f"nothing of {content!r} can be said as {kind}.")
    return said


def _characters(content: str) -> str:
    """Letter by letter; a comma where there is white space."""
    groups = []
    for group in content.split():
        names = [_DIGITS[int(c)] if c in "0123456789" else _SIGNS.get(c, c.lower()) for c in group]
        groups.append(" ".join(names))
    return ", ".join(groups)


def _telephone(content: str) -> str:
    """Digit by digit, with a comma between groups; words in it are read as words."""
    groups = []
    for group in _GROUPS.findall(content):
        if group == "+":
            groups.append("plus")
        elif group.isdigit():
            said = " ".join(_DIGITS[int(digit)] for digit in group)
            groups[-1:] = [f"plus {said}"] if groups[-1:] == ["plus"] else [*groups[-1:], said]
        elif group.lower() in ("ext", "x"):
            groups.append("extension")
        else:
            groups.append(group.lower())
    return ", ".join(groups)


def _date(content: str, form: str) -> str:
    """A date in words: "may third, twenty twenty four"."""
    parts = _DATE_PARTS.findall(_ORDINAL.sub("", content))
    if not form and len(parts) == 3:
        form = "ymd" if len(parts[0]) == 4 else "mdy"
    form = form.lower() or ("y" if len(parts) == 1 else "md")
    if form not in _DATE_FORMATS:
        raise ValueError(f"the format of a date is one of {', '.join(_DATE_FORMATS)}, not {form!r}")
    found = dict(zip(form, parts, strict=False))
    day, year = found.get("d", "1"), found.get("y", "2000")
    month = _month(found.get("m", "1"))
    is_date = day.isdigit() and 1 <= int(day) <= 31 and year.isdigit() and len(year) in (2, 4)
    if month is None or not is_date or len(parts) != len(form):
        raise ValueError(f"{content!r} is no date in the format {form}.")
    number = int(year)
    if len(year) == 2:
        number += 2000 if number < 50 else 1900
    said = {"m": month, "d": numbers.ordinal(int(day)), "y": numbers.year(number)}
    first = " ".join(said[part] for part in "md" if part in found)
    separator = ", " if "d" in found else " "
    return separator.join([*filter(None, [first]), *([said["y"]] if "y" in found else [])])


def _month(written: str) -> str | None:
    """Name of a month by its number or the beginning of its name."""
    if written.isdigit():
        return calendar.MONTHS[int(written) - 1] if 1 <= int(written) <= 12 else None
    named = [name for name in calendar.MONTHS if name.lower().startswith(written.lower())]
    return named[0] if len(written) >= 3 and len(named) == 1 else None


# --- Front-ends: English, and raw text ---

NormalizerName = Literal["english", "none"]


class IncrementalReader(Protocol):
    """Reads a text that arrives in pieces."""

    def feed(self, piece: str) -> list[str]:
        """Return the words that the next piece settles, and `PARAGRAPH` where one ends."""
        ...

    def finish(self) -> list[str]:
        """Return the words that are left: the text is complete."""
        ...


@dataclass(frozen=True)
class Frontend:
    """The ways from a text to words and segments."""

    rules: SegmentationRules
    """How its words are joined and cut into segments."""
    reader: Callable[[], IncrementalReader]
    """Makes a reader for a text in pieces."""
    words: Callable[[str], list[str]]
    """Words of a whole text, with `PARAGRAPH` between paragraphs."""
    normalize: Callable[[str], str]
    """A whole text in one line; '' where nothing can be said."""
    drops_foreign_words: bool
    """Whether words of scripts that it does not read are left out."""
    reads_html: bool
    """Whether elements of HTML are layout to it; else they are text."""
    say_as: Callable[[str, str, str], str] | None
    """Gives the text to be said for the content of `<say-as>`, what it is, and its format; None
    where it reads no language."""


def frontend(normalizer: NormalizerName) -> Frontend:
    """The front-end of a name; every name that a config may have is known."""
    return _FRONTENDS[normalizer]


_UNSPACED = re.compile(f"[{UNSPACED}]")
_WIDE_MARK = re.compile(f"[{WIDE_MARKS}]")
_BLANKS = re.compile(r"[^\S\r\n\u2028\u0085\v\f]+")


class RawReader:
    """Words of a raw text that arrives in pieces, and `PARAGRAPH` where a blank line stands.

    Letters, digits, marks and tags (`[breath]`) stay as they are. White space becomes one space,
    and a line end between two characters of a script without spaces nothing; control characters
    are left out. What comes out does not depend on how the text is cut, and the work is linear in
    its length, even for a single word without end.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._last = ""
        """The last word that was given out; '' before the first."""
        self._word: list[str] = []
        """Pieces of the word that may go on or be followed by a mark."""
        self._space = ""
        """White space before it."""
        self._stem = ""
        """A short word that goes on as this one does: it is read again in its place."""
        self._blank = ""
        """White space behind it."""

    def feed(self, piece: str) -> list[str]:
        """Return the words that the next piece completes."""
        words: list[str] = []
        *ended, rest = piece.split(PARAGRAPH_END)
        for part in ended:
            words += [*self._feed(part), *self.finish()]
            if self._last:
                words.append(PARAGRAPH)
            self._begin()
        return words + self._feed(rest)

    def finish(self) -> list[str]:
        """Return the words that are left: the text is complete."""
        words = self._place(self._space, "".join(self._word)) if self._word else []
        self._word, self._stem = [], ""
        return words

    def _feed(self, piece: str) -> list[str]:
        text = f"{self._stem}{self._blank}" + "".join(
            c for c in piece if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf")
        )
        found = list(RAW_WORD.finditer(text.rstrip()))
        self._blank = _shorten(text[found[-1].end() if found else 0 :])
        if not found:
            return []
        words: list[str] = []
        start = 1 if self._stem else 0
        if start:  # the first is the word that may go on
            self._word.append(found[0][2][len(self._stem) :])
        if len(found) > start:
            words += self.finish()
            for match in found[start:-1]:
                words += self._place(match[1], match[2])
            self._space, self._word = found[-1][1], [found[-1][2]]
        self._stem = _stem(found[-1][2])
        return words

    def _place(self, space: str, word: str) -> list[str]:
        """A complete word, with what stands for the white space before it."""
        last, self._last = self._last, word
        if not last or not space:
            return [word]
        if BLANK_LINE.search(space):
            return [PARAGRAPH, word]
        is_inside = bool(_UNSPACED.search(last) and _UNSPACED.search(word))
        is_line_end = "\n" in space or "\r" in space
        return [word if is_inside and is_line_end else " " + word]


def _stem(word: str) -> str:
    """A word of at most two characters that may be followed by the same as this one.

    That depends on its first character behind opening marks, and on whether a wide mark has come.
    """
    core = word.lstrip(OPENING_MARKS)
    if not core:
        return word[:1]
    mark = _WIDE_MARK.search(core, 1)
    return core[0] + (mark.group() if mark else "")


def _shorten(space: str) -> str:
    """White space that means the same: a blank line, or a line end among single spaces."""
    if not space:
        return ""
    return "\n\n" if BLANK_LINE.search(space) else _BLANKS.sub(" ", space)


def _raw_words(text: str) -> list[str]:
    reader = RawReader()
    return reader.feed(text) + reader.finish()


def _raw_line(text: str) -> str:
    line = "".join(" " if word == PARAGRAPH else word for word in _raw_words(text))
    return line if any(map(str.isalnum, line)) else ""


_FRONTENDS: dict[NormalizerName, Frontend] = {
    "english": Frontend(
        rules=NORMALIZED,
        reader=IncrementalNormalizer,
        words=normalized_words,
        normalize=normalize,
        drops_foreign_words=True,
        reads_html=True,
        say_as=english_say_as,
    ),
    "none": Frontend(
        rules=RAW,
        reader=RawReader,
        words=_raw_words,
        normalize=_raw_line,
        drops_foreign_words=False,
        reads_html=False,
        say_as=None,
    ),
}


# --- Which written word each spoken word stands for ---
#
# Normalisation rewrites a text in many passes, and no pass says where its words come from: "1,250"
# is one written word and becomes four spoken ones. So the two are aligned afterwards. Most words
# are found at once, as they are read the same alone and in their text; the others are aligned by
# their letters, within a window.

_DASHES = "—–…"
_SPACED_WORD = re.compile(rf"()([^\s{_DASHES}]+[{_DASHES}]*|[{_DASHES}]+)")
"""A written word of a normalised text; a long dash parts words, too. Groups as in `RAW_WORD`."""
_NO_LETTER = re.compile(r"\W+")
_MARKS = ",.?!;:"
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
        respell: Callable[[str], str] | None = None,
        unspell: Callable[[str], str] = str,
    ) -> None:
        """Creates it for an empty text.

        Args:
            text_frontend: what the text goes through.
            respell: how a text is written before the front-end reads it, with a lexicon.
            unspell: puts the words of elements with pronunciations in the place of what stands for
                them.
        """
        self._unspell = unspell
        self._respell = respell
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
        """Appends the next piece of the written text, in which spaces stand for its markup."""
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
        found = list(self._pattern.finditer(self._rest))
        if found and not self._is_complete and found[-1].end() == len(self._rest):
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
