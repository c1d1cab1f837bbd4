"""Numbers that are no date, money, measure or code: counts, ranks, ranges, years."""

from __future__ import annotations

import re

from tokenlm.text.money import AMOUNT
from tokenlm.text.numerals import cardinal, code_number, ordinal, plural, spoken_number, year

_ORDINAL = re.compile(
    r"(?<![\w.])([0-9]{1,3}(?:,[0-9]{3}){1,8}|[0-9]{1,36})(?:-?(?:st|nd|rd|th)|ST|ND|RD|TH)"
    r"(?![A-Za-z0-9])"
)
_PLURAL = re.compile(r"(?<![\w.,])([0-9]{1,6})'?s(?!\w)")
_NUMBER_SIGN = re.compile(r"(?<![\w#&])#{1,3} ?(?=[0-9])")
_MILLION = re.compile(rf"(?<![\w.,])({AMOUNT})(?: ?(bn|mn)|(M|B(?=\b)))(?![\w'-])")
_RANGE = re.compile(rf"(?<![\w.,/])({AMOUNT})( ?[-–—] ?)(?={AMOUNT}(?![\w/-]))")
_BEFORE_WORD = re.compile(rf"(?<![\w.,/])({AMOUNT})-(?=[A-Za-z]{{2,}})")
_DECIMAL_LETTER = re.compile(
    r"(?<![\w.])([0-9]{1,36}(?:,[0-9]{3}){0,100}\.[0-9]{1,36})(?=[A-Za-z])"
)
_YEAR = re.compile(
    r"(?<![\w.,/-])((?:1[1-9]|20)[0-9]{2})(?![\w/]|[.,][0-9]|-[0-9])( [a-z]{2,20}\b)?"
)
_DIGIT = re.compile(r"[0-9]")
_NUMBER = re.compile(AMOUNT)
_NOT_PLURAL = frozenset(
    "was is has its his this as does us thus always perhaps towards across less unless".split()
)
_COUNTED = frozenset(
    "people men women children words times percent square million thousand cubic hundred "
    "sheep fish dollars more of pieces persons".split()
)


def expand_ordinals(text: str) -> str:
    """Say '22nd', '#5', '10M', and part numbers from the words they are joined to."""
    if not _DIGIT.search(text):
        return text
    text = _ORDINAL.sub(_ordinal, text)
    text = _PLURAL.sub(lambda match: plural(code_number(match[1])), text)
    text = _NUMBER_SIGN.sub(" number ", text)
    text = _MILLION.sub(_million, text)
    text = _DECIMAL_LETTER.sub(lambda match: f"{spoken_number(match[1])} ", text)
    return _BEFORE_WORD.sub(lambda match: f"{spoken_number(match[1])} ", text)


def expand_ranges(text: str) -> str:
    """Say the dash between two numbers as 'to'."""
    return _RANGE.sub(lambda match: f"{_year_or_count(match[1])} to ", text)


def expand_numbers(text: str) -> str:
    """Say every number that is left."""
    text = _YEAR.sub(_bare_year, text)
    return _NUMBER.sub(lambda match: f" {spoken_number(match.group())} ", text)


def _ordinal(match: re.Match[str]) -> str:
    return ordinal(int(match[1].replace(",", "")))


def _million(match: re.Match[str]) -> str:
    scale = match[2] or match[3]
    if scale == "B" and "." not in match[1]:  # a 2B pencil, flat 12B
        return match.group()
    return f"{spoken_number(match[1])} {'million' if scale.lower().startswith('m') else 'billion'}"


def _year_or_count(number: str) -> str:
    is_year = len(number) == 4 and number.isdigit() and 1100 <= int(number) < 2100
    return year(int(number)) if is_year else spoken_number(number)


def _bare_year(match: re.Match[str]) -> str:
    """Four digits are a year, unless a counted noun follows ('1984 apples')."""
    number, following = match[1], match[2] or ""
    word = following.strip()
    counted = word in _COUNTED or (
        word.endswith("s") and not word.endswith("ss") and word not in _NOT_PLURAL
    )
    return (cardinal(int(number)) if counted else year(int(number))) + following
