"""Measures to words: '5 km', '3.5GHz', '20 °C', '60 mph', '10 m/s^2', 5'11", '15%'."""

from __future__ import annotations

import re

from tokenlm.text.money import AMOUNT
from tokenlm.text.numerals import is_one, spoken_number

_PREFIXED = {
    "m": "meter", "g": "gram", "l": "liter", "L": "liter", "s": "second", "Hz": "hertz",
    "W": "watt", "V": "volt", "J": "joule", "Pa": "pascal", "N": "newton", "eV": "electron volt",
    "Wh": "watt hour", "B": "byte", "bps": "bit per second", "bit": "bit", "b": "bit",
    "mol": "mole", "cal": "calorie", "Ah": "amp hour",
}  # fmt: skip
_PREFIXES = {
    "n": "nano", "u": "micro", "m": "milli", "c": "centi", "d": "deci", "k": "kilo", "K": "kilo",
    "h": "hecto", "M": "mega", "G": "giga", "T": "tera", "P": "peta",
}  # fmt: skip
_ALLOWED = (
    "nm um mm cm km dm ug mg kg ng ml mL cl dl dL ul uL hl ns us ms kHz KHz MHz GHz THz mW "
    "kW MW GW TW mV kV MV kJ MJ mJ kPa hPa MPa GPa kN keV MeV GeV TeV kWh MWh GWh TWh mWh kB "
    "KB MB GB TB PB kbps Kbps Mbps Gbps kbit Mbit Gbit kb Mb Gb Tb mmol kcal mAh"
).split()
_UNITS: dict[str, str] = {
    "m": "meter", "g": "gram", "l": "liter", "L": "liter", "Hz": "hertz", "W": "watt",
    "V": "volt", "J": "joule", "Pa": "pascal", "N": "newton", "eV": "electron volt",
    "Wh": "watt hour", "bps": "bit per second", "s": "second", "sec": "second", "secs": "second",
    "min": "minute", "mins": "minute", "hr": "hour", "hrs": "hour", "h": "hour", "mi": "mile",
    "ft": "foot", "in": "inch", "yd": "yard", "yds": "yard", "lb": "pound", "lbs": "pound",
    "oz": "ounce", "gal": "gallon", "pt": "point", "tsp": "teaspoon", "tbsp": "tablespoon",
    "acre": "acre", "ha": "hectare", "mph": "mile per hour", "kph": "kilometer per hour",
    "kmh": "kilometer per hour", "fps": "frame per second", "rpm": "revolution per minute",
    "bpm": "beat per minute", "mpg": "mile per gallon", "dB": "decibel", "dBm": "d b m",
    "psi": "p s i", "bar": "bar", "mA": "milliamp", "uA": "microamp", "uF": "microfarad",
    "nF": "nanofarad", "pF": "picofarad", "ohm": "ohm", "kohm": "kilo ohm", "Mohm": "mega ohm",
    "°C": "degree celsius", "°F": "degree fahrenheit", "°": "degree", "° C": "degree celsius",
    "° F": "degree fahrenheit", "°K": "kelvin", "KiB": "kibibyte", "MiB": "mebibyte",
    "GiB": "gibibyte", "TiB": "tebibyte", "MP": "megapixel", "Mpx": "megapixel", "pts": "point",
    "px": "pixel", "ppm": "part per million", "dpi": "dot per inch", "cc": "c c",
    "sq ft": "square foot", "sq. ft.": "square foot", "sqft": "square foot",
    "sq m": "square meter", "sq km": "square kilometer", "sq mi": "square mile",
    "fl oz": "fluid ounce", "fl. oz.": "fluid ounce", "kn": "knot", "yr": "year", "yrs": "year",
    "wk": "week", "wks": "week", "mo": "month", "mos": "month", "kt": "kiloton", "Mt": "megaton",
    "cwt": "hundredweight", "kbp": "kilobase", "d": "day",
}  # fmt: skip
_UNITS |= {
    symbol: _PREFIXES[symbol[0]] + _PREFIXED[symbol[1:]]
    for symbol in _ALLOWED
    if symbol[1:] in _PREFIXED
}
_IRREGULAR = {"foot": "feet", "inch": "inches", "square foot": "square feet"}
_UNCHANGED = ("hertz", "d b m", "p s i", "c c", "kelvin", "hundredweight")
# What looks like a unit is more often a word ("5 in the room") or a letter ("size 5L").
_WORD_WHEN_APART = frozenset({"in", "d", "mo", "kt", "Mt"})
_LETTER_WHEN_ATTACHED = frozenset({"d", "L", "N", "V", "J"})
_DENOMINATORS = {
    "h": "hour", "hr": "hour", "hour": "hour", "s": "second", "sec": "second", "second": "second",
    "min": "minute", "minute": "minute", "day": "day", "d": "day", "week": "week", "wk": "week",
    "month": "month", "mo": "month", "year": "year", "yr": "year", "m": "meter",
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "kg": "kilogram", "g": "gram",
    "l": "liter", "L": "liter", "dL": "deciliter", "dl": "deciliter", "ml": "milliliter",
    "mL": "milliliter", "lb": "pound", "person": "person", "mol": "mole", "in": "inch",
    "ft": "foot", "mi": "mile", "gal": "gallon",
}  # fmt: skip
_POWERS = {"2": "square", "3": "cubic"}


def _alternatives(symbols: set[str] | dict[str, str]) -> str:
    return "|".join(re.escape(symbol) for symbol in sorted(symbols, key=len, reverse=True))


_MEASURE = re.compile(
    rf"(?<![\w.,])({AMOUNT})(?:( ?[-–—] ?| to |-to-)({AMOUNT}))?( ?|-)({_alternatives(_UNITS)})"
    rf"(?:\^?([23])(?![0-9A-Za-z]|[.,][0-9]))?(?:/({_alternatives(_DENOMINATORS)})(?:\^?"
    rf"([23]))?)?(?![A-Za-z0-9^]|'[a-rt-z])(\.(?= [a-z0-9,(]|,))?"
)
_FRACTION_MEASURE = re.compile(
    r"(?<=[0-9]/[0-9]) ?-?(tsp|tbsp|in|ft|mi|lb|lbs|oz|yd|kg|km|hr|hrs)\b\.?(?! the\b| a\b| my\b)"
)
_FEET_INCHES = re.compile(rf"(?<![\w'.,])([0-9]{{1,3}})'[ -]?({AMOUNT})(?:\"|''|(?![0-9'A-Za-z]))")
_FEET = re.compile(rf"(?<![\w'.,])({AMOUNT})'(?=[ ,.)]|$)(?=[^']*$)")
_QUOTE = re.compile(rf"((?<![\w'.,/])(?:[0-9]{{1,3}}/[0-9]{{1,3}}(?![0-9.,/])|{AMOUNT}))?\"")
_COORDINATE = re.compile(
    r"([0-9]{1,3})° ?([0-9]{1,2})'(?: ?([0-9]{1,2})(?:\.[0-9]{1,6})?\")? ?([NSEW])\b"
)
_COMPASS = {"N": "north", "S": "south", "E": "east", "W": "west"}
_PERCENT = re.compile(rf"(?<![\w.,])({AMOUNT}) ?%?(?: ?[-–—] ?({AMOUNT}))? ?%(?:-(?=[a-z]))?")
_PER = re.compile(
    r"(?<=[a-z0-9])/(hour|hr|day|week|month|mo|year|yr|person|night|unit|share|gallon|gal|"
    r"barrel|kg|lb|ton|minute|"
    r"min|second|sec|user|head|page|km|mile)\b(?!/)"
)
_MULTIPLIER = re.compile(rf"(?<![\w.,])({AMOUNT})[x×](?![A-Za-z0-9]| ?[-+*/=^<>)])")
_DIGIT = re.compile(r"[0-9]")


def expand_units(text: str) -> str:
    """Say measures: a number (or a range of them) and the unit behind it."""
    if not _DIGIT.search(text):
        return _PER.sub(_per_word, text)
    text = _COORDINATE.sub(_coordinate, text)
    text = _FEET_INCHES.sub(_feet_inches, text)
    if '"' in text:
        text = _expand_inches(text)
    text = _FEET.sub(lambda match: _counted(match[1], "foot"), text)
    text = _FRACTION_MEASURE.sub(lambda match: f" {_UNITS[match[1]]}", text)
    text = _MEASURE.sub(_measure, text)
    text = _PER.sub(_per_word, text)
    text = _MULTIPLIER.sub(lambda match: f"{spoken_number(match[1])} times", text)
    return _PERCENT.sub(_percent, text).replace("%", " percent ")


def pluralise(unit: str) -> str:
    """'mile per hour' -> 'miles per hour', 'foot' -> 'feet'."""
    head, per, rest = unit.partition(" per ")
    if head in _IRREGULAR:
        head = _IRREGULAR[head]
    elif head.startswith("degree"):
        head = head.replace("degree", "degrees")
    elif head not in _UNCHANGED and not head.endswith("hertz"):
        head = f"{head}s"
    return head + per + rest


def _counted(number: str, unit: str) -> str:
    return f"{spoken_number(number)} {unit if is_one(number) else pluralise(unit)}"


def _measure(match: re.Match[str]) -> str:
    first, last, gap, symbol, power, per, per_power, _ = match.group(1, 3, 4, 5, 6, 7, 8, 9)
    if not (per or power) and _is_letter(symbol, gap):
        return match.group()
    unit = f"{_POWERS[power]} {_UNITS[symbol]}" if power else _UNITS[symbol]
    if per:
        unit += _per(_DENOMINATORS[per], per_power)
    words = f"{spoken_number(first)} to {spoken_number(last)}" if last else spoken_number(first)
    singular = gap == "-" or (is_one(first) and not last)
    return f"{words} {unit if singular else pluralise(unit)}"


def _is_letter(symbol: str, gap: str) -> bool:
    """Whether a unit's symbol at this distance from the number is rather a word or a letter."""
    if gap == " ":
        return symbol in _WORD_WHEN_APART
    if gap == "-":
        return len(symbol) == 1 and symbol not in "mg"
    return symbol in _LETTER_WHEN_ATTACHED


def _per(denominator: str, power: str | None) -> str:
    if not power:
        return f" per {denominator}"
    if denominator == "second":
        return f" per second {'squared' if power == '2' else 'cubed'}"
    return f" per {_POWERS[power]} {denominator}"


def _per_word(match: re.Match[str]) -> str:
    return f" per {_DENOMINATORS.get(match[1], match[1])}"


def _feet_inches(match: re.Match[str]) -> str:
    return f"{spoken_number(match[1])} foot {spoken_number(match[2])}"


def _expand_inches(text: str) -> str:
    """A double quote behind a number means inches, unless a quotation is open."""
    is_open = False

    def replace(match: re.Match[str]) -> str:
        nonlocal is_open
        if match[1] and not is_open:
            return f"{match[1]} inch " if "/" in match[1] else f"{_counted(match[1], 'inch')} "
        is_open = not is_open
        return match.group()

    return _QUOTE.sub(replace, text)


def _coordinate(match: re.Match[str]) -> str:
    degrees, minutes, seconds, side = match.groups()
    words = f"{_counted(degrees, 'degree')} {_counted(minutes, 'minute')}"
    return f"{words}{' ' + _counted(seconds, 'second') if seconds else ''} {_COMPASS[side]}"


def _percent(match: re.Match[str]) -> str:
    first, last = match.groups()
    words = f"{spoken_number(first)} to {spoken_number(last)}" if last else spoken_number(first)
    tail = " " if match.group().endswith("-") else ""
    return f"{words} percent{tail}"
