"""Characters, layout, web addresses and punctuation of written text.

`fold_characters` maps any Unicode text to the small alphabet that all rules of this package are
written in. `read_layout` turns a page into lines. `expand_web` expands addresses, and the last
passes turn signs and brackets into words and the marks , . ? ! ; : and -.
"""

from __future__ import annotations

import html
import logging
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from tokenlm.text.markup import LINE_NAMES, MARKUP, element_pattern, picture_text
from tokenlm.text.numbers import code_number, roman_value, text_before

# --- Characters ---
#
# After `fold_characters` a text holds printable ASCII, newlines, and the symbols of `KEPT`, so the
# expressions of all rules can say `[0-9A-Za-z]` and mean it.

logger = logging.getLogger(__name__)

KEPT = "°£€¥₹₩₽₿¢×÷±≈≤≥≠√∞–—−©§•"
"""Symbols beyond ASCII that later rules know how to say (dashes and bullets: to pause at)."""

_LETTERS = {
    "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O",
    "đ": "d", "Đ": "D", "ł": "l", "Ł": "L", "þ": "th", "Þ": "Th", "ð": "th", "Ð": "Th",
    "ħ": "h", "Ħ": "H", "ı": "i", "ĸ": "k", "ŋ": "ng", "Ŋ": "Ng", "ŧ": "t", "Ŧ": "T",
    "ſ": "s", "ƒ": "f", "ə": "e", "Ə": "E",
}  # fmt: skip

_SYMBOLS = {
    "‘": "'", "’": "'", "‚": "'", "‛": "'", "ʼ": "'", "ʹ": "'", "′": "'", "´": "'", "ʻ": "'",
    "“": '"', "”": '"', "„": '"', "‟": '"', "«": '"', "»": '"', "″": '"', "‹": "'", "›": "'",
    "‐": "-", "‑": "-", "⁃": "-", "﹣": "-", "‒": "–", "―": "—", "﹘": "—", "⸺": "—", "⸻": "—",
    "…": "...", "⋯": "...", "․": ".", "‥": "..", "。": ". ", "、": ", ", "，": ", ", "！": "! ",
    "？": "? ", "；": "; ", "：": ": ", "｡": ". ", "､": ", ", "¿": " ", "¡": " ", "‽": "?",
    "⁄": "/", "∕": "/", "∗": "*", "∙": " ", "·": " ", "•": " • ", "‣": " • ", "▪": " • ",
    "◦": " • ", "●": " • ", "‰": " per mille ", "№": " No. ", "™": "", "®": "", "℠": "",
    "℃": "°C", "℉": "°F",
    "º": "°", "˚": "°", "Ω": "Ω", "→": " to ", "←": " from ", "⇒": " implies ", "∑": " sum ",
    "∈": " in ", "∂": " partial ", "∫": " integral ", "≅": "≈", "≃": "≈", "∼": "~", "〜": "~",
    "～": "~", "⩽": "≤", "⩾": "≥", "−": "−", "ª": "a", "`": "'", "✕": "×", "✖": "×", "⋅": "×",
    "❤": " ", "【": "[", "】": "]", "「": '"', "」": '"', "『": '"', "』": '"',
    "│": "|", "┃": "|", "║": "|", "｜": "|", "─": "-", "━": "-", "═": "-",
    **dict.fromkeys("┌┐└┘├┤┬┴┼╔╗╚╝╠╣╦╩╬┏┓┗┛┣┫┳┻╋", "+"),
    "ʽ": "'", "ʾ": "'", "ʿ": "'", "ˈ": "'",
    "ˊ": "'", "ˋ": "'", "‵": "'", "＇": "'", "｀": "'", "՚": "'", "׳": "'", "❛": "'", "❜": "'",
    "Ꞌ": "'", "ꞌ": "'", "❝": '"', "❞": '"', "＂": '"', "״": '"',
}  # fmt: skip

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta",
    "η": "eta", "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu",
    "ξ": "xi", "ο": "omicron", "π": "pi", "ρ": "rho", "σ": "sigma", "ς": "sigma", "τ": "tau",
    "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "gamma",
    "Δ": "delta", "Θ": "theta", "Λ": "lambda", "Ξ": "xi", "Π": "pi", "Σ": "sigma",
    "Φ": "phi", "Ψ": "psi", "Ω": "omega", "ϕ": "phi", "ϵ": "epsilon",
}  # fmt: skip

_SUPERSCRIPTS = {
    ord(sup): plain for sup, plain in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True)
}

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_VULGAR_FRACTION = re.compile("([0-9])?([¼½¾⅐-⅞↉])")
_SPACE = "[\u00a0\u2005-\u200a\u202f]"
_GROUP_SPACE = re.compile(
    f"(?<![0-9.,+(])(?<![0-9]{_SPACE})([1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}}){{1,8}})"
    f"(?!{_SPACE}?[0-9])"
)
_SPACES = re.compile(_SPACE)
# Typed on a key that is near: don`t, and rock `n` roll.
_BACKTICK = re.compile(
    r"(?<=[A-Za-z0-9])`(?=[A-Za-z])|(?<![\w`])`(?=(?:[Tt]is|[Tt]was|n|em|til)\b)"
)
_RAISED_FRACTION = re.compile("([0-9])?([⁰¹²³⁴-⁹]{1,3})[/⁄]([₀-₉]{1,3})(?![₀-₉])")
_ROMAN_SIGNS = re.compile("[Ⅰ-ⅿ]+")
# "Henry Ⅰ" is a rank, to be read as if in letters; elsewhere the sign is a count.
_NAME_BEFORE = re.compile(r"\b(?!Chapter|Part|Act|Scene|Book|Vol|Volume|Section)[A-Z][a-z]+ $")
_WORD_BEFORE = re.compile(r"(?<!sinh)(?<!cosh)(?<!tanh)(?<=[A-Za-z]{4})$")
_MICRO = re.compile("[µμ](?=(?:[mslgFHAVW]|Hz|mol)(?![A-Za-z\u0370-\u03ff]))")
_OHM = re.compile("(?<=[0-9kM ])[ΩΩ](?![\u0370-\u03ff])")
_LONE_GREEK = re.compile(
    "(?<![\u0370-\u03ff\u1f00-\u1fff])[\u0370-\u03ff](?![\u0370-\u03ff\u1f00-\u1fff])"
)
_PARTED = re.compile("\u00ad[^\\S\\n]*\\n[^\\S\\n]*")
_PICTURES = (
    "\u00b7\u2043\u2219\u203a\u00bb\u25a0-\u25ff\u2190-\u21ff\u2600-\u27bf\u2b00-\u2bff"
    "\U0001f000-\U0001faff\ufe0f\u200d"
)
"""Symbols and joiners that, at the start of a line, stand for a bullet."""
_PICTURE_BULLET = re.compile(f"(?m)^[^\\S\\n]*(?![\u2776-\u2793])[{_PICTURES}]+[^\\S\\n]+(?=\\S)")
_ROUND_NUMBER = re.compile(
    "(?m)^[^\\S\\n]*(?:([\u2460-\u2473\u2474-\u249b\u2776-\u2793])|([0-9])\ufe0f?\u20e3)"
    "(?![^\\S\\n]*(?:(?:and|or|to|through|is|are)\\b|[-,–]))[^\\S\\n]*"
)
_UNSPEAKABLE = re.compile(f"[^\\n -~{KEPT}]")
_MAX_NAMED = 20
"""Most words that a warning names."""
_LONGEST_WORD = 64
"""A longer run of letters is taken as several words."""
_BLANK = re.compile(r"[^\S\n]+")
_LINE_END = re.compile("\r\n?|[\u2028\u0085\v\f]")


# Not the tab behind the mark of a list item: "1.", "a)", "-".
_TAB = re.compile(r"(?:(?<=[^\s.*+)•–|-])|(?<=[A-Za-z]{2}\.)) {0,8}\t[\t ]{0,16}(?=[^\s|])")


def fold_characters(text: str) -> str:
    """Fold accents, widths, ligatures, quotes, entities and other scripts away.

    Args:
        text: any string, lone surrogates and control characters included.

    Returns:
        Text of printable ASCII, newlines and `KEPT`; a tab between columns is a bar. What has no
        English sound (emoji, other scripts, zero-width and control characters) is gone or a space.
    """
    text = _ENTITY.sub(_unescape, text)
    text = _columns(_LINE_END.sub("\n", text).replace("\u2029", "\n\n"))
    text = _GROUP_SPACE.sub(_join_groups, text)
    text = _BACKTICK.sub("'", text)
    if text.isascii():
        return _BLANK.sub(" ", _drop_controls(text))
    text = _PICTURE_BULLET.sub("• ", _ROUND_NUMBER.sub(_round_number, _PARTED.sub("", text)))
    text = _VULGAR_FRACTION.sub(_fraction, text)
    text = _RAISED_FRACTION.sub(_raised_fraction, text)
    text = _ROMAN_SIGNS.sub(_roman_sign, text)
    text = _SUPERSCRIPT.sub(_power, text)
    text = _MICRO.sub("u", text)
    text = _OHM.sub("ohm", text)
    # Combining marks must meet their letters before single characters are looked at.
    text = unicodedata.normalize("NFC", text)
    text = _LONE_GREEK.sub(_greek, text)
    return _BLANK.sub(" ", _drop_controls("".join(_fold(char) for char in text)))


class ForeignWords:
    """Collects the words of a text, whole or in pieces, that `fold_characters` leaves out.

    A word is left out if any of its letters is, since its script is another one; in scripts without
    spaces between words, it is all that stands together.
    """

    def __init__(self) -> None:
        self.words: list[str] = []
        """Each word once, in order; at most the first few dozen."""
        self._rest = ""
        """A word that may go on."""

    def feed(self, piece: str) -> None:
        """Take the next piece of the text."""
        text = self._rest + piece
        end = len(text)
        while end and len(text) - end < _LONGEST_WORD and _is_of_word(text[end - 1]):
            end -= 1
        self._rest = text[end:] if len(text) - end < _LONGEST_WORD else ""
        self._look(text[: len(text) - len(self._rest)])

    def finish(self, *, warns: bool = True) -> None:
        """Complete the text, and log one warning with the words, if there are any and `warns`."""
        self._look(self._rest)
        self._rest = ""
        if self.words and warns:
            more = ", and others" if len(self.words) > _MAX_NAMED else ""
            named = ", ".join(self.words[:_MAX_NAMED])
            logger.warning("left out, being in a script that is not read here: %s%s", named, more)

    def _look(self, text: str) -> None:
        if text.isascii() or len(self.words) > _MAX_NAMED:
            return
        text = _OHM.sub("ohm", _MICRO.sub("u", text))
        text = _LONE_GREEK.sub(_greek, unicodedata.normalize("NFC", text))
        spaced = "".join(char if _is_of_word(char) else " " for char in text)
        found = dict.fromkeys(word for word in spaced.split() if any(map(_is_foreign, word)))
        self.words += [word for word in found if word not in self.words][: _MAX_NAMED + 1]


def warn_of_foreign_words(text: str) -> None:
    """Log one warning with the words that `fold_characters` leaves out of a text, if any."""
    foreign = ForeignWords()
    foreign.feed(text)
    foreign.finish()


def _is_of_word(char: str) -> bool:
    return char.isascii() and char.isalpha() or unicodedata.category(char)[0] in "LM"


def _is_foreign(char: str) -> bool:
    return char.isalpha() and not _fold(char).strip()


def _round_number(match: re.Match[str]) -> str:
    """A number in a circle or on a key, at the start of a line, is that of an item."""
    number = match[2] or str(int(unicodedata.numeric(match[1])))
    return f"{number}) "


def _unescape(match: re.Match[str]) -> str:
    plain = html.unescape(match.group())
    return match.group() if len(plain) > 4 else plain


def _fraction(match: re.Match[str]) -> str:
    whole, sign = match.groups()
    fraction = unicodedata.normalize("NFKC", sign).replace("⁄", "/")
    return f"{whole} {fraction}" if whole else fraction


def _raised_fraction(match: re.Match[str]) -> str:
    whole, above, below = match.groups()
    below = "".join(str(unicodedata.digit(sign)) for sign in below)
    return f"{whole + ' ' if whole else ''}{above.translate(_SUPERSCRIPTS)}/{below}"


def _join_groups(match: re.Match[str]) -> str:
    number = _SPACES.sub("", match[1])
    return number if len(number) < 10 else f"{int(number):,}"  # ten digits could be a telephone


def _roman_sign(match: re.Match[str]) -> str:
    """Numerals that are one character each: in letters after a name, else in digits."""
    letters = unicodedata.normalize("NFKC", match.group()).upper()
    if any(letter not in "IVXLCDM" for letter in letters):
        return letters
    return letters if _NAME_BEFORE.search(text_before(match, 24)) else str(roman_value(letters))


def _power(match: re.Match[str]) -> str:
    """Superscript digits after a letter or digit are a power (m² -> m^2), else a footnote."""
    start = match.start()
    before = match.string[start - 1] if start else " "
    power = match.group().translate(_SUPERSCRIPTS)
    if before.isalpha() and (
        power == "1" or (power.isdigit() and _WORD_BEFORE.search(match.string[:start][-8:]))
    ):
        return " "  # "as shown before¹"
    return f"^{power}" if before.isalnum() or before in ")]" else " "


def _greek(match: re.Match[str]) -> str:
    name = _GREEK.get(match.group())
    if name is None:
        return match.group()
    text, start, end = match.string, match.start(), match.end()
    before = " " if start and text[start - 1].isalnum() else ""
    after = " " if end < len(text) and text[end].isalnum() else ""
    return before + name + after


def _columns(text: str) -> str:
    """Tabs between columns to bars, as in a table."""
    return _TAB.sub(" | ", text) if "\t" in text else text


def _drop_controls(text: str) -> str:
    return _UNSPEAKABLE.sub("", text.replace("\t", " "))


def _fold(char: str) -> str:
    """One character to its working form; '' or ' ' when nothing of it can be said."""
    if char < "\x7f" or char in KEPT:
        return char
    if char in _SYMBOLS:
        return _SYMBOLS[char]
    if char in _LETTERS:
        return _LETTERS[char]
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.digit(char))
    if category in ("Zs", "Zl", "Zp"):
        return " "
    if category in ("Cf", "Mn", "Me", "Cc"):
        return ""
    plain = ""
    for part in unicodedata.normalize("NFKD", char):
        if part < "\x7f" or part in KEPT:
            plain += part
        elif part in _SYMBOLS or part in _LETTERS:
            plain += _SYMBOLS.get(part, "") or _LETTERS.get(part, "")
        elif unicodedata.category(part) not in ("Mn", "Me", "Cf", "No"):
            return " "
    if category == "No" and not plain.strip():
        value = unicodedata.numeric(char, -1)
        return f" {value:.0f} " if value >= 0 and value == int(value) else " "
    return f" {plain} " if category == "No" and plain.isdigit() else plain or " "


# --- Layout: headings, lists, tables, verse, wrapped prose ---
#
# Tags, Markdown marks, rules and emoticons are dropped. A line break is either a wrap, where a
# paragraph is broken to a width, or the end of a line that stands alone. That is decided by the
# line itself and the first words of the next one, so a text that is still arriving waits for no
# more.

WRAP_CHARACTERS = 60
"""Prose is wrapped at no less: a line that had room for the next word up to here was ended."""
_NARROW_CHARACTERS = 35
"""From this length on, a line that goes on in lower case is wrapped prose."""
_WIDEST_CHARACTERS = 120
"""Prose is wrapped at no more: a longer line is a paragraph of its own."""
_TAIL = 40
"""Characters at the end of a line that tell how it ends."""

_LINE_TAG = re.compile(element_pattern(LINE_NAMES))
_ITEM_TAG = re.compile(rf"\s*{element_pattern('li', '')}\s*|{element_pattern('li', '/')}")
_CELL_TAG = re.compile(rf"\s*{element_pattern('t[dh]', '')}")
_IMAGE_TAG = re.compile(element_pattern("img"))
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
"""The mark that closes a line without one; '' where a mark is due only if another line follows."""


@dataclass(frozen=True)
class Line:
    """A unit of reading: a line of prose, a list item, its number, or a cell of a table."""

    text: str
    """Its text, without marks of layout."""
    end: End
    """The mark that closes it, if its text does not end with one."""


@dataclass(frozen=True)
class _PageLine:
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
    """Number of an item: how it is read, and the whole line in case it turns out to be none."""


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
    current: _PageLine | None = None
    """The item or the paragraph of prose that may go on, all its lines joined."""
    above: _PageLine | None = None
    """The last line of it."""
    are_choices = False
    """Whether "A. Paris" would be a choice: a question or another choice stands above."""

    def end_line() -> None:
        nonlocal current, above
        if current is not None:
            paragraphs[-1] += _lines(current)
        current = above = None

    def end_paragraph() -> None:
        end_line()
        if paragraphs[-1]:
            paragraphs.append([])

    for written in _page_lines(text, line_start):
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
        text = _IMAGE_TAG.sub(lambda match: picture_text(match[0]), text)
        text = _CELL_TAG.sub(" | ", _ITEM_TAG.sub("\n• ", text))
        text = MARKUP.sub(" ", _LINE_TAG.sub("\n\n", text))
    if "]" in text:
        text = _LINK.sub(r"\1", _PICTURE.sub(r"\1", text))
    return text


def _page_lines(text: str, line_start: str) -> Iterator[_PageLine]:
    """The lines on the page, one by one; `line_start` stands before the first of them."""
    for line in text.split("\n"):
        whole = line_start + line
        written = _read_line(whole)
        if line_start and written.kind != "blank":
            # Marks of the line stand at its start, which has been read already.
            written = replace(written, text=line, number=())
        line_start = ""
        yield written


def _read_line(line: str) -> _PageLine:
    length = len(line)
    quoted = _QUOTE.match(line)
    depth = quoted.group().count(">") if quoted else 0
    line = line[quoted.end() :] if quoted else line
    if not line.strip() or _FENCE.fullmatch(line) or _RULE.fullmatch(line):
        return _PageLine("blank")
    if _BORDER.fullmatch(line) or _REFERENCE.fullmatch(line):
        return _PageLine("border")
    if heading := _HEADING.fullmatch(line):
        return _PageLine("heading", heading[1])
    is_indented = line[0] == " "
    body = line.strip()
    is_whole_row = body[0] == "|" and (body[-1] == "|" and body.count("|") > 2 or body[1:2] == " ")
    if is_whole_row or _SPACED_BAR.search(body):
        return _PageLine("row", body, length, depth, is_whole_row=is_whole_row)
    if bullet := _BULLET.match(line):
        return _PageLine("item", line[bullet.end() :].strip(), length, depth)
    if (number := _NUMBER.match(line)) and (said := _number(number)):
        text = line[number.end() :].strip()
        both = (said, Line(body, ""))
        return _PageLine("item", text, length, depth, is_indented, number=both)
    return _PageLine("plain", body, length, depth, is_indented)


def _number(match: re.Match[str]) -> Line:
    """The number or letter of an item: a comma follows it, and a full stop after a full stop."""
    digits = match["digits"] or match["inner"] or match["letter"] or match["capital"]
    said = digits or match["option"] or match["choice"]
    is_roman = len(said) > 1 and not said.isdigit() or said in ("i", "I", "v", "x")
    if is_roman and digits:
        said = str(roman_value(said.upper()))
    is_stopped = "." in (match["mark"], match["after"]) or bool(match["capital"])
    return Line(said, "." if is_stopped else ",")


def _is_no_item(above: _PageLine, written: _PageLine) -> bool:
    """Whether what looks like the number of an item goes on with the prose above it."""
    if _ENDS_CLOSED.search(above.text[-_TAIL:]) or not _fills_its_line(above, written):
        return False
    number, line = written.number
    is_counted = number.text.isdigit() and not line.text.startswith("(")
    return not is_counted or _last_word(above.text) in _ASKS_FOR_NUMBER | _OPEN_WORDS


def _last_word(text: str) -> str:
    return text.rpartition(" ")[2] if " " in text else ""


def _fills_its_line(above: _PageLine, below: _PageLine) -> bool:
    """Whether the first word of the line below had no room."""
    line = below.number[1].text if below.number else below.text
    return above.length + 1 + len(line.partition(" ")[0]) >= WRAP_CHARACTERS


def _is_wrapped(above: _PageLine, below: _PageLine) -> bool:
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
    """Join two lines of wrapped prose; a hyphenated word is put together."""
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


def _lines(written: _PageLine) -> Iterator[Line]:
    """The lines of an item, a row or a paragraph."""
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


# --- Web: URLs, e-mail, handles, hashtags, files, paths, names in code ---

_DOMAINS = (
    "com|org|net|edu|gov|mil|int|info|biz|io|ai|app|dev|co|uk|us|de|fr|it|es|nl|eu|ca|au|ch|jp|"
    "cn|ru|in|br|me|tv|ly|gg|fm|xyz|tech|online|site|blog|news|museum|name|cloud|live|pub"
)
_EXTENSIONS = (
    "txt|pdf|docx?|xlsx?|pptx?|csv|tsv|json|jsonl|ya?ml|toml|xml|html?|css|js|ts|jsx|tsx|py|ipynb|"
    "c|h|cpp|hpp|cc|rs|go|java|kt|rb|php|sh|bat|exe|dll|so|zip|tar|gz|bz2|xz|7z|rar|jpe?g|png|"
    "gif|bmp|svg|tiff?|webp|mp[34]|wav|ogg|flac|avi|mov|mkv|md|rst|tex|log|ini|cfg|conf|db|sql|"
    "iso|img|bin|dat|pt|onnx|safetensors|lock|apk|dmg|deb|rpm"
)
_SAID_AS_WORDS = frozenset(
    "com org net gov info biz co app dev me tech online site blog news museum name cloud live pub "
    "xyz doc zip json yaml toml tar rar gif bin log java go mov wav rust bat so img conf dat lock "
    "deb".split()
)

_URL = re.compile(
    r"(?:(?:https?|ftp|file|ssh|git|wss?)://|www\.)[^\s<>\"|]{1,2000}|"
    rf"(?<![\w.@/-])(?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,62}})\.){{1,5}}(?:{_DOMAINS})"
    r"(?![A-Za-z0-9-]|\.[A-Za-z])(?::[0-9]{1,5}(?![0-9]))?(?:/[^\s<>\"|]{0,2000})?",
)
_EMAIL = re.compile(
    r"(?<![\w.+-])(?:mailto:)?[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,5}"
    r"[A-Za-z]{2,12}\b",
    re.ASCII,
)
# <https://…> and <jane@example.com>: the brackets only show where the address ends.
_BRACKETED = re.compile(
    r"<(?=(?:(?:https?|ftp|mailto|tel|file|ssh|git|wss?):|www\.|[\w.+%-]{1,64}@|"
    r"[\w-]{1,63}\.[\w.-]{1,60}[/>]))(?:mailto:|tel:)?([^\s<>]{1,2000})>",
    re.ASCII,
)
_SHORT_EMAIL = re.compile(r"[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,5}[A-Za-z]", re.ASCII)
_HANDLE = re.compile(r"(?<![\w@/.])@(?=[A-Za-z_][\w.]{0,60})([\w.]{0,60}\w)", re.ASCII)
_NUMBER_OF = re.compile(r"(?<![\w&#/])#(?=[A-Z]{1,4}-[0-9])")
_HASHTAG = re.compile(r"(?<![\w&#/])#(?=[0-9_]{0,20}[A-Za-z])(\w{1,100})", re.ASCII)
_WINDOWS_PATH = re.compile(r"(?<![\w])([A-Za-z]):\\([^\s\"<>|*?]{0,1000})", re.ASCII)
_UNIX_PATH = re.compile(
    r"(?<![\w/<.*%)\]])(?:~|\.{1,2})?/(?=[\w.])[\w./+@%-]{1,1000}(?<![.,/])/?", re.ASCII
)
_FILE = re.compile(
    rf"(?<![\w./-])(?!(?:[A-Za-z]\.){{2,6}}(?![A-Za-z]{{2}}))(?:[\w-]{{1,100}}/){{0,12}}[\w-]{{1,100}}(?:\.[\w-]{{1,100}}){{0,4}}\."
    rf"(?:{_EXTENSIONS})(?![\w/-]|\.[A-Za-z0-9])",
    re.ASCII,
)
_SNAKE = re.compile(r"(?<=[A-Za-z0-9])_{1,9}(?=[A-Za-z0-9])")
_CALL = re.compile(r"(?<=\w)\(\)", re.ASCII)
_DOT_NET = re.compile(r"(?<!\S)\.(?=(?:NET|env|gitignore|bashrc|profile)\b)")
_ATTRIBUTE = re.compile(r"(?<=[a-z_0-9][a-z_0-9])\.(?=[a-z_]{3})")
_TRAILING = re.compile(r"[.,;:!?'\")\]}]{1,20}$")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^A-Za-z0-9]")
_SIGNS = {
    ".": "dot", "/": "slash", "\\": "backslash", ":": "colon", "?": "question mark",
    "_": "underscore", "=": "equals", "&": "and", "#": "hash", "%": "percent", "~": "tilde",
    "+": "plus", "-": "dash", "@": "at", "*": "star",
}  # fmt: skip


def expand_web(text: str) -> str:
    """Expand addresses, handles, hashtags, file names and paths; split snake_case words."""
    if "<" in text:
        text = _BRACKETED.sub(_bracketed, text)
    if "@" in text:
        text = _EMAIL.sub(lambda match: _spell(match.group().removeprefix("mailto:")), text)
        text = _HANDLE.sub(lambda match: f" at {_name(match.group(1))}", text)
    text = _URL.sub(_url, text)
    if "#" in text:
        text = _NUMBER_OF.sub("number ", text)
        text = _HASHTAG.sub(lambda match: f" hashtag {_name(match.group(1))} ", text)
    if "\\" in text:
        text = _WINDOWS_PATH.sub(_windows_path, text)
    text = _FILE.sub(lambda match: _spell(match.group(), dash=" ", underscore=" "), text)
    if "/" in text:
        text = _UNIX_PATH.sub(lambda match: _spell(match.group().rstrip("/"), dash=" "), text)
    text = _ATTRIBUTE.sub(" dot ", text)
    text = _DOT_NET.sub("dot ", text)
    return _SNAKE.sub(" ", _CALL.sub("", text))


def _url(match: re.Match[str]) -> str:
    address = match.group()
    ending = _TRAILING.search(address)
    tail = ending.group() if ending else ""
    address = address[: len(address) - len(tail)]
    if tail.startswith(")") and "(" in address:
        address, tail = address + ")", tail[1:]
    scheme, found, rest = address.partition("://")
    return _spell((rest if found else scheme).rstrip("/")) + tail


def _bracketed(match: re.Match[str]) -> str:
    address = match[1]
    return _spell(address) if _SHORT_EMAIL.fullmatch(address) else address


def _windows_path(match: re.Match[str]) -> str:
    drive, path = match.groups()
    ending = _TRAILING.search(path)
    tail = ending.group() if ending else ""
    path = path[: len(path) - len(tail)]
    return f"{drive.lower()} colon {_spell(chr(92) + path)}{tail}"


def _spell(address: str, *, dash: str = "dash", underscore: str = "underscore") -> str:
    """An address as words, its signs named."""
    words: list[str] = []
    pieces = _PIECE.findall(address)
    for index, piece in enumerate(pieces):
        if piece == "-":
            words.append(dash)
        elif piece == "_":
            words.append(underscore)
        elif not piece.isalnum():
            words.append(_SIGNS.get(piece, " "))
        elif piece.isdigit():
            words.append(code_number(piece))
        else:
            after_dot = index > 0 and pieces[index - 1] == "."
            ends = index + 1 == len(pieces) or pieces[index + 1] in "/:?#"
            words.append(_part(piece, after_dot and ends))
    return " ".join(words)


def _part(piece: str, is_suffix: bool) -> str:
    lower = piece.lower()
    if lower == "www" or (is_suffix and len(lower) <= 4 and lower not in _SAID_AS_WORDS):
        return " ".join(lower)
    # An unbroken run of capitals keeps them: whether it is spelled is the acronym rules' to say.
    return piece if len(piece) > 1 and piece.isupper() else lower


def _name(name: str) -> str:
    """A handle or tag, split at capitals, digits and underscores."""
    words = [
        code_number(piece) if piece.isdigit() else piece if piece.isupper() else piece.lower()
        for piece in _PIECE.findall(name.replace("_", " ").replace(".", " dot "))
        if piece.isalnum()
    ]
    return " ".join(words)


# --- Punctuation: the remaining signs, and the marks of pauses ---

MARKS = ",.?!;:-"
"""The marks that normalised text may hold beside a-z, the apostrophe and the space."""

_STRENGTH = "?!.;:,"
_ELLIPSIS = re.compile(r"\.{2,}|(?:\. ){2,}\.")
_BRACKETS = re.compile(r"[()\[\]{}]+")
_DASHES = re.compile(r" ?(?:[—–]+|-{2,}|(?<= )-+(?= )|(?<=[a-z,.?!]) -(?=[A-Za-z])) ?")
_SLASHED_CAPITALS = re.compile(r"(?<=[A-Z]{2})/(?=[A-Z]{2})")
_SLASHED = re.compile(r"(?<=[A-Za-z])/(?=[A-Za-z])")
_WORD_SIGNS = (
    (re.compile(r" ?& ?"), " and "),
    (re.compile(r"(?<=[0-9A-Za-z]) ?@ ?(?=[0-9A-Za-z$])|(?<= )@(?= )"), " at "),
    (re.compile(r"°"), " degrees "),
    (re.compile(r"©|\(c\)(?= ?[0-9])"), " copyright "),
    (re.compile(r"§+"), " section "),
    (re.compile(r"#(?=[0-9])"), " number "),
    (re.compile(r"(?<=[A-Za-z])\*(?=[A-Za-z])"), ""),
)
_APOSTROPHE = re.compile(r"(?<![a-z])'+|'+(?![a-z])")
_UNKNOWN = re.compile(r"[^a-z',.?!;:-]+")
_STRAY_HYPHEN = re.compile(r"(?<![a-z])-+|-+(?![a-z])|-{2,}")
_MARK_RUN = re.compile(r" ?[,.?!;:](?: ?[,.?!;:])* ?")
STARTERS = frozenset(
    "He She It The They This That These Those But And In We I You A An So Then There What "
    "When Where Why How If As At On My Our His Her Their Its No Yes For After Before While "
    "However Although Now Not Some Many Most All Both Each Who Which Do Did Is Are Was Were "
    "Can Could Bye Thanks Thank Please Let Also Maybe Perhaps Later Soon Hello Does Have Has "
    "Had".split()
)
"""Words that commonly open a sentence."""
_NO_SENTENCE = re.compile(
    r"(?:^|[.?!][\"')]{0,2} )[\"'(]?(?:The|A|An|This|That|My|Our|His|Her|Their|Your|At|By|From|"
    r"Around|Until|After|Before|Since) $|[;,] (?:at|by) $"
)
"""A sentence that has only begun: 'The dept. I joined', 'At 9 a.m. Tom rose.'"""
_GOES_ON = frozenset(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Eastern Pacific Central Mountain "
    "Greenwich Sharp".split()
)
"""Words that follow a time of day without a comma."""
_NEXT_WORD = re.compile(r"[\"')\]]{0,3} +[\"'(]?([A-Z][a-z]*)")
_TENS_HYPHEN = re.compile(
    r"\b(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)-(?=(?:one|two|three|four|five|"
    r"six|seven|eight|nine|"
    r"first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)\b)"
)


def sentence_stop(match: re.Match[str], *, strict: bool = False) -> str:
    """'.' when the full stop of an abbreviation also ends the sentence, else ''.

    Args:
        match: the abbreviation; '' where it has no full stop.
        strict: names may follow the abbreviation (U.S. Army): only a word that commonly opens a
            sentence counts, not any capital.
    """
    if not match.group().endswith("."):
        return ""
    rest = match.string[match.end() : match.end() + 40]
    if not rest.strip("\"')] "):
        return "."
    following = _NEXT_WORD.match(rest)
    if not following:
        return ""
    after = rest[following.end() : following.end() + 1]
    if following.group(1) in _GOES_ON and match.group()[-2:].lower() == "m.":
        return ""
    if _NO_SENTENCE.search(match.string, max(match.start() - 12, 0), match.start()):
        return ""
    if after.isupper() or (after == "." and len(following.group(1)) == 1):  # 5 p.m. EST, A.D.
        return ""
    return "." if not strict or following.group(1) in STARTERS else ""


def expand_symbols(text: str) -> str:
    """Expand the signs that stand for a word; run before numbers and acronyms are looked at."""
    for pattern, words in _WORD_SIGNS:
        text = pattern.sub(words, text)
    return text


def shape_pauses(text: str) -> str:
    """Ellipses, brackets and dashes become commas or full stops; run while case is kept."""
    text = _ELLIPSIS.sub(_ellipsis, text)
    text = _BRACKETS.sub(", ", text)
    text = _DASHES.sub(", ", text)
    return _SLASHED.sub(" slash ", _SLASHED_CAPITALS.sub(" ", text))


def _ellipsis(match: re.Match[str]) -> str:
    rest = match.string[match.end() : match.end() + 4].lstrip("\"') ")
    return ", " if rest[:1].islower() or rest[:2] in ("I ", "I'") or rest[:1].isdigit() else ". "


def settle(text: str) -> str:
    """The last step: only a-z, inner apostrophes, marks and single spaces are left.

    Runs of marks become the strongest of them, marks without a word before them go.
    """
    text = _UNKNOWN.sub(" ", text.lower())
    text = _STRAY_HYPHEN.sub(" ", _APOSTROPHE.sub("", text))
    text = _TENS_HYPHEN.sub(r"\1 ", text)
    text = " ".join(text.split())
    text = _MARK_RUN.sub(_strongest, text)
    text = text.strip(" -',.?!;:") + _final_mark(text)
    return text if any("a" <= char <= "z" for char in text) else ""


def _strongest(match: re.Match[str]) -> str:
    run = match.group()
    return next(mark for mark in _STRENGTH if mark in run) + " "


def _final_mark(text: str) -> str:
    end = text.rstrip()
    return end[-1] if end and end[-1] in ".?!;:" else ""
