"""Money, units and formulas to words: '$3.50', '5 km', '10 m/s^2', '15%', 'x = 3', '1/2'."""

from __future__ import annotations

import re

from tokenlm.text.numbers import (
    AMOUNT,
    DIGIT,
    MILLIONS_BEHIND,
    cardinal,
    code_number,
    is_one,
    ordinal,
    plural,
    spoken_number,
    text_before,
)
from tokenlm.text.symbols import sentence_stop

# --- Money: '$3.50', '£1m', '€2.5 billion', '99¢', 'US$5', '5 USD' ---

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
_COUNTRIES = {
    "US": "u s", "U.S.": "u s", "A": "australian", "AU": "australian", "C": "canadian",
    "CA": "canadian", "NZ": "new zealand", "HK": "hong kong", "S": "singapore", "R": "",
}  # fmt: skip
_MAGNITUDES = {
    "k": "thousand", "thousand": "thousand", "m": "million", "mn": "million", "mm": "million",
    "million": "million", "mil": "million", "b": "billion", "bn": "billion", "billion": "billion",
    "t": "trillion", "tn": "trillion", "trillion": "trillion", "hundred": "hundred",
}  # fmt: skip

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
    """Expand sums of money in the currency's words."""
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
    return _MAGNITUDES[written.lower()] if written else ""


def _before(match: re.Match[str]) -> str:
    prefix, sign, amount, last, suffix = match[1], match[2], match[3], match[7], match[12]
    country = f"{_COUNTRIES[prefix.strip()]} " if prefix else ""
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


# --- Units: '5 km', '3.5GHz', '20 °C', '60 mph', '10 m/s^2', 5'11", '15%' ---

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
_TEMPERATURE_SCALES = {"C": "celsius", "F": "fahrenheit"}
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
DIRECTIONS = {
    "N": "north", "S": "south", "E": "east", "W": "west", "NW": "northwest", "NE": "northeast",
    "SW": "southwest", "SE": "southeast",
}  # fmt: skip
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


def expand_units(text: str) -> str:
    """Expand measures: a number (or a range of them) and the unit behind it."""
    text = _WORD_MEASURE.sub(_word_measure, text)
    if not DIGIT.search(text):
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
    words = _number_or_range(first, last)
    singular = gap == "-" or tail == "-" or (is_one(first) and not last)
    singular = singular or is_attribute(match.string, match.start(), match.end())
    end = " " if tail == "-" else "" if tail else sentence_stop(match, strict=True)
    return f"{words} {unit if singular else pluralise(unit)}{end}"


def _word_measure(match: re.Match[str]) -> str:
    """'two lbs. of fat', 'a lb. of it'."""
    number, gap, symbol, _ = match.groups()
    is_one_of = gap == "-" or number in ("a", "an", "one", "half a", "half an", "per")
    unit = _UNITS.get(symbol) or _UNITS[symbol.removesuffix("s")]
    return f"{number} {unit if is_one_of else pluralise(unit)}"


def _fraction_measure(match: re.Match[str]) -> str:
    gap, symbol, _ = match.groups()
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
    number = _WHOLE.search(text_before(match, 16))
    if number and "-" not in gap:
        start = match.start() - len(number.group())
        if not is_attribute(match.string, start, match.end()):
            unit = pluralise(unit)
    return f" {unit}{sentence_stop(match, strict=True)}"


def _inches(match: re.Match[str]) -> str:
    number = match[1]
    end = sentence_stop(match)
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
        return f"{degrees} {_TEMPERATURE_SCALES[degrees_letter]}"
    before = text_before(match, 24)
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
    words = _number_or_range(first, last)
    one = is_one(first) and not last or bool(_WEATHER.match(rest)) and name in ("a", "an")
    return f"{words} {'degree' if one else 'degrees'} {_TEMPERATURE_SCALES[letter]}"


def _number_or_range(first: str, last: str | None) -> str:
    """'5' or '5 to 10'; the second number may be negative."""
    if not last:
        return spoken_number(first)
    sign = "minus " if last[0] == "-" else ""
    return f"{spoken_number(first)} to {sign}{spoken_number(last.lstrip('-'))}"


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
    return f"{_number_or_range(match[1], match[2])} times"


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
    return f"{words}{' ' + _counted(seconds, 'second') if seconds else ''} {DIRECTIONS[side]}"


def _percent(match: re.Match[str]) -> str:
    tail = " " if match.group().endswith("-") else ""
    return f"{_number_or_range(match[1], match[2])} percent{tail}"


# --- Formulas: sums, equations, powers, comparisons, fractions, ratios ---

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
_NAMED_DENOMINATORS = frozenset((*range(2, 13), 16, 20, 32, 50, 64, 100, 1000))

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
_FORMULA_SIGN = re.compile(r"[0-9^+~×÷±−√∞≈≠≤≥<>=*]|\([a-z]\)")
_TILDE_RANGE = re.compile(r"(?<=[0-9]) ?~ ?(?=[0-9])")
_ABOUT_TWICE = re.compile(r"(?:(?<=\b[aA] )|(?<=[aA]bout ))~(?=[0-9])")
_ABOUT = re.compile(r"[~≈](?= ?[$£€]?[0-9])")


def expand_signs(text: str) -> str:
    """Expand negative numbers, powers, comparisons and operators; run before units and numbers."""
    if not _FORMULA_SIGN.search(text):
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
    """Expand powers, dimensions, fractions, ratios, then whatever sign is left; run after units."""
    if not _FORMULA_SIGN.search(text):
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
        name = ordinal(denominator) + ("" if numerator == 1 else "s")
    return f"{cardinal(numerator)} {name}"


def _mixed(match: re.Match[str]) -> str:
    whole, numerator, denominator = spoken_number(match[1]), int(match[2]), int(match[3])
    if denominator not in _NAMED_DENOMINATORS or not 0 < numerator < denominator:
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
        denominator in _NAMED_DENOMINATORS
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
