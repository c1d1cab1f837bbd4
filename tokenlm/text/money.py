"""Sums of money to words: '$3.50', '£1m', '€2.5 billion', '99¢', 'US$5', '5 USD'."""

from __future__ import annotations

import re

from tokenlm.text.numerals import cardinal, is_one, spoken_number

# sign or code: (one, many, hundredth, hundredths)
_DOLLAR = ("dollar", "dollars", "cent", "cents")
_POUND = ("pound", "pounds", "penny", "pence")
_EURO = ("euro", "euros", "cent", "cents")
_YEN = ("yen", "yen", "", "")
_CURRENCIES = {
    "$": _DOLLAR, "£": _POUND, "€": _EURO, "¥": _YEN, "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "", ""), "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₿": ("bitcoin", "bitcoins", "", ""), "EUR": _EURO, "GBP": _POUND, "JPY": _YEN,
    "USD": ("u s dollar", "u s dollars", "cent", "cents"),
    "CHF": ("swiss franc", "swiss francs", "centime", "centimes"),
    "CAD": ("canadian dollar", "canadian dollars", "cent", "cents"),
    "AUD": ("australian dollar", "australian dollars", "cent", "cents"),
    "CNY": ("yuan", "yuan", "", ""), "INR": ("rupee", "rupees", "paisa", "paise"),
    "BTC": ("bitcoin", "bitcoins", "", ""),
}  # fmt: skip
_PREFIXES = {
    "US": "u s", "U.S.": "u s", "A": "australian", "AU": "australian", "C": "canadian",
    "CA": "canadian", "NZ": "new zealand", "HK": "hong kong", "S": "singapore", "R": "",
}  # fmt: skip
_SCALES = {
    "k": "thousand", "thousand": "thousand", "m": "million", "mn": "million", "mm": "million",
    "million": "million", "mil": "million", "b": "billion", "bn": "billion", "billion": "billion",
    "t": "trillion", "tn": "trillion", "trillion": "trillion", "hundred": "hundred",
}  # fmt: skip

AMOUNT = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,100}(?![0-9]|,[0-9]{3})(?:\.[0-9]++)?"
    r"|[0-9]++(?:\.[0-9]++)?|\.[0-9]++)"
)
"""An unsigned number as written, with grouping commas or a decimal point."""

# A unit before these has no plural, even without an article: "100 m sprints".
_ATTRIBUTED = (
    r"dash|race|sprints?|hurdles|relay|freestyle|butterfly|backstroke|breaststroke|run|limit|"
    r"radius|mark|screens?|monitors?|displays?|laptops?|cans?|bottles?|bags?|pipes?|bolts?|lens|"
    r"zoom|tanks?|nails?|screws?|pans?|tires?|tyres?|wheels?|hoses?|cables?|poles?|boards?|jars?|"
    r"packs?|walls?|fences?|ceilings?|bulbs?|batter(?:y|ies)|engines?|motors?|drives?|disks?|"
    r"ladders?|steaks?|burgers?|doses?|tablets?|pills?|capsules?|shifts?|walks?|rides?|breaks?|"
    r"waits?|delays?|calls?|naps?|videos?|hikes?|swims?|ruler|pizzas?"
)
_NOT_ATTRIBUTED = (
    "of|and|or|to|in|on|at|by|from|per|is|was|are|were|for|with|than|the|an?|if|as|but|so|that|"
    "when|while|will|would|can|could|has|had|have|over|under|above|below|each|every|more|less|too|"
    "away|ago|later|before|after|until|it|he|she|we|they|you|long|wide|tall|deep|high|thick|across|"
    "up|down|out|off|apart|into|through|along|around|north|south|east|west|behind|ahead|short|"
    "total|only|my|do|be|no|go|us|me|am|oh|vs|etc"
)
_ARTICLE_BEFORE = re.compile(r"\b[Aa]n? $")
_ATTRIBUTE = re.compile(rf" (?:{_ATTRIBUTED})\b| (?!(?:{_NOT_ATTRIBUTED})\b)[a-z]{{2,}}")
_ATTRIBUTE_ALWAYS = re.compile(rf" (?:{_ATTRIBUTED})\b")

_SIGN = "[$£€¥₹₩₽₿]"
_CODE = "USD|EUR|GBP|JPY|CHF|CAD|AUD|CNY|INR|BTC"
_SCALE = (
    r"(?:[ -]?(hundred|thousand|million|billion|trillion|mil|mn|bn|tn)\b| ?([KkMmBbTt])\b"
    r"(?!')|(mm|MM)\b)?"
)
_BEFORE = re.compile(
    rf"(?:(?<![A-Za-z])(US |US|U\.S\. ?|AU|A|CA|C|NZ|HK|S|R))?({_SIGN}) ?({AMOUNT}){_SCALE}"
    rf"(?: ?[-–—] ?{_SIGN}?({AMOUNT}){_SCALE})?(\+)?( (?:bill|note|coin|banknote)\b|-(?=[a-z]))?"
)
_CODE_BEFORE = re.compile(rf"\b({_CODE}) ?({AMOUNT}){_SCALE}")
_AFTER = re.compile(rf"(?<![\w.,-])({AMOUNT}){_SCALE} ?({_SIGN}|(?:{_CODE})\b)(?![0-9])")
_CENTS = re.compile(rf"(?<![\w.,])({AMOUNT}) ?¢")
_PENCE = re.compile(r"(?<![\w.,-])([0-9]{1,2})p\b(?!\.?[0-9])")
_RUPEES = re.compile(r"\bRs\.? ?(?=[0-9])")
_STRAY = re.compile(f"(?<![A-Za-z]){_SIGN}+|{_SIGN}{{2,}}")


def is_attribute(text: str, start: int, end: int) -> bool:
    """Whether a measure describes the noun behind it: 'a 10 km run', '100 m sprints'."""
    rest = text[end : end + 24]
    if _ATTRIBUTE_ALWAYS.match(rest):
        return True
    return bool(_ARTICLE_BEFORE.search(text[max(start - 16, 0) : start]) and _ATTRIBUTE.match(rest))


def expand_money(text: str) -> str:
    """Say sums of money in the currency's words."""
    if not any(sign in text for sign in "$£€¥₹₩₽₿¢") and not re.search(
        rf"\b(?:{_CODE})\b|[0-9][pc]\b|\bRs\b", text
    ):
        return text
    text = _RUPEES.sub("₹", text)
    text = _BEFORE.sub(_before, text)
    text = _CODE_BEFORE.sub(
        lambda match: _sum(match[2], _scale(match, 3), _CURRENCIES[match[1]]) + " ", text
    )
    text = _AFTER.sub(
        lambda match: _sum(match[1], _scale(match, 2), _CURRENCIES[match[5]]) + " ", text
    )
    text = _CENTS.sub(
        lambda match: f"{spoken_number(match[1])} cent{'' if is_one(match[1]) else 's'}", text
    )
    text = _PENCE.sub(
        lambda match: f"{cardinal(int(match[1]))} {'penny' if is_one(match[1]) else 'pence'}", text
    )
    return _STRAY.sub(" ", text)


def _scale(match: re.Match[str], first: int) -> str:
    """The scale word among the three groups of `_SCALE` that start at group `first`."""
    written = match[first] or match[first + 1] or match[first + 2]
    return _SCALES[written.lower()] if written else ""


def _before(match: re.Match[str]) -> str:
    prefix, sign, amount, last, suffix = match[1], match[2], match[3], match[7], match[12]
    country = f"{_PREFIXES[prefix.strip()]} " if prefix else ""
    names = _CURRENCIES[sign]
    if prefix == "R":
        country, names = "", ("real", "reais", "centavo", "centavos")
    names = (country + names[0], country + names[1], *names[2:])
    scale, last_scale = _scale(match, 4), _scale(match, 8)
    if last:
        first = f"{spoken_number(amount)}{' ' + scale if scale and scale != last_scale else ''}"
        words = f"{first} to {_sum(last, last_scale, names)}"
    elif suffix or (
        (scale or amount.isdigit()) and is_attribute(match.string, match.start(), match.end())
    ):
        number = f"{spoken_number(amount)} {scale}".rstrip()
        words = f"{number} {names[0]}{(suffix or '').replace('-', ' ')}"
    else:
        words = _sum(amount, scale, names)
    after = match.string[match.end() : match.end() + 1]
    return f" {words}{' plus' if match[11] else ''}{' ' if after.isalnum() else ''}"


def _sum(amount: str, scale: str, names: tuple[str, ...]) -> str:
    one, many, hundredth, hundredths = names
    amount = amount.replace(",", "")
    whole, _, decimals = amount.partition(".")
    if scale:
        return f"{spoken_number(amount)} {scale} {many}"
    if len(decimals) != 2 or not hundredth:
        return f"{spoken_number(amount)} {one if is_one(amount) else many}"
    parts = []
    if whole.strip("0") or decimals == "00":
        parts.append(f"{spoken_number(whole)} {one if whole == '1' else many}")
    if decimals != "00":
        parts.append(f"{cardinal(int(decimals))} {hundredth if decimals == '01' else hundredths}")
    return " and ".join(parts)
