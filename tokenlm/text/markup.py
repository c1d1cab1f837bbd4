"""Markup in a text: pauses in square brackets, and a subset of SSML.

`MarkupReader` reads a text once, whole or in pieces, and gives what it is made of: text to be said,
pauses, styles (voice, rate, volume), and ends of sentences. What stands inside a sentence and only
changes how words are read (`<sub>`, `<say-as>`, `<phoneme>`) comes out as text.

    [pause 0.8s]  [pause 500ms]  <break time="500ms"/>  <break strength="weak"/>
    <voice name="anna">…</voice>  <prosody rate="90%" volume="-6dB">…</prosody>
    <sub alias="…">…</sub>  <say-as interpret-as="characters|date|telephone">…</say-as>
    <phoneme alphabet="ipa|x-cmu" ph="…">…</phoneme>  <p>…</p>  <s>…</s>  <speak>…</speak>

Elements of HTML are left to the front-end, which reads layout from them; any other element is an
error that names its place, as is what is begun and not finished. The elements are those of the
W3C's Speech Synthesis Markup Language 1.1.

What a tag looks like is described here alone: front-ends and lexicons go by `MARKUP` and
`element_pattern`, and the reader says which parts of a text are words.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from tokenlm.text.segmentation import PARAGRAPH_END

MAX_PAUSE_SECONDS = 60.0
"""Longest silence, also of several pauses in a row."""
MIN_VOLUME, MAX_VOLUME = -100.0, 20.0
"""In decibels; the first is silence."""
_MAX_CONTENT = 1000
"""Characters in an element whose content is replaced."""


class MarkupError(ValueError):
    """Markup that cannot be understood; the message names its line and column."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a stretch of text is spoken, besides the settings of its request."""

    voice: str = ""
    """Name of a voice; empty is that of the request."""
    rate: float = 1.0
    """Factor of the speed of the request."""
    volume: float = 0.0
    """Gain in decibels."""


PLAIN = Style()


@dataclass(frozen=True)
class Text:
    """Text to be said, as it was written."""

    text: str


@dataclass(frozen=True)
class Pause:
    """Silence in place of the pause that would be there otherwise."""

    seconds: float


@dataclass(frozen=True)
class SentenceEnd:
    """A sentence ends here, whatever its last mark is."""


Span = Text | Pause | Style | SentenceEnd
"""A part of a text with markup; a `Style` holds for what follows it."""

# --- Names and values ---

_HTML = frozenset(
    "a abbr acronym address area article aside audio b base bdi bdo big blockquote body br button "
    "canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir div "
    "dl dt em embed fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 "
    "head header hgroup hr html i iframe img input ins kbd label legend li link main map mark math "
    "menu meta meter nav nobr noscript object ol optgroup option output param picture pre progress "
    "q rp rt ruby samp script search section select slot small source span strike strong style sub "
    "summary sup svg table tbody td template textarea tfoot th thead time title tr track tt u ul "
    "var video wbr".split()
)
"""Elements that a text copied from a page may have; the front-end drops them."""

_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "break": ("time", "strength"),
    "voice": ("name",),
    "prosody": ("rate", "volume"),
    "sub": ("alias",),
    "say-as": ("interpret-as", "format"),
    "phoneme": ("alphabet", "ph"),
    "p": (),
    "s": (),
    "speak": ("version",),
}
"""Elements of SSML and their attributes."""
_XML_ATTRIBUTE = re.compile(r"xml(?:ns)?(?::.*)?|xsi:.*", re.IGNORECASE)
"""Attributes that any document may have, such as `xml:lang`; they are ignored."""
_REPLACED = ("sub", "say-as", "phoneme")
"""Elements in whose place something else is said."""
SAY_AS = ("characters", "date", "telephone")
"""What `<say-as>` may hold."""
_STRUCTURE = ("p", "s", "speak")
"""Elements that only say where something begins and ends."""
KNOWN_ELEMENTS = tuple(_ATTRIBUTES)

_STRENGTHS = {
    "none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 0.8, "x-strong": 1.2,
}  # fmt: skip
"""Seconds; a break that says nothing is a medium one."""
_RATES = {
    "x-slow": 0.5, "slow": 0.8, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.6,
}  # fmt: skip
_VOLUMES = {
    "silent": MIN_VOLUME, "x-soft": -12.0, "soft": -6.0, "medium": 0.0, "default": 0.0,
    "loud": 4.0, "x-loud": 8.0,
}  # fmt: skip
_SECONDS = re.compile(r"\+?([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})\s*(ms|s)", re.IGNORECASE)
_PERCENT = re.compile(r"([+-]?)([0-9]{1,4}(?:\.[0-9]{0,4})?)%")
_FACTOR = re.compile(r"[0-9]{0,4}(?:\.[0-9]{1,4})?")
_DECIBELS = re.compile(r"([+-]?[0-9]{1,3}(?:\.[0-9]{0,4})?)\s*dB", re.IGNORECASE)


def parse_seconds(text: str) -> float:
    """Seconds of a pause, such as "0.8s" or "500ms".

    Raises:
        ValueError: it is no time, or longer than `MAX_PAUSE_SECONDS`.
    """
    match = _SECONDS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a pause has a length such as 0.8s or 500ms, not {text.strip()!r}.")
    seconds = float(match[1]) / (1000 if match[2].lower() == "ms" else 1)
    if seconds > MAX_PAUSE_SECONDS:
        raise ValueError(f"a pause lasts at most {MAX_PAUSE_SECONDS:g} s, not {seconds:g} s.")
    return seconds


def _parse_rate(text: str) -> float:
    text = text.strip().lower()
    if text in _RATES:
        return _RATES[text]
    if match := _PERCENT.fullmatch(text):
        share = float(match[2]) / 100
        return {"": share, "+": 1 + share, "-": 1 - share}[match[1]]
    if text and _FACTOR.fullmatch(text):
        return float(text)
    raise ValueError(f"rate is one of {', '.join(_RATES)}, or such as 90%, +10%, 0.9, not {text!r}")


def _parse_volume(text: str) -> float:
    text = text.strip()
    if text.lower() in _VOLUMES:
        return _VOLUMES[text.lower()]
    if match := _DECIBELS.fullmatch(text):
        return float(match[1])
    raise ValueError(f"volume is one of {', '.join(_VOLUMES)}, or such as -6dB, not {text!r}")


# --- Reading ---

_NAME = r"[A-Za-z][A-Za-z0-9:-]{0,31}"
_SPOKEN_NAMES = "break|voice|prosody|sub|say-as|phoneme|speak"
"""Elements of SSML whose names, right behind <, are no variable of a formula."""
LINE_NAMES = "p|div|br|h[1-6]|ul|ol|table|blockquote|pre|tr"
"""Elements of HTML that begin a line of their own."""
_KNOWN = rf"(?i:{_SPOKEN_NAMES}|{LINE_NAMES}|li|td|th|img)"
"""Elements that are tags whatever stands behind their names; others have an = in their attributes,
if there are any: `a <b and c> d` is text."""
_MAX_ATTRIBUTES = 1101
"""Characters of the attributes of a tag."""
_VALUES = r"(?:\s[^<>=]{0,100}=[^<>]{0,1000})?\s?"

TAG = (
    rf"<(?P<close>/?)(?={_KNOWN}[\s/>]|{_NAME}{_VALUES}/?>)"
    rf"(?P<name>{_NAME})(?P<rest>(?:\s[^<>]{{0,{_MAX_ATTRIBUTES}}})?)(?P<empty>/?)>"
)
"""Pattern of the tags of elements."""
_DECLARATION = r"<\?xml[^<>]{0,200}\?>|<![A-Za-z][^<>]{0,300}>"
COMMENT = re.compile(r"<!--(?:(?!-->|<!--)[\s\S])*-->")
MARKUP = re.compile(rf"{TAG}|{_DECLARATION}|{COMMENT.pattern}")
"""Tags, declarations and comments."""
OPEN_TAG = (
    rf"<(?:/?(?:{_KNOWN}(?:\s[^<>]{{0,{_MAX_ATTRIBUTES}}})?"
    rf"|{_NAME}(?:\s[^<>=]{{0,100}}(?:=[^<>]{{0,1000}})?)?\s?)?/?"
    r"|\?[^<>]{0,204}|!(?:-|[A-Za-z][^<>]{0,300})?)\Z"
)
"""Pattern of what may become a tag, or begin a comment, when more of the text is there."""
_TAG = re.compile(rf"{TAG}|{_DECLARATION}")
_OPEN_TAG = re.compile(OPEN_TAG)
_UNFINISHED_TAG = re.compile(
    rf"</?(?i:{_SPOKEN_NAMES})(?=[\s/]|\Z)|</{_NAME}(?=\s|\Z)|<\?xml\b|"
    rf"</?{_NAME}(?=\s+[A-Za-z_:][\w:.-]*\s*=\s*[\"'])"
)
"""The beginning of what can only be a tag."""


def element_pattern(names: str, slash: str = "/?") -> str:
    """Pattern of the tags of some elements, whatever their attributes are.

    Args:
        names: pattern of their names, in small letters.
        slash: "" for start tags alone, "/" for end tags alone.
    """
    return rf"<{slash}(?i:{names})(?:\s[^<>]{{0,{_MAX_ATTRIBUTES}}})?/?>"


def picture_text(tag: str) -> str:
    """What stands in place of a picture in a text: the `alt` of its tag, or a space."""
    match = _ALT.search(tag)
    return f" {match['said']} " if match else " "


HIDDEN = "\0"
"""What `hide_markup` puts in the place of a character that parts no words."""


def hide_markup(text: str, is_said: Callable[[int, int], bool]) -> str:
    """A text, character for character, in which markup is hidden from those who read it.

    Args:
        text: as it was written.
        is_said: whether a word that is said stands in the markup from the first place up to the
            second, which is then no markup.

    Returns:
        The text with `HIDDEN` or, where markup parts words, spaces in place of it. Of a picture
        what is said of it stays.
    """

    def hide(match: re.Match[str]) -> str:
        markup = match[0]
        if _ALT.search(markup) and markup[:4].lower() == "<img":
            return _blanked(markup)
        if is_said(match.start(), match.end()):
            return markup
        name = (match.groupdict().get("name") or "break").lower()
        parts = name in ("break", "s", "img") or _LINE_ELEMENT.fullmatch(name)
        return (" " if parts else HIDDEN) * len(markup)

    return _PAUSE.sub(hide, MARKUP.sub(hide, text))


def _blanked(markup: str) -> str:
    """Spaces in place of markup, and in place of a picture what is said of it."""
    alt = _ALT.search(markup) if markup[:4].lower() == "<img" else None
    if alt is None:
        return " " * len(markup)
    start, end = alt.span("said")
    return " " * start + alt["said"] + " " * (len(markup) - end)


_ATTRIBUTE = re.compile(r"\s+([A-Za-z_][\w:.-]*)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_ALT = re.compile(r"\balt=([\"'])(?P<said>(?:(?!\1).)*)\1", re.IGNORECASE)
"""What is said in place of a picture."""
_PAUSE = re.compile(r"\[pause(?:\s{1,8}(?P<length>[^\[\]]{0,30}))?\]", re.IGNORECASE)
_OPEN_PAUSE = re.compile(
    r"\[(?:p(?:a(?:u(?:s(?:e(?:\s{1,8}[^\[\]]{0,31})?)?)?)?)?)?\Z", re.IGNORECASE
)
_UNFINISHED_PAUSE = re.compile(r"\[pause\s{1,8}[-+.]?[0-9][^\[\]]{0,30}(?=\[|\Z)", re.IGNORECASE)
_LOOKS_LIKE_LENGTH = re.compile(r"[-+.]?[0-9]")
_LINE_ELEMENT = re.compile(rf"{LINE_NAMES}|li")
_SPECIAL = re.compile(r"[<\[]")
_MAX_MARKUP = 1200
"""No tag has as many characters."""


@dataclass(frozen=True)
class _Element:
    """An element that has been opened and not been closed."""

    name: str
    attributes: Mapping[str, str]
    place: str
    style: Style
    """That holds again behind it."""


class MarkupReader:
    """Reads the markup of a text, whole or in pieces; how it is cut does not matter."""

    def __init__(
        self,
        *,
        tags: Collection[str] = (),
        keeps_html: bool = True,
        spell: Callable[[str, str], str] | None = None,
        say_as: Callable[[str, str, str], str] | None = None,
        check_style: Callable[[Style], object] | None = None,
    ) -> None:
        """Creates a reader for one text.

        Args:
            tags: what the text tokenizer takes as one token each; those in angle brackets stay.
            keeps_html: whether elements of HTML are left to a front-end that reads layout; else
                they are dropped here.
            spell: gives what stands in a text for the pronunciation `ph` of an `alphabet`; default
                none can be given.
            say_as: gives the text to be said for (content, interpret-as, format); default none can
                be given.
            check_style: raises ValueError for a style that cannot be spoken, or a voice that is
                not there.
        """
        self._tags, self._keeps_html = frozenset(tags), keeps_html
        self._gap = " " if keeps_html else "\n"
        """In place of what is dropped; a line end is no space between characters of scripts that
        have none."""
        self._spell, self._say_as, self._check_style = spell, say_as, check_style
        self._held = ""
        """End of the text so far that may become markup."""
        self._line, self._column = 1, 1
        """Place of its first character."""
        self._open: list[_Element] = []
        self._content: list[str] = []
        """Of the open element that is replaced."""
        self._style = PLAIN
        self._row_seconds = 0.0
        """Pauses since the last text."""
        self._last = ""
        """The last character that was given out."""
        self._spelled: dict[str, str] = {}
        """What stands for a pronunciation, and the words that were written there."""
        self._needs_space = False
        """Whether a word may not follow what was given out last without a space."""
        self._comment_place = ""
        """Place of a comment that goes on; empty outside of comments."""
        self._words: list[str] = []
        """What has been read since `take_words`."""

    def feed(self, piece: str) -> list[Span]:
        """What the next piece settles.

        Raises:
            MarkupError: an element is not known, or not understood.
        """
        return self._read(self._held + piece, is_all=False)

    def finish(self) -> list[Span]:
        """What is left: the text is complete.

        Raises:
            MarkupError: an element has not been closed.
        """
        spans = self._read(self._held, is_all=True)
        self._close_paragraph(spans)
        if self._open:
            last = self._open[-1]
            raise MarkupError(f"{last.place}: <{last.name}> is not closed.")
        return joined_spans(spans)

    def take_words(self) -> str:
        """What has been read since the last call, as it was written, with spaces for markup.

        So a word stands where it stands in the text. Words whose pronunciation or alias is said are
        among them.
        """
        words = "".join(self._words)
        self._words.clear()
        return words

    def as_written(self, text: str) -> str:
        """Text of a span with the words that were written in place of their pronunciations."""
        for spelled, written in self._spelled.items():
            text = text.replace(spelled, written)
        return text

    @property
    def place(self) -> str:
        """Where in the text the reader is, for errors."""
        return f"line {self._line}, column {self._column}"

    def _read(self, text: str, *, is_all: bool) -> list[Span]:
        spans: list[Span] = []
        place = self._skip_comment(text, 0, is_all=is_all) if self._comment_place else 0
        while found := _SPECIAL.search(text, place):
            start = found.start()
            self._add_text(text[place:start], spans)
            is_tag = text[start] == "<"
            if text.startswith("<!--", start):
                self._comment_place = self.place
                self._advance("<!--", is_markup=True)
                place = self._skip_comment(text, start + 4, is_all=is_all)
                if not (self._open and self._open[-1].name in _REPLACED):
                    self._say(self._gap, spans, is_replaced=False)
                continue
            match = (_TAG if is_tag else _PAUSE).match(text, start)
            if match is None and not is_all and len(text) - start < _MAX_MARKUP:
                # A paragraph that ends while a tag is being written has ended too early.
                rest = text[start:].replace(PARAGRAPH_END, "")
                if (_OPEN_TAG if is_tag else _OPEN_PAUSE).match(rest):
                    self._words.append(" " * (len(text) - start - len(rest)))
                    self._held = rest
                    return joined_spans(spans)
            if match is None:
                self._refuse_unfinished(text, start)
                end = start + 1
                self._add_text(text[start:end], spans)
            else:
                end = match.end()
                try:
                    read = self._read_tag if is_tag else self._read_pause
                    if not read(match, spans):
                        self._add_text(match[0], spans)
                    else:
                        self._advance(match[0], is_markup=True)
                except MarkupError:
                    raise
                except ValueError as error:
                    raise MarkupError(f"{self.place}: {error}") from error
            place = end
        if not self._comment_place:
            self._add_text(text[place:], spans)
            self._held = ""
        return joined_spans(spans)

    def _skip_comment(self, text: str, start: int, *, is_all: bool) -> int:
        """Where the text goes on behind a comment, of which all up to `start` has been read.

        What may be the beginning of its end is held.
        """
        end = text.find("-->", start)
        if end >= 0:
            self._advance(text[start : end + 3], is_markup=True)
            self._comment_place = ""
            return end + 3
        if is_all:
            raise MarkupError(f"{self._comment_place}: the comment is not closed: --> is missing.")
        place = max(len(text) - 2, start)
        self._advance(text[start:place], is_markup=True)
        self._held = text[place:]
        return len(text)

    def _refuse_unfinished(self, text: str, start: int) -> None:
        if match := _UNFINISHED_TAG.match(text, start):
            raise MarkupError(f"{self.place}: the tag {match[0]} is not finished: > is missing.")
        if _UNFINISHED_PAUSE.match(text, start):
            raise MarkupError(f"{self.place}: the pause is not finished: ] is missing.")

    def _add_text(self, text: str, spans: list[Span]) -> None:
        """Text that stands in the text; inside an element that is replaced it is its content."""
        if not text:
            return
        if self._open and self._open[-1].name in _REPLACED:
            self._content.append(text)
            if sum(map(len, self._content)) > _MAX_CONTENT:
                last = self._open[-1]
                raise MarkupError(
                    f"{last.place}: <{last.name}> holds more than {_MAX_CONTENT} characters, or is "
                    "not closed."
                )
        else:
            self._say(text, spans, is_replaced=False)
        self._advance(text)

    def _say(self, text: str, spans: list[Span], *, is_replaced: bool) -> None:
        """Gives out text; what is replaced is a word of its own."""
        if not text:
            return
        if (is_replaced and self._last.isalnum()) or self._needs_space:
            if text[0].isalnum():
                text = f" {text}"
        self._last, self._needs_space = text[-1], is_replaced and text[-1].isalnum()
        if not text.isspace():
            self._row_seconds = 0.0
        spans.append(Text(text))

    def _advance(self, text: str, *, is_markup: bool = False) -> None:
        self._words.append(_blanked(text) if is_markup else text)
        num_lines = text.count("\n")
        self._line += num_lines
        behind = text.rpartition("\n")[2]
        self._column = len(behind) + 1 if num_lines else self._column + len(text)

    # -- one piece of markup ---------------------------------------------------------------------

    def _read_pause(self, match: re.Match[str], spans: list[Span]) -> bool:
        """Whether it is a pause: `[pause for effect]` is text."""
        length = match["length"]
        if length is None or not length.strip():
            self._pause(_STRENGTHS["medium"], spans)
            return True
        if not _LOOKS_LIKE_LENGTH.match(length):
            return False
        self._pause(parse_seconds(length), spans)
        return True

    def _pause(self, seconds: float, spans: list[Span]) -> None:
        self._refuse_inside("a pause")
        self._row_seconds += seconds
        if self._row_seconds > MAX_PAUSE_SECONDS:
            raise ValueError(f"pauses in a row last at most {MAX_PAUSE_SECONDS:g} s.")
        self._cut(Pause(seconds), spans)

    def _cut(self, span: Span, spans: list[Span]) -> None:
        self._last, self._needs_space = "", False
        spans.append(span)

    def _refuse_inside(self, what: str) -> None:
        if self._open and self._open[-1].name in _REPLACED:
            raise ValueError(f"{what} cannot stand inside <{self._open[-1].name}>.")

    def _read_tag(self, match: re.Match[str], spans: list[Span]) -> bool:
        """Whether it is markup; what is left to the front-end, or to the tokenizer, is text."""
        name, is_end = match["name"], bool(match["close"])
        if name is None:  # <?xml … ?>
            return True
        rest = match["rest"].rstrip()
        is_empty = bool(match["empty"]) or rest.endswith("/")
        rest = rest.removesuffix("/")
        if match[0] in self._tags:
            return False
        lower = name.lower()
        is_known = lower in _ATTRIBUTES
        if lower == "sub":  # without an alias it is a subscript of HTML
            is_known = any(e.name == "sub" for e in self._open) if is_end else bool(rest.strip())
        if not is_known and lower in _HTML:
            self._add_html(lower, match, spans)
            return True
        if not is_known:
            raise ValueError(
                f"the element <{name}> is not known; there are {', '.join(KNOWN_ELEMENTS)}, and "
                "those of HTML, which are dropped."
            )
        if is_end:
            if rest.strip():
                raise ValueError(f"</{name}> takes no attributes.")
            self._close(lower, spans)
            return True
        # As in HTML, a paragraph has attributes for a page.
        attributes = {} if lower == "p" else _read_attributes(lower, rest)
        if lower == "break":
            self._pause(_break_seconds(attributes), spans)
            return True
        self._refuse_inside(f"<{lower}>")
        self._begin(lower, attributes, spans)
        if is_empty:
            self._close(lower, spans)
        return True

    def _add_html(self, name: str, match: re.Match[str], spans: list[Span]) -> None:
        """Leaves an element of HTML to the front-end, without its attributes, or drops it."""
        if self._open and self._open[-1].name in _REPLACED:
            return
        if name == "img":
            text = picture_text(match[0])
        elif self._keeps_html:
            text = f"<{match['close']}{name}>"
        else:
            text = "\n\n" if _LINE_ELEMENT.fullmatch(name) else self._gap
        self._say(text, spans, is_replaced=False)

    def _begin(self, name: str, attributes: Mapping[str, str], spans: list[Span]) -> None:
        before = self._style
        if name == "p":
            self._close_paragraph(spans)
        if name in _STRUCTURE:
            self._mark(name, spans)
        elif name == "voice":
            if not attributes.get("name", "").strip():
                raise ValueError('<voice> needs a name: <voice name="…">.')
            self._set_style(replace(before, voice=attributes["name"].strip()), spans)
        elif name == "prosody":
            if not attributes:
                raise ValueError("<prosody> needs a rate or a volume.")
            rate = before.rate * _parse_rate(attributes.get("rate", "default"))
            volume = before.volume + _parse_volume(attributes.get("volume", "default"))
            if volume > MAX_VOLUME:
                raise ValueError(f"the volume is at most +{MAX_VOLUME:g}dB, not {volume:+g}dB.")
            volume = max(volume, MIN_VOLUME)
            self._set_style(replace(before, rate=rate, volume=volume), spans)
        else:
            self._replacement(name, attributes, "")
            self._content = []
        self._open.append(_Element(name, attributes, self.place, before))

    def _close(self, name: str, spans: list[Span]) -> None:
        if name == "break":
            return
        if name != "p":
            self._close_paragraph(spans)
        if not self._open:
            raise ValueError(f"</{name}> closes nothing: <{name}> is not open.")
        last = self._open[-1]
        if last.name != name:
            raise ValueError(f"</{name}> stands where <{last.name}> is open, from {last.place} on.")
        self._open.pop()
        if name in _REPLACED:
            content = "".join(self._content)
            said = self._replacement(name, last.attributes, content)
            if name == "phoneme":
                self._spelled[said] = content.strip() or "…"
            self._say(said, spans, is_replaced=True)
        elif name in _STRUCTURE:
            self._mark(name, spans)
        else:
            self._set_style(last.style, spans)

    def _close_paragraph(self, spans: list[Span]) -> None:
        """Ends an open paragraph: as in HTML, its end tag may be left out."""
        if self._open and self._open[-1].name == "p":
            self._open.pop()
            self._mark("p", spans)

    def _mark(self, name: str, spans: list[Span]) -> None:
        """Gives what a paragraph or a sentence begins and ends with."""
        if name == "p":
            self._say("\n\n", spans, is_replaced=False)
        elif name == "s":
            self._cut(SentenceEnd(), spans)

    def _set_style(self, style: Style, spans: list[Span]) -> None:
        if self._check_style is not None:
            self._check_style(style)
        if style != self._style:
            self._style = style
            self._cut(style, spans)

    def _replacement(self, name: str, attributes: Mapping[str, str], content: str) -> str:
        """What is said in place of an element; without content it only checks the attributes."""
        if name == "sub":
            if "alias" not in attributes:
                raise ValueError('<sub> needs what is said: <sub alias="…">.')
            return attributes["alias"]
        if name == "phoneme":
            alphabet = attributes.get("alphabet", "ipa").strip().lower()
            if alphabet not in ("ipa", "x-cmu"):
                raise ValueError(f"the alphabet of <phoneme> is ipa or x-cmu, not {alphabet!r}.")
            if not attributes.get("ph", "").strip():
                raise ValueError('<phoneme> needs a pronunciation: <phoneme ph="…">.')
            if self._spell is None:
                raise ValueError("this bundle takes no pronunciations in a text.")
            return self._spell(attributes["ph"], alphabet)
        kind, form = attributes.get("interpret-as", ""), attributes.get("format", "")
        if kind not in SAY_AS:
            raise ValueError(
                f"<say-as> is told what it holds by interpret-as: {', '.join(SAY_AS)}, not {kind!r}"
            )
        if self._say_as is None:
            raise ValueError("this bundle does not read <say-as>, which is for English.")
        return self._say_as(html.unescape(content), kind, form) if content.strip() else ""


def _read_attributes(name: str, text: str) -> dict[str, str]:
    """Attributes of an element of SSML, by name.

    Raises:
        ValueError: one is not known, or not written as it should be.
    """
    found: dict[str, str] = {}
    place = 0
    for match in _ATTRIBUTE.finditer(text):
        if match.start() != place:
            break
        place = match.end()
        key = match[1]
        if _XML_ATTRIBUTE.fullmatch(key):
            continue
        if key not in _ATTRIBUTES[name]:
            known = " and ".join(_ATTRIBUTES[name]) or "none"
            raise ValueError(f"<{name}> has no attribute {key!r}; it has {known}.")
        if key in found:
            raise ValueError(f"<{name}> has the attribute {key!r} twice.")
        found[key] = html.unescape(match[2] if match[2] is not None else match[3])
    if text[place:].strip():
        raise ValueError(f'the attributes of <{name}> are written as name="value".')
    return found


def _break_seconds(attributes: Mapping[str, str]) -> float:
    if "time" in attributes:
        return parse_seconds(attributes["time"])
    strength = attributes.get("strength", "medium")
    if strength not in _STRENGTHS:
        raise ValueError(f"strength is one of {', '.join(_STRENGTHS)}, not {strength!r}.")
    return _STRENGTHS[strength]


def joined_spans(spans: list[Span]) -> list[Span]:
    """The spans with texts in a row as one."""
    joined: list[Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        if isinstance(span, Text) and isinstance(last, Text):
            joined[-1] = Text(last.text + span.text)
        else:
            joined.append(span)
    return joined
