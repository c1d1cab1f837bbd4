"""Text as it is laid out on a page to lines as they are read: headings, lists, tables, verse.

What is written for the eye only goes: tags, Markdown marks, rules, emoticons. A line break is
either a wrap, where a paragraph is broken to a width, or the end of a line that stands alone. Which
of the two, is told by the line itself and the first words of the next one, so that a text that is
still being written need not wait for more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from tokenlm.text.roman import roman_value

WRAP_CHARACTERS = 60
"""Prose is wrapped at no less: a line that had room for the next word up to here was ended."""
_NARROW_CHARACTERS = 35
"""From this length on, a line that goes on in lower case is wrapped prose."""
_WIDEST_CHARACTERS = 120
"""Prose is wrapped at no more: a longer line is a paragraph of its own."""
_TAIL = 40
"""Characters at the end of a line that tell how it ends."""

_TAG = re.compile(
    r"</?[A-Za-z][A-Za-z0-9]{0,15}(?:\s[^<>=]{1,100}=[^<>]{0,300})?\s?/?>|<!--[^<>]{0,300}-->"
)
_LINE_TAG = re.compile(
    r"</?(?:p|div|br|h[1-6]|ul|ol|table|blockquote|pre)(?:\s[^<>]{0,300})?/?>|</?tr[^<>]{0,300}>",
    re.IGNORECASE,
)
_ITEM_TAG = re.compile(r"\s*<li(?:\s[^<>]{0,300})?>\s*|</li>", re.IGNORECASE)
_CELL_TAG = re.compile(r"\s*<t[dh](?:\s[^<>]{0,300})?>", re.IGNORECASE)
_IMAGE_TAG = re.compile(
    r"<img\s[^<>]{0,300}?\balt=(?:\"([^\"<>]{0,300})\"|'([^'<>]{0,300})')[^<>]{0,300}>",
    re.IGNORECASE,
)
_LINK_TARGET = (
    r"(?:\((?:<[^<>\n]{0,300}>|[^()\s]{0,300}(?:\([^()\s]{0,100}\)[^()\s]{0,100})?)"
    r"(?:\s+(?:\"[^\"\n]{0,300}\"|'[^'\n]{0,300}'))?\)|\[[^\[\]\n]{0,100}\])"
)
_PICTURE = re.compile(rf"!\[([^\[\]]{{0,300}})\]{_LINK_TARGET}")
_LINK = re.compile(rf"(?<![\w!\]])\[([^\[\]]{{0,300}})\]{_LINK_TARGET}")
_REFERENCE = re.compile(
    r"[ ]?\[(?!\^)[^\[\]\n]{1,100}\]:[ ]?<?(?:[a-z]{2,10}:/?/?|www\.|\.{0,2}/|#)[^\s<>]{1,300}>?"
    r"(?:[ ]?(?:\"[^\"]{0,300}\"|'[^']{0,300}'|\([^()]{0,300}\)))?[ ]?"
)
_FOOTNOTE = re.compile(r"\[\^[^\[\]\s]{1,50}\]:?")
_ESCAPED = re.compile(r"(?<![\w:\\])\\(?=[*_#~`>|+-])|(?<=[0-9])\\(?=[.)])")
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9*])\*{1,3}(?=[^\s*])|(?<=[^\s*])\*{1,3}(?![A-Za-z0-9*])")
_UNDERSCORES = re.compile(
    r"(?<![\w/\\.@-])(_{1,3})(?=[^\s_])([^_\n]{1,300}?)(?<=\S)\1(?![\w/])", re.ASCII
)
_STRIKE = re.compile(r"~~|(?<!\S)==(?=[^\s=])|(?<=[^\s=])==(?!\S)")
_CODE = re.compile(r"`+")
_EMOTICON = re.compile(
    r"(?<!\S)(?:[:;=][-'^]?[()\[\]DPpOo3|/\\*]{1,3}|[xX]D+|<3(?! ?%| (?:ms|seconds?|secs?|minutes?|"
    r"mins?|hours?|hrs?|days?|weeks?|months?|years?|km|kg|cm|mm|m|g|miles?|percent|times|points?|"
    r"people)\b)|</3|\^_\^|-_-|[oO]_[oO]|T_T|"
    r"\(:|\):|:'\()(?![^\s.,!?])"
)

_QUOTE = re.compile(r"(?:[ ]?>){1,9}(?!=|[ ]?[-.]?[$£€0-9](?![0-9]{0,2}[.)] ))[ ]?")
_FENCE = re.compile(r"[ ]*(?:`{3,}[^`]*|~{3,}[^~`]*)")
_RULE = re.compile(r"[ ]*(?:(?:[-*_=~#–—•][ ]?){3,200}|={2,200}|-{2,200})[ ]?")
_BORDER = re.compile(r"(?=[^|+]*[|+])(?=[^-=]*[-=])[ |+:=-]+")
_HEADING = re.compile(r"[ ]?#{1,6}[ ]+(.*?)[ ]*#*[ ]*")
_BULLET = re.compile(r"[ ]*(?:[-*+–—][ ]+|•[ •]*)(?:\[[ xX]\][ ]+)?(?=\S)")
_NUMBER = re.compile(
    r"[ ]*(?:(?P<digits>[0-9]{1,3})(?P<mark>[.)])|\((?P<inner>[1-9][0-9]?|[a-z]|[ivx]{2,5})\)|"
    r"(?P<letter>[a-z]|[ivx]{2,5})(?P<after>[.)])(?! ?[0-9])|(?P<capital>[IVX]{2,6}|"
    r"I(?!\. ?[A-Z]\.))\.|"
    r"(?P<option>[A-Z])\)|(?P<choice>[A-F])\.(?! ?[A-Z]\.))(?:[ ]+(?:\[[ xX]\][ ]+)?|$)"
)
_CHOICE = re.compile(r"[A-F]\.")
_CELL = re.compile(r"[ ]*(?<!\\)\|[ ]*")
_SPACED_BAR = re.compile(r"\S \| \S")
_LABEL = re.compile(r"[A-Z][A-Za-z.'-]{0,30}(?: [A-Z][A-Za-z.'-]{0,30}){0,2}:(?=\s|$)")
_CLOSED = re.compile(r"[.?!][\"')\]*_]*$")
_ENDS_CLOSED = re.compile(r"[.?!;:][\"')\]*_]*$")
_PAUSES = re.compile(r"(?:,|—|–| -)[\"'*_]*$")
_JOINING = re.compile(r"[,;] (?:and|or)$")
_HYPHENATED = re.compile(r"(?<![A-Za-z])([A-Za-z]{1,30})-$")
_FIRST_LETTERS = re.compile(r"[a-z]+")

_OPEN_WORDS = frozenset(
    "the a an of and or nor my your his its our their whose because than into onto upon between "
    "during Mr. Mrs. Ms. Dr. Prof. vs. e.g. i.e. cf.".split()
)
"""Words that end no line: what stands below goes on with them, whatever it is."""
_OPEN_TO_LOWER_CASE = frozenset(
    "to for from at with as is are was were be been has have had will would can could should may "
    "might must that which who if this these those not many some several few more most other "
    "another such each every any no all both much very too so quite rather only also just even "
    "still never always already i we they he she".split()
)
"""The same, if what stands below begins in lower case."""
_GOES_ON_WITH = frozenset(
    "and or but nor of to in on at by for with from as than that which who whose whom is are was "
    "were be been has have had will would can could should the a an if because when while where "
    "into onto upon over under between through during before after about without within so then "
    "it he she they we you his her their its our your this these those not".split()
)
"""Words that, in lower case, begin no line that stands alone."""
_ASKS_FOR_NUMBER = frozenset(
    "page pages chapter chapters section sections part number figure table step item line room "
    "version volume verse level grade age about around nearly almost over under until till by in "
    "on at to for from before after since only exactly least most was is are were".split()
)
_FIRST_PARTS = frozenset(
    "well self non long short high low half full part ex all cross hard soft old new real open "
    "close free first second third last best good ill much ever never great far near wide deep "
    "cold hot large small large life time day year week month hour minute world state left right "
    "north south east west one two three four five six seven eight nine ten twenty thirty forty "
    "fifty sixty seventy eighty ninety hundred single double triple semi anti post mother father "
    "sister brother son daughter check decision data user blue red green black white dark bright "
    "command client server machine voice text speech".split()
)
"""First parts of words that are written with a hyphen: one at the end of a line stays."""
_SUFFIXES = (
    "ing ings ed er ers est ly ness ment ments hood ship less able ible ful fully ity ies tion "
    "tions ning ner ners ting ter ters ded der ders ren ry ty al ally ism ist ists ize ized"
).split()
"""What goes on with one of these is one word that was parted all the same."""

End = Literal["", ",", "."]
"""What closes a line that has no mark of its own; '' where that is due only if another follows."""


@dataclass(frozen=True)
class Line:
    """What is read in one go: a line, an item, its number, or a cell."""

    text: str
    """Without marks of layout; with those of English."""
    end: End
    """What to close it with, where nothing does."""


@dataclass(frozen=True)
class _Written:
    """A line as it stands on the page."""

    kind: Literal["plain", "item", "row", "heading", "border", "blank"]
    text: str = ""
    length: int = 0
    """Characters on the page."""
    depth: int = 0
    """How often it is quoted."""
    is_indented: bool = False
    is_whole_row: bool = False
    """Whether a bar stands before the first cell."""
    number: tuple[Line, ...] = ()
    """Of an item that has one: how it is read, and the line in case it is none."""


def read_layout(text: str, line_start: str = "") -> list[list[Line]]:
    """Read folded text as paragraphs of lines.

    Blank lines, headings and rules part paragraphs. List items and table rows end as sentences, the
    cells of a row are parted by commas. Code is read like other text, its fences are not. A picture
    is its alternative text, a link its words.

    Args:
        text: what `fold_characters` gives.
        line_start: of a text that is the rest of a longer one, what stands before it in its first
            line, likewise folded.
    """
    text, line_start = _drop_tags(text), _drop_tags(line_start).rpartition("\n")[2]
    paragraphs: list[list[Line]] = [[]]
    current: _Written | None = None
    """The item or the paragraph of prose that may go on, all its lines joined."""
    above: _Written | None = None
    """The last line of it."""
    are_choices = False
    """Whether "A. Paris" would be an answer to choose: a question or another one is above."""

    def end_line() -> None:
        nonlocal current, above
        if current is not None:
            paragraphs[-1] += _lines(current)
        current = above = None

    def end_paragraph() -> None:
        end_line()
        if paragraphs[-1]:
            paragraphs.append([])

    for written in _written_lines(text, line_start):
        is_choice = bool(written.number and _CHOICE.match(written.number[1].text))
        if (is_choice and not are_choices) or (
            written.number and above is not None and _is_no_item(above, written)
        ):
            written = replace(written, kind="plain", text=written.number[1].text, number=())
        ends_asking = (written.text or line_start)[-1:] == "?"
        are_choices = written.kind != "blank" and (
            (is_choice and are_choices) or ends_asking or bool(_CHOICE.match(line_start))
        )
        line_start = ""
        if written.kind == "blank":
            end_paragraph()
        elif written.kind == "heading":
            end_paragraph()
            paragraphs[-1].append(Line(_drop_marks(written.text), ""))
            end_paragraph()
        elif written.kind == "plain" and current and above and _is_wrapped(above, written):
            current = replace(current, text=_join(current.text, written.text))
            above = written
        else:
            end_line()
            if written.kind != "border":
                current = above = written
            if written.kind == "row":
                end_line()
    end_line()
    return [paragraph for paragraph in paragraphs if paragraph]


def _drop_tags(text: str) -> str:
    """Tags to what Markdown has for them; links and pictures to their words."""
    if "<" in text:
        text = _IMAGE_TAG.sub(lambda match: f" {match[1] or match[2] or ''} ", text)
        text = _CELL_TAG.sub(" | ", _ITEM_TAG.sub("\n• ", text))
        text = _TAG.sub(" ", _LINE_TAG.sub("\n\n", text))
    if "]" in text:
        text = _LINK.sub(r"\1", _PICTURE.sub(r"\1", text))
    return text


def _written_lines(text: str, line_start: str) -> Iterator[_Written]:
    """The lines on the page, one by one; `line_start` stands before the first of them."""
    for line in text.split("\n"):
        whole = line_start + line
        written = _read_line(whole)
        if line_start and written.kind != "blank":
            # Marks of the line stand at its start, which has been read already.
            written = replace(written, text=line, number=())
        line_start = ""
        yield written


def _read_line(line: str) -> _Written:
    length = len(line)
    quoted = _QUOTE.match(line)
    depth = quoted.group().count(">") if quoted else 0
    line = line[quoted.end() :] if quoted else line
    if not line.strip() or _FENCE.fullmatch(line) or _RULE.fullmatch(line):
        return _Written("blank")
    if _BORDER.fullmatch(line) or _REFERENCE.fullmatch(line):
        return _Written("border")
    if heading := _HEADING.fullmatch(line):
        return _Written("heading", heading[1])
    is_indented = line[0] == " "
    body = line.strip()
    is_whole_row = body[0] == "|" and (body[-1] == "|" and body.count("|") > 2 or body[1:2] == " ")
    if is_whole_row or _SPACED_BAR.search(body):
        return _Written("row", body, length, depth, is_whole_row=is_whole_row)
    if bullet := _BULLET.match(line):
        return _Written("item", line[bullet.end() :].strip(), length, depth)
    if (number := _NUMBER.match(line)) and (said := _number(number)):
        text = line[number.end() :].strip()
        both = (said, Line(body, ""))
        return _Written("item", text, length, depth, is_indented, number=both)
    return _Written("plain", body, length, depth, is_indented)


def _number(match: re.Match[str]) -> Line:
    """The number or letter of an item: a comma follows it, and a full stop after a full stop."""
    digits = match["digits"] or match["inner"] or match["letter"] or match["capital"]
    said = digits or match["option"] or match["choice"]
    is_roman = len(said) > 1 and not said.isdigit() or said in ("i", "I", "v", "x")
    if is_roman and digits:
        said = str(roman_value(said.upper()))
    is_stopped = "." in (match["mark"], match["after"]) or bool(match["capital"])
    return Line(said, "." if is_stopped else ",")


def _is_no_item(above: _Written, written: _Written) -> bool:
    """Whether what looks like the number of an item goes on with the prose above it."""
    if _ENDS_CLOSED.search(above.text[-_TAIL:]) or not _fills_its_line(above, written):
        return False
    number, line = written.number
    is_counted = number.text.isdigit() and not line.text.startswith("(")
    return not is_counted or _last_word(above.text) in _ASKS_FOR_NUMBER | _OPEN_WORDS


def _last_word(text: str) -> str:
    return text.rpartition(" ")[2] if " " in text else ""


def _fills_its_line(above: _Written, below: _Written) -> bool:
    """Whether the first word of the line below had no room."""
    line = below.number[1].text if below.number else below.text
    return above.length + 1 + len(line.partition(" ")[0]) >= WRAP_CHARACTERS


def _is_wrapped(above: _Written, below: _Written) -> bool:
    """Whether the line below goes on with the one above."""
    if above.depth != below.depth:
        return False
    tail = above.text[-_TAIL:]
    if tail[-1:] == "/" or _HYPHENATED.search(tail) or _PAUSES.search(tail):
        return True
    last = _last_word(above.text)
    if last in _OPEN_WORDS:
        return True
    if _LABEL.match(below.text):
        return False
    if last in _ASKS_FOR_NUMBER and below.text[:1].isdigit():
        return True
    start = below.text.lstrip("([*_'")
    is_lower = start[:1].islower()
    if above.length > _WIDEST_CHARACTERS:
        return is_lower
    if _fills_its_line(above, below):
        return True
    if not is_lower or _CLOSED.search(tail) or above.text.isupper():
        return False
    first = _FIRST_LETTERS.match(start)
    return (
        last in _OPEN_TO_LOWER_CASE
        or (first is not None and first.group() in _GOES_ON_WITH)
        or above.length >= _NARROW_CHARACTERS
        or below.is_indented
    )


def _join(above: str, below: str) -> str:
    """Two lines of wrapped prose to one; a word that was parted is put together."""
    parted = _HYPHENATED.search(above[-_TAIL:])
    if above[-1:] == "/":
        return above + below
    if not parted:
        return f"{above} {below}"
    rest = _FIRST_LETTERS.match(below)
    is_compound = above[-len(parted[1]) - 2 : -len(parted[1]) - 1] == "-" or (
        "-" in below.partition(" ")[0]
    )
    if rest is None or is_compound:
        return above + below
    if parted[1].lower() in _FIRST_PARTS and rest.group() not in _SUFFIXES:
        return above + below
    return above[:-1] + below


def _lines(written: _Written) -> Iterator[Line]:
    """What is read of an item, a row or a paragraph, one after another."""
    if written.kind == "row":
        cells = [_drop_marks(cell) for cell in _CELL.split(written.text)]
        cells = [cell for cell in cells if cell]
        yield from (Line(cell, ",") for cell in cells[:-1])
        end: End = "." if written.is_whole_row else ""
        yield from (Line(cell, end) for cell in cells[-1:])
        return
    yield from written.number[:1]
    text = _drop_marks(written.text)
    if _PAUSES.search(text[-_TAIL:]) or _JOINING.search(text[-_TAIL:]):
        yield Line(text, ",")
    elif text:
        yield Line(text, "." if written.kind == "item" else "")


def _drop_marks(text: str) -> str:
    """Text without the marks that stand inside a line: emphasis, code, footnotes, emoticons."""
    text = _ESCAPED.sub("", _FOOTNOTE.sub("", text))
    text = _STRIKE.sub("", _EMPHASIS.sub("", _UNDERSCORES.sub(r"\2", _CODE.sub("", text))))
    return _EMOTICON.sub(" ", text).strip()
