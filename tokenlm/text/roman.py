"""Roman numerals to words: 'Henry VIII', 'World War II', 'Chapter IV', 'the XIX century'."""

from __future__ import annotations

import re

from tokenlm.text.numerals import cardinal, ordinal, year

_RULERS = (
    "Henry|Louis|George|Edward|Elizabeth|Richard|Charles|James|William|Mary|Paul|Benedict|Pius|Leo|"
    "Gregory|Innocent|Clement|Napoleon|Nicholas|Alexander|Catherine|Philip|Phillip|Frederick|"
    "Ferdinand|Ramses|Ramesses|Ivan|Peter|Wilhelm|Franz|Joseph|Carl|Gustav|Christian|Harald|Haakon|"
    "Olav|Albert|Leopold|Umberto|Victor|Emmanuel|John|Robert|David|Otto|Rudolf|Maximilian|"
    "Ptolemy|Darius|Xerxes|Cleopatra|Francis|Alfonso|Juan|Carlos|Felipe|Margrethe|Selim|Mehmed|"
    "Suleiman|Murad|Abdul|Boniface|Urban|Sixtus|Julius|Isabella|Matthew|Michael|Thomas|Samuel"
)
_CUES = (
    "World War|War|Chapter|Part|Volume|Vol\\.?|Book|Act|Scene|Section|Article|Phase|Type|Class|"
    "Level|Stage|Super Bowl|Rocky|Final Fantasy|Episode|Title|Appendix|Mark|Apollo|Table|Figure|"
    "Factor|Schedule|Grade|Round|Season|Canto|Corps|Legion|Psalm|Sonnet|Symphony|Opus|Saturn|"
    "Gemini|Group|Division|Unit|Step|Problem|Lesson|Verse|Tier|Pillar"
)
_ROMAN = r"(?=[MDCLXVI])M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_CUED = re.compile(
    rf"\b((?:{_CUES}|{_CUES.upper()}|{_CUES.lower()}) )(?![CDLM]\b)({_ROMAN})(?![\w'-]|\.[A-Z])"
)
_TITLED_RULER = re.compile(
    rf"\b((?:King|Queen|Pope|Emperor|Empress|Tsar|Czar|Kaiser|Sultan|Prince|Duke)"
    rf"(?: [A-Z][a-z]{{1,20}}){{1,3}} )({_ROMAN})(?![\w-])"
)
_RULER = re.compile(rf"\b((?:{_RULERS}) )({_ROMAN})(?![\w-])")
_CENTURY = re.compile(rf"\b({_ROMAN})(?=(?:th)? [Cc]entur(?:y|ies)\b|th\b)(?:th)?")
_AFTER_NAME = re.compile(
    r"(?<=[a-z] )(II|III|VII|VIII|IX|X{1,3}I{1,3}|X{1,3}I?V|X{1,3}VI{1,3}|X{1,2}IX)"
    r"(?![\w'-])"
)
_AFTER_ONE = re.compile(
    r"$|[\"',.;:)?!–—]| (?:was|of|is|in|on|at|and|or|to|the|by|died|ruled|reigned|became|had|"
    r"begins|ends|began)\b"
)
_LETTER = re.compile(r"\b[MDCLXVI]+(?:th)?\b")
_INITIAL = re.compile(r"\. [A-Z]")
_LONG = re.compile(rf"\b(?=[MDCLXVI]{{5}})({_ROMAN})(?![\w-])")
_ALONE = re.compile(
    r"(?<![\w.'-])(II|III|VII|VIII|IX|XI{1,3}|XIV|XVI{0,3}|XIX|XXI{0,3}|XXIV)(?![\w'-])"
)


def roman_value(numeral: str) -> int:
    """'XIV' -> 14. The numeral is taken to be well formed."""
    total = 0
    values = [_VALUES[letter] for letter in numeral]
    for value, following in zip(values, [*values[1:], 0], strict=True):
        total += -value if value < following else value
    return total


def expand_roman(text: str) -> str:
    """Say Roman numerals: ranks after rulers and before 'century', counts elsewhere."""
    if not _LETTER.search(text):
        return text
    text = _CENTURY.sub(lambda match: ordinal(roman_value(match[1])), text)
    text = _CUED.sub(_cued, text)
    text = _TITLED_RULER.sub(_rank, text)
    text = _RULER.sub(_ruler, text)
    text = _AFTER_NAME.sub(lambda match: cardinal(roman_value(match[1])), text)
    text = _LONG.sub(lambda match: year(roman_value(match[1])), text)
    return _ALONE.sub(lambda match: cardinal(roman_value(match[1])), text)


def _rank(match: re.Match[str]) -> str:
    return f"{match[1]}the {ordinal(roman_value(match[2]))}"


def _cued(match: re.Match[str]) -> str:
    cue, numeral = match.groups()
    if (
        numeral == "I"
        and not cue.lower().endswith("war ")
        and not _AFTER_ONE.match(match.string, match.end())
    ):
        return match.group()  # "the book I bought"
    return f"{cue}{cardinal(roman_value(numeral))}"


def _ruler(match: re.Match[str]) -> str:
    """A lone 'I' after a name may be the pronoun, and other single letters an initial."""
    numeral = match[2]
    if len(numeral) > 1:
        return _rank(match)
    is_initial = numeral in "CDLM" or _INITIAL.match(match.string, match.end())
    is_pronoun = numeral == "I" and not _AFTER_ONE.match(match.string, match.end())
    return match.group() if is_initial or is_pronoun else _rank(match)
