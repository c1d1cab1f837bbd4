"""Any Unicode text to the small alphabet that the rules of this package are written in.

After `fold_characters` a text holds printable ASCII, newlines, and the symbols of `KEPT`; so the
expressions of the other files can say `[0-9A-Za-z]` and mean it.
"""

from __future__ import annotations

import html
import logging
import re
import unicodedata

_log = logging.getLogger(__name__)

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
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
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
"""Words that a warning names at most."""
_LONGEST_WORD = 64
"""What goes on for longer is taken as words of their own."""
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
    """The words of a text, whole or in pieces, that `fold_characters` leaves out.

    A word is left out if any of its letters is, since its script is another one; in scripts without
    spaces between words, it is all that stands together.
    """

    def __init__(self) -> None:
        self.words: list[str] = []
        """Each once, in order; of very many the first."""
        self._rest = ""
        """A word that may go on."""

    def feed(self, piece: str) -> None:
        """Takes the next piece of the text."""
        text = self._rest + piece
        end = len(text)
        while end and len(text) - end < _LONGEST_WORD and _is_of_word(text[end - 1]):
            end -= 1
        self._rest = text[end:] if len(text) - end < _LONGEST_WORD else ""
        self._look(text[: len(text) - len(self._rest)])

    def finish(self) -> None:
        """The text is complete: one warning is logged with the words, if there are any."""
        self._look(self._rest)
        self._rest = ""
        if self.words:
            more = ", and others" if len(self.words) > _MAX_NAMED else ""
            named = ", ".join(self.words[:_MAX_NAMED])
            _log.warning("left out, being in a script that is not read here: %s%s", named, more)

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
    if not all(letter in _ROMAN_VALUES for letter in letters):
        return letters
    before = match.string[max(match.start() - 24, 0) : match.start()]
    if _NAME_BEFORE.search(before):
        return letters
    values = [_ROMAN_VALUES[letter] for letter in letters]
    total = sum(
        -value if value < following else value
        for value, following in zip(values, [*values[1:], 0], strict=True)
    )
    return str(total)


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
    """Columns that tabs part, as a table has them."""
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
