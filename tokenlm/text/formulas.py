"""Signs between numbers to words: sums, equations, powers, comparisons, fractions, ratios."""

from __future__ import annotations

import re

from tokenlm.text.money import AMOUNT
from tokenlm.text.numerals import cardinal, code_number, ordinal, plural, spoken_number

_SET_PHRASES = {
    "24/7": "twenty four seven", "9/11": "nine eleven", "7/11": "seven eleven",
    "50/50": "fifty fifty", "20/20": "twenty twenty", "80/20": "eighty twenty",
    "24-7": "twenty four seven",
}  # fmt: skip
_NO_RANGE = re.compile(
    r"(?<![\w/.,$£€-])(?:(50)-50|(20)-20|([1-9][05])-([1-9][05])(?= (?:chance|split|rule|odds|mix|"
    r"ratio|deal|basis|vote|share|shot|rule|principle|partnership|custody|blend|hybrid)\b)|"
    r"(1)-2(?= (?:punch|combo)))(?![\w/-]|[.,][0-9])"
)
_SET_PHRASE = re.compile(rf"(?<![\w/.,])({'|'.join(_SET_PHRASES)})(?![\w/]|[.,][0-9])")
_DENOMINATORS = frozenset((*range(2, 13), 16, 20, 32, 50, 64, 100, 1000))

# Left of an equals sign a hyphen is a minus and a slash a division; elsewhere they seldom are.
_LEFT_SIDE = re.compile(r"[0-9a-z)][0-9a-z .,+*×÷/^()−–-]{1,80}?(?= ?[=≈≠<>≤≥])(?<=[0-9a-z )])")
_RIGHT_SIDE = re.compile(r"(?<==)[0-9 .,+*×÷/^()−-]{1,80}")
_MINUS_SIGN = re.compile(r"(?<=[0-9a-z)]) ?[-–] ?(?=[0-9(])|(?<=[0-9)]) ?- ?(?=[a-z0-9(])")
_SLASH_SIGN = re.compile(r"(?<=[0-9a-z)]) ?/ ?(?=[0-9a-z(])")
_TIMES_SIGN = re.compile(r"(?<=[0-9)]) ?x ?(?=[0-9(])")
_BY = re.compile(
    r"(?<=[0-9]) x (?=[0-9])|(?<=(?:in|ft|yd)) x (?=[0-9])|(?<=(?:in|ft|yd)\.) x (?=[0-9])|"
    r"(?<=[0-9][mnt\"']) x (?=[0-9])|(?<=[cm]m) x (?=[0-9])|(?<=[0-9])x"
    r"(?=(?:[0-9.]{1,6}x)?[0-9.]{1,6} ?(?:[mck]?m|ft|in|px)\b|"
    r"(?:[0-9.]{1,6}x)?[0-9.]{1,6}-(?:[mc]m|ft|in)\b)"
)
_FUNCTION = re.compile(r"(?<!\w)([a-zA-Z])\(([a-z])\)")
_STAR = re.compile(r"(?<=[0-9A-Za-z)]) ?\*\*? ?(?=[0-9(])|(?<=[0-9)]) ?\*\*? ?(?=[A-Za-z0-9(])")
_POWER = re.compile(r"(?<=[0-9A-Za-z)\]])\^\(?([-+]?[0-9]{1,6}(?:\.[0-9]{1,6})?|[a-z](?![a-z]))\)?")
_WORD_POWER = re.compile(r"(?<=[0-9A-Za-z)])\^(?=[a-z]{2})")
_ZONE_OFFSET = re.compile(r"(?:(?<=\bUTC)|(?<=\bGMT))[-−–](?=[0-9])")
_NEGATIVE = re.compile(
    r"(?<![0-9A-Za-z.,)%°$£€'\]–-])(?!(?<=×)–)(?:-|–(?! ))(?=\.?[0-9])(?![0-9]{1,2}-)|"
    r"(?<=\()-(?=[0-9])"
)
_NEGATIVE_MONEY = re.compile(r"(?<![0-9A-Za-z)%])[-−–](?=[$£€¥₹] ?[0-9])|(?<=[$£€¥₹])-(?=[0-9])")
_SCIENTIFIC = re.compile(rf"(?<![\w.])({AMOUNT})[eE]([-+]?)([0-9]{{1,3}})(?![\w.])")
_DIMENSIONS = re.compile(
    rf"(?<![\w.,])({AMOUNT})( ?)[xX×]\2({AMOUNT})(?:\2[xX×]\2({AMOUNT}))?(s)?(?! ?[=×+])(?![\w])"
)
_OUT_OF = re.compile(r"(?<![\w.,/])([0-9]{1,3}(?:\.[0-9])?)/(5|10|100)(?= (?:stars?|points?)\b)")
_MIXED = re.compile(r"(?<![\w.,/])([0-9]{1,6})[ -]([0-9]{1,2})/([0-9]{1,4})(?![\w/]|[.,][0-9])")
_FRACTION = re.compile(
    r"(?<![\w.,/])([0-9]{1,6})/([0-9]{1,6})(ths?|rds?|nds?|s)?(?![\w/]|[.,][0-9])"
)
_RATIO = re.compile(rf"(?<![\w.,:/])({AMOUNT}):({AMOUNT})(?::({AMOUNT}))?(?![\w:]|[.,][0-9])")
_RELATIONS = {
    "===": "equals", "==": "equals", "!=": "does not equal", "<=": "is less than or equal to",
    ">=": "is greater than or equal to", "->": "to", "=>": "to", "<-": "from", "=": "equals",
    "≠": "does not equal", "≈": "is approximately", "≤": "is less than or equal to",
    "≪": "is less than", "≥": "is greater than or equal to", "<": "is less than",
    ">": "is greater than",
}  # fmt: skip
_RELATION = re.compile("===|==|!=|<=|>=|->|=>|<-|=|≠|≈|≤|≥|<|>")
# "takes <5 minutes", "<5", "(> 90 %)": nothing there that is less or greater, so no "is".
_BOUND = re.compile(
    r"(?:(?<=^)|(?<=[(\[,;:.!?\"] )|(?<=[(\[\"])|(?<=[A-Za-z][a-z])|(?<=[a-z][a-z] )|(?<=[a-z]\) )|"
    r"(?<='[a-z] )|(?<=\b[aA] )(?=[<>]=?[0-9$£€]))(<=|>=|=<|≤|≥|<|>) ?(?=[$£€¥~-]?\.?[0-9]|"
    r"minus [0-9])"
)
_BOUND_WORDS = {
    "<": "less than", ">": "greater than", "<=": "less than or equal to",
    ">=": "greater than or equal to", "=<": "less than or equal to",
    "≤": "less than or equal to", "≥": "greater than or equal to",
}  # fmt: skip
_OPERATORS = {
    "+": "plus", "×": "times", "÷": "divided by", "±": "plus or minus", "−": "minus",
    "√": "square root of", "∞": "infinity",
}  # fmt: skip
_OPERATOR = re.compile("[+×÷±−√∞]")
_PLUS_MINUS = re.compile(r"\+/-|\+-(?=[0-9])")
_RUN = re.compile(r"[+=<>*]{4,}|<{2,}|>{2,}|\*{3,}")
_BITS = re.compile(r"(?<![\w.])([01])'?s (?:and|or) ([01])'?s(?!\w)")
_SIGN = re.compile(r"[0-9^+~×÷±−√∞≈≠≤≥<>=*]|\([a-z]\)")
_TILDE_RANGE = re.compile(r"(?<=[0-9]) ?~ ?(?=[0-9])")
_ABOUT_TWICE = re.compile(r"(?:(?<=\b[aA] )|(?<=[aA]bout ))~(?=[0-9])")
_ABOUT = re.compile(r"[~≈](?= ?[$£€]?[0-9])")


def expand_signs(text: str) -> str:
    """Say negative numbers, powers, comparisons and operators; run before units and numbers."""
    if not _SIGN.search(text):
        return text
    text = _RUN.sub(" ", text)
    text = _BITS.sub(
        lambda match: f"{plural(cardinal(int(match[1])))} and {plural(cardinal(int(match[2])))}",
        text,
    )
    text = _TILDE_RANGE.sub(" to ", text)
    text = _PLUS_MINUS.sub("±", text)
    if any(sign in text for sign in "=≈≠<>≤≥"):
        text = _LEFT_SIDE.sub(_equation_side, text)
        text = _RIGHT_SIDE.sub(_equation_side, text)
        text = _BOUND.sub(lambda match: f" {_BOUND_WORDS[match[1]]} ", text)
    text = _ABOUT.sub("about ", _ABOUT_TWICE.sub("", text))
    text = _ZONE_OFFSET.sub(" minus ", text)
    text = _NEGATIVE_MONEY.sub("minus ", text)
    text = _NEGATIVE.sub("minus ", text)
    text = _SCIENTIFIC.sub(_scientific, text)
    text = _BY.sub(" by ", text)
    text = _FUNCTION.sub(r"\1 of \2", text)
    return _STAR.sub(" times ", text)


def expand_formulas(text: str) -> str:
    """Say powers, dimensions, fractions, ratios, then whatever sign is left; run after units."""
    if not _SIGN.search(text):
        return text
    text = _POWER.sub(_power, text)
    text = _WORD_POWER.sub(" to the power of ", text)
    text = _NO_RANGE.sub(
        lambda match: " ".join(cardinal(int(part)) for part in match.group().split("-")), text
    )
    text = _SET_PHRASE.sub(lambda match: _SET_PHRASES[match[1]], text)
    text = _OUT_OF.sub(
        lambda match: f"{spoken_number(match[1])} out of {spoken_number(match[2])}", text
    )
    text = _MIXED.sub(_mixed, text)
    text = _FRACTION.sub(_fraction, text)
    text = _DIMENSIONS.sub(_dimensions, text)
    text = _RATIO.sub(
        lambda match: " to ".join(spoken_number(part) for part in match.groups() if part), text
    )
    text = _RELATION.sub(lambda match: f" {_RELATIONS[match.group()]} ", text)
    return _OPERATOR.sub(lambda match: f" {_OPERATORS[match.group()]} ", text)


def _equation_side(match: re.Match[str]) -> str:
    side = match.group()
    if not any(sign.isdigit() for sign in side):
        return side
    side = _TIMES_SIGN.sub(" times ", side)
    side = _MINUS_SIGN.sub(" minus ", side)
    return _SLASH_SIGN.sub(" divided by ", side)


def _power(match: re.Match[str]) -> str:
    power = match[1]
    if power in ("2", "3"):
        return " squared " if power == "2" else " cubed "
    sign = "minus " if power.startswith("-") else ""
    power = power.lstrip("+-")
    return f" to the power of {sign}{power if power.isalpha() else spoken_number(power)} "


def _scientific(match: re.Match[str]) -> str:
    sign = "minus " if match[2] == "-" else ""
    return f"{spoken_number(match[1])} times ten to the power of {sign}{cardinal(int(match[3]))}"


def _named_fraction(numerator: int, denominator: int) -> str:
    if denominator == 2:
        name = "half" if numerator == 1 else "halves"
    elif denominator == 4:
        name = "quarter" if numerator == 1 else "quarters"
    else:
        name = ordinal(denominator) if numerator == 1 else plural_ordinal(denominator)
    return f"{cardinal(numerator)} {name}"


def plural_ordinal(number: int) -> str:
    """3 -> 'thirds', 20 -> 'twentieths'."""
    words = ordinal(number)
    return f"{words}s"


def _mixed(match: re.Match[str]) -> str:
    whole, numerator, denominator = spoken_number(match[1]), int(match[2]), int(match[3])
    if denominator not in _DENOMINATORS or not 0 < numerator < denominator:
        return f"{whole} {_over(match[2], match[3])}"
    fraction = _named_fraction(numerator, denominator)
    if numerator == 1 and denominator in (2, 4):
        fraction = fraction.replace("one ", "a ")
    return f"{whole} and {fraction}"


def _fraction(match: re.Match[str]) -> str:
    numerator, denominator = int(match[1]), int(match[2])
    if numerator == denominator and denominator in (5, 10, 100):
        return f"{cardinal(numerator)} out of {cardinal(denominator)}"
    if (
        denominator in _DENOMINATORS
        and 0 < numerator < max(denominator, 2) * 2
        and numerator != denominator
    ):
        return _named_fraction(numerator, denominator)
    return _over(match[1], match[2])


def _over(numerator: str, denominator: str) -> str:
    return f"{spoken_number(numerator)} over {spoken_number(denominator)}"


def _dimensions(match: re.Match[str]) -> str:
    """'1920x1080' -> 'nineteen twenty by ten eighty'."""
    sides = [side for side in match.group(1, 3, 4) if side]
    if "×" in match.group() and all(len(side) < 4 for side in sides):
        return " times ".join(spoken_number(side) for side in sides)
    screen = all(len(side) in (3, 4) and side.isdigit() for side in sides)
    words = [code_number(side) if screen else spoken_number(side) for side in sides]
    return plural(" by ".join(words)) if match[5] else " by ".join(words)
