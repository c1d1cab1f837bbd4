"""Measures to words: '5 km', '3.5GHz', '20 °C', '60 mph', '10 m/s^2', 5'11", '15%'."""

from __future__ import annotations

import re

from tokenlm.text.money import AMOUNT, is_attribute
from tokenlm.text.numbers import MILLIONS_BEHIND
from tokenlm.text.numerals import is_one, spoken_number
from tokenlm.text.punctuation import sentence_stop

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
    "cwt": "hundredweight", "kbp": "kilobase", "d": "day", "qt": "quart", "qts": "quart",
    "gals": "gallon", "tbs": "tablespoon", "tbsps": "tablespoon", "tsps": "teaspoon",
    "Tbsp": "tablespoon", "Tbs": "tablespoon",
    "Tbsps": "tablespoon", "Tsp": "teaspoon",
    "TBSP": "tablespoon", "TSP": "teaspoon",
    "cu ft": "cubic foot", "cu. ft.": "cubic foot", "cu in": "cubic inch",
    "cu. in.": "cubic inch", "cu yd": "cubic yard", "cu. yd.": "cubic yard",
    "sq in": "square inch", "sq. in.": "square inch", "sq yd": "square yard",
    "sq. yd.": "square yard", "sq. mi.": "square mile", "sq. m": "square meter",
    "sq. km": "square kilometer", "sq. m.": "square meter", "sq. km.": "square kilometer",
    "sq.ft.": "square foot", "cu.ft.": "cubic foot", "ft-lb": "foot pound",
    "ft-lbs": "foot pound", "ft lb": "foot pound", "ft lbs": "foot pound",
    "ft. lbs.": "foot pound", "ft.-lbs.": "foot pound", "c.": "cup",
    "deg": "degree", "deg.": "degree", "deg C": "degree celsius",
    "deg F": "degree fahrenheit", "deg. C": "degree celsius", "deg. F": "degree fahrenheit",
    "doz": "dozen", "doz.": "dozen", "hp": "horsepower", "nmi": "nautical mile",
}  # fmt: skip
_UNITS |= {
    symbol: _PREFIXES[symbol[0]] + _PREFIXED[symbol[1:]]
    for symbol in _ALLOWED
    if symbol[1:] in _PREFIXED
}
_IRREGULAR = {
    f"{power}{one}": f"{power}{many}"
    for one, many in (("foot", "feet"), ("inch", "inches"))
    for power in ("", "square ", "cubic ")
}
_UNCHANGED = ("hertz", "d b m", "p s i", "c c", "kelvin", "hundredweight", "dozen", "horsepower")
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


# "a 5-km-long road"; before other words a hyphen on both sides makes no unit ("2-in-1").
_SHAPES = (
    "long|wide|tall|thick|deep|high|square|diameter|radius|old|range|heavy|plus|rated|capable|away"
)


def _alternatives(symbols: set[str] | dict[str, str]) -> str:
    return "|".join(re.escape(symbol) for symbol in sorted(symbols, key=len, reverse=True))


_MEASURE = re.compile(
    rf"(?<![\w.,])({AMOUNT})(?:( ?[-–—] ?| to |-to-)({AMOUNT}))?( ?|-)({_alternatives(_UNITS)})"
    rf"(?:\^?([23])(?![0-9A-Za-z]|[.,][0-9]))?(?:/({_alternatives(_DENOMINATORS)})(?:\^?"
    rf"([23]))?)?(?![A-Za-z0-9^]|'[a-rt-z])(\.(?= [a-z0-9,(]| [NSEW]{{1,3}}\b|[,)])|"
    rf"-(?=(?:{_SHAPES})\b))?"
)
_FRACTION_MEASURE = re.compile(
    r"(?<=[0-9]/[0-9])( ?-?)(tsp|tbsp|Tsp|Tbsp|TSP|TBSP|in|ft|mi|lb|"
    r"lbs|oz|yd|kg|km|hr|hrs|qt|gal|c(?=\. [a-z]))\b"
    r"(\.)?(?! (?:the|a|an|my|your|his|her|its|our|their|this|that|each|every)\b)"
)
_WHOLE = re.compile(r"(?<![\w.,/])[0-9]{1,4}[ -][0-9]{1,3}/[0-9]{1,3}$")
# "3 in of rain", but "5 in the room": inches where no place, time or group can follow.
_FREE = (
    r"(?= *(?:$|[.,;:!?)]| (?:and|by|or|but|is|was|are|were|for|with|on|at|from|when|than|as|x|×)"
    r"\b))"
)
_INCHES = re.compile(
    rf"(?<![\w.,])((?:[0-9]{{1,4}}[ -])?[0-9]{{1,3}}/[0-9]{{1,3}}|{AMOUNT})( |"
    rf" ?- ?)in(\.(?= [A-Za-z0-9(x×=]|[,;)]|$)|(?= of\b| per\b| (?:wide|tall|thick|across|"
    rf"square)\b| in diameter| (?:long|deep|high){_FREE}|[,;)]|[.!?]?$| ?[x×] ?[0-9]| by [0-9]"
    r"| (?:pan|pizza|ruler|pipe|screen|tablet|knife|blade|pot|skillet|hole|nails?|screws?|boards?|"
    r"plate|cake|tin|gap|margin|monitor|sub|sandwich|wheels?|tires?|tyres?|display|phone|laptop|tv|"
    r"TV)\b))"
)
_FEET_AND_INCHES = re.compile(
    rf"(?<![\w.,])([0-9]{{1,3}})( ?-?)(?:ft\b\.?|feet|foot),?( |-)({AMOUNT})[ -]?in(?:\b|"
    rf"(?=ch))(?!ches|ch)"
    r"(\.(?= [a-z0-9,(]|[,)]))?"
)
_STONES = re.compile(r"(?<=[0-9]) ?st\b\.?(?=,? [0-9]{1,2} ?lbs?\b)")
_PINTS = re.compile(
    rf"(?<![\w.,])({AMOUNT}) ?pts?(?:\.(?= (?!font|type|size|bold|lead|lower|higher|up|down|"
    rf"yesterday|today|in |on |to |behind|"
    rf"ahead|after|per |from |for |with |this |last |each )[a-z])|"
    rf"\.?(?= of\b))"
)
_TEMPERATURE = re.compile(
    rf"(?<![\w.,$£€])(?<![0-9]/)({AMOUNT})(?:°?[CF]?(?: ?[-–] ?|"
    rf" to )(-?{AMOUNT}))?°?( ?)([CF])(?![\w'$°+#]|-[A-Za-z0-9]|\.[A-Za-z]"
    r"|/[A-Z])|\b(degrees?) ([CF])\b(?!['+#-])"
)
_WORD_BEFORE = re.compile(r"(^|[.!?:] |[\"(])?\b([A-Za-z']{1,20})\.? $")
_SCALES = {"C": "celsius", "F": "fahrenheit"}
_LETTERED = frozenset(
    "seat seats row room gate apt apartment flat unit units size section figure fig table exit "
    "grade platform line class highway building block form type model vitamin note appendix "
    "chapter no number part question level terminal floor suite door ward bay box lane locker "
    "cabin stall berth track article item step option answer group team zone route bus train "
    "paragraph exhibit page shop stand hall pier plot lot channel key".split()
)
_WARM = frozenset(
    "to at by is it's was be been about around below above under over nearly between than reached "
    "until minus from and only feels like of or near roughly hit hits reach reaches".split()
)
_AFTER_APART = re.compile(
    r"$|[.,;:!?)\"-]| (?:outside|inside|today|tonight|tomorrow|now|for|in|and|or|to|at|on|with|"
    r"until|is|was|water|oven|heat|this|during|by|when|yesterday|yet|but|all|hot|cold|warmer|"
    r"colder)\b"
)
_WEATHER = re.compile(
    r" (?:days?|nights?|mornings?|afternoons?|weather|rooms?|ovens?|water|heat|temperatures?|wash|"
    r"air|summer|winter|rise|drop|range|difference|bath)\b"
)
_FEET_INCHES = re.compile(rf"(?<![\w'.,])([0-9]{{1,3}})'[ -]?({AMOUNT})(?:\"|''|(?![0-9'A-Za-z]))")
_FEET = re.compile(
    rf"(?<![\w'.,])({AMOUNT})'(?=[ ,.)]|$)(?:(?=[^']*$)|(?= (?:tall|wide|long|high|deep)\b))"
)
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
_MULTIPLIER = re.compile(
    rf"(?<![\w.,=^])(?<!= )(?<![-+*/] )({AMOUNT})(?:[xX×]? ?[-–—] ?({AMOUNT}))?(?:[xX×]|"
    rf"(?: x(?= (?:a|an|per|daily|weekly|each|more|faster)\b)))(?![A-Za-z0-9]| ?[-+*=^<>)]|"
    rf" ?/(?!week|day|month|year|hour))"
)
_BRACKETED_MULTIPLIER = re.compile(rf"(?<!\w)\((?:({AMOUNT})[xX×]|[xX×] ?({AMOUNT}))\)")
_WORD_MEASURE = re.compile(
    r"\b(an?|one|half an?|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|"
    r"twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|few|several|many|"
    r"per)( |-)"
    r"(lbs?|oz|ft|yds?|qts?|tsps?|tbsps?|kg|km|cm|mm|hrs?|mph)\b(?!')(\.(?= [a-z0-9(]|[,;)]))?"
)
_DIGIT = re.compile(r"[0-9]")


def expand_units(text: str) -> str:
    """Say measures: a number (or a range of them) and the unit behind it."""
    text = _WORD_MEASURE.sub(_word_measure, text)
    if not _DIGIT.search(text):
        return _PER.sub(_per_word, text)
    text = _COORDINATE.sub(_coordinate, text)
    text = _FEET_INCHES.sub(_feet_inches, text)
    if "in" in text:
        text = _FEET_AND_INCHES.sub(_feet_and_inches, text)
        text = _INCHES.sub(_inches, text)
    text = _STONES.sub(" stone", text)
    if "pt" in text:
        text = _PINTS.sub(lambda match: _counted(match[1], "pint"), text)
    text = _TEMPERATURE.sub(_temperature, text)
    if '"' in text:
        text = _expand_inches(text)
    text = _FEET.sub(lambda match: _counted(match[1], "foot"), text)
    text = _FRACTION_MEASURE.sub(_fraction_measure, text)
    text = _MEASURE.sub(_measure, text)
    text = _PER.sub(_per_word, text)
    text = _BRACKETED_MULTIPLIER.sub(_bracketed_multiplier, text)
    text = _MULTIPLIER.sub(_multiplier, text)
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
    if symbol == "s" and match.string[match.start() - 1 : match.start()] == "-":
        return match.group()  # 1-on-1s
    if symbol == "m" and not gap and MILLIONS_BEHIND.match(match.string, match.end()):
        return match.group()
    rest, tail = match.string[match.end() :][:24], match[9] or ""
    if (
        not tail
        and rest[:1] == "-"
        and rest[1:2].isalnum()
        and (len(symbol) == 1 or symbol == "in")
    ):
        return match.group()  # 2-in-1, 4-g-free
    unit = f"{_POWERS[power]} {_UNITS[symbol]}" if power else _UNITS[symbol]
    if per:
        unit += _per(_DENOMINATORS[per], per_power)
    words = f"{spoken_number(first)} to {spoken_number(last)}" if last else spoken_number(first)
    singular = gap == "-" or tail == "-" or (is_one(first) and not last)
    singular = singular or is_attribute(match.string, match.start(), match.end())
    end = " " if tail == "-" else ""
    if symbol.endswith(".") and not tail:
        end = sentence_stop(match, strict=True)
    return f"{words} {unit if singular else pluralise(unit)}{end}"


def _word_measure(match: re.Match[str]) -> str:
    """'two lbs. of fat', 'a lb. of it'."""
    number, gap, symbol, _ = match.groups()
    is_one_of = gap == "-" or number in ("a", "an", "one", "half a", "half an", "per")
    unit = _UNITS.get(symbol) or _UNITS[symbol.removesuffix("s")]
    return f"{number} {unit if is_one_of else pluralise(unit)}"


def _fraction_measure(match: re.Match[str]) -> str:
    gap, symbol, stop = match.groups()
    if (
        symbol == "in"
        and gap == " "
        and not re.match(
            r"\.| (?:of|wide|long|thick|tall|deep|high|hole|bolt|pipe|screw|drill|socket|hose)\b|"
            r"[,;)]|$",
            match.string[match.end(2) :],
        )
    ):
        return match.group()
    unit = _UNITS["c." if symbol == "c" else symbol]
    number = _WHOLE.search(match.string[max(match.start() - 16, 0) : match.start()])
    if number and "-" not in gap:
        start = match.start() - len(number.group())
        if not is_attribute(match.string, start, match.end()):
            unit = pluralise(unit)
    return f" {unit}{sentence_stop(match, strict=True) if stop else ''}"


def _inches(match: re.Match[str]) -> str:
    number, _, stop = match.groups()
    end = sentence_stop(match) if stop else ""
    attribute = is_attribute(match.string, match.start(), match.end())
    if "/" in number:
        return f"{number} {'inches' if _WHOLE.search(number) and not attribute else 'inch'}{end}"
    words = f"{spoken_number(number)} inch" if attribute else _counted(number, "inch")
    return words + end


def _feet_and_inches(match: re.Match[str]) -> str:
    feet, gap, between, inches, stop = match.groups()
    is_adjective = "-" in gap or is_attribute(match.string, match.start(), match.end())
    end = match.string[match.end() : match.end() + 1]
    if is_adjective:
        return f"{spoken_number(feet)} foot {spoken_number(inches)} inch{' ' if end == '-' else ''}"
    return f"{_counted(feet, 'foot')} {_counted(inches, 'inch')}"


def _temperature(match: re.Match[str]) -> str:
    """'72F' is a temperature; 'seat 12F', 'a 32C' and 'iPhone 5C' are not."""
    first, last, gap, letter, degrees, degrees_letter = match.groups()
    if degrees:
        return f"{degrees} {_SCALES[degrees_letter]}"
    before = match.string[max(match.start() - 24, 0) : match.start()]
    rest = match.string[match.end() : match.end() + 16]
    word = _WORD_BEFORE.search(before)
    name = word[2].lower() if word else ""
    is_sure = bool(last) or "." in first or name == "minus" or bool(_WEATHER.match(rest))
    if name in _LETTERED or (gap and not _AFTER_APART.match(rest)):
        return match.group()
    if not is_sure and word:
        opens = word[1] is not None or word.start() == 0 and len(before) < 24
        if word[2][0].isupper() and not (opens and len(first) > 1):
            return match.group()
        if name in ("a", "an", "the", "my", "this", "that") and not _WEATHER.match(rest):
            return match.group()
        if len(first) == 1 and name not in _WARM:
            return match.group()
    elif not is_sure and gap and len(first) == 1:
        return match.group()
    words = f"{spoken_number(first)} to {_signed(last)}" if last else spoken_number(first)
    one = is_one(first) and not last or bool(_WEATHER.match(rest)) and name in ("a", "an")
    return f"{words} {'degree' if one else 'degrees'} {_SCALES[letter]}"


def _signed(number: str) -> str:
    return f"minus {spoken_number(number[1:])}" if number[0] == "-" else spoken_number(number)


def _is_letter(symbol: str, gap: str) -> bool:
    """Whether a unit's symbol at this distance from the number is rather a word or a letter."""
    if gap == " ":
        return symbol in _WORD_WHEN_APART
    if gap == "-":
        return len(symbol) == 1 and symbol not in "mgshlLVW"
    return symbol in _LETTER_WHEN_ATTACHED


def _per(denominator: str, power: str | None) -> str:
    if not power:
        return f" per {denominator}"
    if denominator == "second":
        return f" per second {'squared' if power == '2' else 'cubed'}"
    return f" per {_POWERS[power]} {denominator}"


def _multiplier(match: re.Match[str]) -> str:
    first, last = match.groups()
    words = f"{spoken_number(first)} to {spoken_number(last)}" if last else spoken_number(first)
    return f"{words} times"


def _bracketed_multiplier(match: re.Match[str]) -> str:
    number = spoken_number(match[1] or match[2])
    return f"({number} times)" if match[1] else f"(times {number})"


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
            if "/" in match[1]:
                return f"{match[1]} inch "
            if is_attribute(text, match.start(), match.end()):
                return f"{spoken_number(match[1])} inch "
            return f"{_counted(match[1], 'inch')} "
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
