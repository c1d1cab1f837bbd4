"""Numbers to words: cardinals, ordinals, years, digit strings, ranges; Roman numerals to numbers.

American English, without `and`. Numbers that are dates, money, measures or codes are read by the
passes of the other files before `expand_numbers` reads what is left.
"""

from __future__ import annotations

import re

AMOUNT = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,100}(?![0-9]|,[0-9]{3})(?:\.[0-9]++)?"
    r"|[0-9]++(?:\.[0-9]++)?|\.[0-9]++)"
)
"""Pattern of an unsigned number as written, with grouping commas or a decimal point."""
DIGIT = re.compile(r"[0-9]")
MAX_CARDINAL_DIGITS = 36
"""Longer integers have no name that people know; they are read digit by digit."""

# --- Number words ---

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = (
    " thousand million billion trillion quadrillion quintillion sextillion septillion octillion "
    "nonillion decillion"
).split(" ")
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def cardinal(number: int) -> str:
    """1234 -> 'one thousand two hundred thirty four'; negative numbers get 'minus'."""
    if number < 0:
        return f"minus {cardinal(-number)}"
    if number >= 10**MAX_CARDINAL_DIGITS:
        raise ValueError(f"a cardinal has at most {MAX_CARDINAL_DIGITS} digits")
    if number < 1000:
        return _below_thousand(number)
    words: list[str] = []
    for power in range(len(_SCALES) - 1, -1, -1):
        group = number // 1000**power % 1000
        if group:
            words.append(_below_thousand(group))
            if power:
                words.append(_SCALES[power])
    return " ".join(words)


def _below_thousand(number: int) -> str:
    if number < 20:
        return _UNITS[number]
    if number < 100:
        tens, unit = divmod(number, 10)
        return f"{_TENS[tens]} {_UNITS[unit]}" if unit else _TENS[tens]
    hundreds, rest = divmod(number, 100)
    words = f"{_UNITS[hundreds]} hundred"
    return f"{words} {_below_thousand(rest)}" if rest else words


def ordinal(number: int) -> str:
    """22 -> 'twenty second'."""
    head, _, last = cardinal(number).rpartition(" ")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    elif last.endswith("y"):
        last = f"{last[:-1]}ieth"
    else:
        last = f"{last}th"
    return f"{head} {last}".strip()


def digits(number: str) -> str:
    """'007' -> 'zero zero seven'. Characters that are no ASCII digits are passed over."""
    return " ".join(_UNITS[int(digit)] for digit in number if digit in "0123456789")


def pair(number: int) -> str:
    """Two digits as said inside a year or a time: 5 -> 'oh five', 45 -> 'forty five'."""
    return f"oh {_UNITS[number]}" if number < 10 else _below_thousand(number)


def year(number: int) -> str:
    """1984 -> 'nineteen eighty four', 2005 -> 'two thousand five', 1900 -> 'nineteen hundred'."""
    if number < 1000 or number > 9999 or number % 1000 < 10:
        return cardinal(number)
    century, rest = divmod(number, 100)
    return f"{_below_thousand(century)} {pair(rest) if rest else 'hundred'}"


def code_number(number: str) -> str:
    """A number in a name (A380, x86): '380' -> 'three eighty', '4090' -> 'forty ninety'."""
    if len(number) > 4 or (number[0] == "0" and len(number) > 1):
        return digits(number)
    value = int(number)
    if len(number) == 4:
        return year(value)
    if len(number) == 3 and value % 100:
        return f"{_UNITS[value // 100]} {pair(value % 100)}"
    return cardinal(value)


def spoken_number(number: str) -> str:
    """A written unsigned number: '1,020.50' -> 'one thousand twenty point five zero'.

    Leading zeros are read out ('007'), as is every digit after the point. Never raises on a string
    of ASCII digits, commas and at most one point.
    """
    whole, point, decimals = number.replace(",", "").partition(".")
    if len(whole) > MAX_CARDINAL_DIGITS or (len(whole) > 1 and whole[0] == "0"):
        words = digits(whole)
    else:
        words = cardinal(int(whole)) if whole else ""
    if point and decimals:
        words = f"{words} point {digits(decimals)}"
    return words.strip()


def is_one(number: str) -> bool:
    """Whether a unit after this written number stands in the singular."""
    return number.strip() == "1"


def plural(words: str) -> str:
    """The plural of number words: 'nineteen ninety' -> 'nineteen nineties', 'six' -> 'sixes'."""
    if words.endswith("y"):
        return f"{words[:-1]}ies"
    return f"{words}es" if words.endswith("x") else f"{words}s"


def roman_value(numeral: str) -> int:
    """'XIV' -> 14. The numeral is taken to be well formed."""
    total = 0
    values = [_ROMAN_VALUES[letter] for letter in numeral]
    for value, following in zip(values, [*values[1:], 0], strict=True):
        total += -value if value < following else value
    return total


def text_before(match: re.Match[str], size: int) -> str:
    """The last `size` characters before a match."""
    return match.string[max(match.start() - size, 0) : match.start()]


# --- Passes ---

# Groups of other countries: 1.234.567,89 and 1'234'567 and 12,34,567 and 1 234 567.
_DOTTED_GROUPS = re.compile(
    r"(?<![\w.,/])([0-9]{1,3}(?:\.[0-9]{3}){1,8})(,[0-9]{1,2})?(?![0-9]|[.,-][0-9])"
)
_OCTETS = re.compile(
    r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?:25[0-5]|2[0-4][0-9]|1[0-9]{2})){3}"
)
_VERSION_BEFORE = re.compile(
    r"(?:version|release|ver\.?|v\.?|build|firmware|update|section|§) ?$", re.IGNORECASE
)
_EURO = re.compile(r" ?(?:€|EUR\b|[Ee]uros?\b)")
_EURO_BEFORE = re.compile(r"(?:€|\bEUR) ?$")
_OTHER_GROUPS = re.compile(
    r"(?<![\w.,'/])([1-9][0-9]{0,2}(?:'[0-9]{3}){1,8}|[1-9][0-9]{0,2}(?:_[0-9]{3}){1,8}|"
    r"[0-9]{1,2}(?:,[0-9]{2}){1,5},[0-9]{3})(?![\w']|,[0-9])"
)
_SPACED_GROUPS = re.compile(
    r"(?<![\w.,'/+()-])(?<![0-9] )(?:([1-9][0-9]{0,1}(?: [0-9]{3}){2,3})(,[0-9]{1,2})?(?![\w-]|"
    r" ?[0-9]|[.,][0-9])|([1-9][0-9]{0,2}(?: [0-9]{3}){1,2})(,[0-9]{1,2})(?![\w-]| ?[0-9]|"
    r"[.,][0-9])|"
    r"([1-9][0-9]{0,2}(?: [0-9]{3}){0,2} 000)(?![\w-]| ?[0-9]|[.,][0-9])|"
    r"([1-9][0-9]{0,2}(?: [0-9]{3}){1,3})(?= (?:people|inhabitants|residents|voters|users|soldiers|"
    r"workers|copies|homes|votes|euros?|dollars|pounds|francs|yen|km|kg|tonnes?|tons|miles|"
    r"hectares|square)\b| ?[€$£%°]|(?:km|kg)\b))"
)
_NO_COUNT_BEFORE = re.compile(
    r"(?i:\b(?:call|dial|phone|tel|telephone|fax|number|number is|no|page|line|room|january|"
    r"february|march|april|may|june|july|august|september|october|november|december|"
    r"[ap]m)[.:]{0,2} )$"
)
_DECIMAL_COMMA = re.compile(
    r"(?<![\w.,([{])(?:(?<![0-9] )|(?![0-9]{3},))"
    r"(?:([0-9]{1,4}),([0-9]{1,2})(?= ?(?:%|€|°|(?:EUR|[Ee]uros?|km|kg|cm|mm|m|g|l|L|"
    r"ml|kWh|kW|MW|GHz|MHz|GB|MB|TB|km/h)\b(?!'))(?!,?[0-9]))|0,([0-9]{1,4})(?![\w)\]}]|[.,][0-9]))"
    r"|(?<=[€£$])( ?[0-9]{1,4}),([0-9]{2})(?![\w]|[.,][0-9])"
)

_ORDINAL = re.compile(
    r"(?<![\w.])([0-9]{1,3}(?:,[0-9]{3}){1,8}|[0-9]{1,36})(?:-?(?:st|nd|rd|th)|ST|ND|RD|TH)"
    r"(?![A-Za-z0-9])"
)
_ORDINAL_RANGE = re.compile(
    r"(?<![\w.,-])([0-9]{1,4}(?:st|nd|rd|th)) ?[-–] ?(?=[0-9]{1,4}(?:st|nd|rd|th)\b(?!-))"
)
_PLURAL = re.compile(r"(?<![\w.,])([0-9]{1,6})'?s(?!\w)")
_TEAM = re.compile(r"(?<![\w.,$£€-])([1-9][0-9])ers?\b")
_NUMBER_SIGN = re.compile(r"(?<![\w#&])#{1,3} ?(?=[0-9])")
_MAGNITUDES = {
    "k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion",
    "t": "trillion", "tn": "trillion",
}  # fmt: skip
_MAGNITUDE = re.compile(
    rf"(?<![\w.,/])(?:({AMOUNT})([kKMmBbT]?)( ?[-–—] ?))?({AMOUNT})(?: ?(bn|mn|tn)|"
    rf"([kKMmBbT])(?=\b))(?![\w'’&-]|\()"
)
_RETIREMENT = re.compile(
    r"(?<![\w.,])(401)\(?([kK])\)?(?!\w)|(?<![\w.,])(403|457)\(?([bB])\)?(?!\w)"
)
_MANY = (
    "people|users|views|followers|dollars|euros|pounds|parameters|params|tokens|years|stars|"
    "downloads|players|subscribers|customers|clients|devices|records|rows|documents|images|pages|"
    "words|messages|streams|hits|plays|visits|visitors|humans|voters|workers|citizens|barrels|tons|"
    "tonnes|shares|queries|requests|transactions|cells|neurons|searches|emails|tweets|posts|likes|"
    "phones|computers|websites|sites|trees|animals|birds|insects|fish|children|women|men|students|"
    "jobs|homes|households|refugees|deaths|cases|doses|bushels|viewers|listeners|readers|fans|"
    "members|accounts|copies|units sold"
)
_SUMS = (
    "steps|miles|lines|samples|examples|sales|units|budget|deal|loan|salary|grand|a year|per year|"
    "each|in (?:sales|revenue|funding|damage|debt|cash|prizes|losses|profit)"
)
_ADJECTIVES = "(?:more |new |active |monthly |daily |unique |or so )?"
MILLIONS_BEHIND = re.compile(rf" {_ADJECTIVES}(?:{_MANY})\b")
"""What a number with m for million counts; before other words m is a meter."""
_COUNTED_BEHIND = re.compile(rf" {_ADJECTIVES}(?:{_MANY}|{_SUMS})\b")
_MODEL_BEHIND = re.compile(r" (?:models?|versions?|variants?|LLMs?|network|checkpoint)\b")
_RACE_BEHIND = re.compile(
    r" (?:runs?|races?|runners?|walks?|fun|course|charity|marathon|training|event|time|video|"
    r"videos|screens?|resolution|TVs?|monitors?|displays?|movies?|cameras?|footage|streaming|"
    r"gaming|Ultra|HDR|UHD|projector|content|quality|webcam|panel)\b"
)
_RUNNERS_BEHIND = re.compile(r" (?:runners|walkers)\b")
_COUNT_BEFORE = re.compile(
    r"\b(?:are|about|over|nearly|almost|than|approximately|around|reach(?:e[sd])?|hits?|exceeds?|"
    r"population:?|total:?|some|roughly|up to|worth|costs?|raised) $",
    re.IGNORECASE,
)
_COMPANY_BEFORE = re.compile(r"(?:^|[.!?] |\bat |\bby )$")
_RACES = frozenset("3 5 8 10 12 15 20 21".split())
_ARTICLE_BEFORE = re.compile(
    r"\b(?:an?|the|my|his|her|our|their|your|this|that|first|in|another) $", re.I
)
_NOUN_BEHIND = re.compile(
    r" (?!(?:and|or|in|on|at|to|for|with|of|is|was|last|this|next|today|every|by|from|but|as|that|"
    r"race|yesterday|tomorrow|time|again)\b)[a-z]{2,}"
)
_RANGE = re.compile(rf"(?<![\w.,/])({AMOUNT})( ?[-–—] ?)(?={AMOUNT}(?![\w/-]))")
_BEFORE_WORD = re.compile(rf"(?<![\w.,/])({AMOUNT})-(?=[A-Za-z]{{2,}})")
_COMPOUND = re.compile(
    rf"(?<![\w.,/])({AMOUNT})-((?:(?:in|on|for|to|by|an?|of|and|at|per|up|down|out|the|or|"
    rf"g)-){{1,3}})(?=[A-Za-z0-9])"
)
_DECIMAL_LETTER = re.compile(
    r"(?<![\w.])([0-9]{1,36}(?:,[0-9]{3}){0,100}\.[0-9]{1,36})(?=[A-Za-z])"
)
_YEAR = re.compile(
    r"(?<![\w.,/-])((?:1[1-9]|20)[0-9]{2})(?![\w/]|[.,][0-9]|-[0-9])( [a-z]{2,20}\b)?"
)
_NUMBER = re.compile(AMOUNT)
_NOT_PLURAL = frozenset(
    "was is has its his this as does us thus always perhaps towards across less unless".split()
)
_COUNTED = frozenset(
    "people men women children words times percent square million thousand cubic hundred "
    "sheep fish dollars more of pieces persons".split()
)


def join_groups(text: str) -> str:
    """Write the numbers of other countries as English has them: 1.234.567,8 as 1,234,567.8."""
    text = _DECIMAL_COMMA.sub(lambda match: match.group().replace(",", ".", 1), text)
    text = _DOTTED_GROUPS.sub(_dotted_groups, text)
    text = _OTHER_GROUPS.sub(lambda match: _grouped(match[1]), text)
    return _SPACED_GROUPS.sub(_spaced_groups, text)


def expand_ordinals(text: str) -> str:
    """Expand '22nd', '#5', '10M', and separate numbers from the words they are joined to."""
    text = _ORDINAL.sub(_ordinal, _ORDINAL_RANGE.sub(r"\1 to ", text))
    text = _PLURAL.sub(lambda match: plural(code_number(match[1])), text)
    text = _TEAM.sub(_team, text)
    text = _NUMBER_SIGN.sub(" number ", text)
    text = _RETIREMENT.sub(
        lambda match: f"{code_number(match[1] or match[3])} {(match[2] or match[4]).lower()}", text
    )
    text = _MAGNITUDE.sub(_magnitude, text)
    text = _DECIMAL_LETTER.sub(lambda match: f"{spoken_number(match[1])} ", text)
    text = _COMPOUND.sub(
        lambda match: f"{spoken_number(match[1])} {match[2].replace('-', ' ')}", text
    )
    return _BEFORE_WORD.sub(lambda match: f"{spoken_number(match[1])} ", text)


def expand_ranges(text: str) -> str:
    """Expand the dash between two numbers to 'to'."""
    return _RANGE.sub(lambda match: f"{_year_or_count(match[1])} to ", text)


def expand_numbers(text: str) -> str:
    """Expand every number that is left."""
    text = _YEAR.sub(_bare_year, text)
    return _NUMBER.sub(lambda match: f" {spoken_number(match.group())} ", text)


def _grouped(number: str) -> str:
    """'1.234.567' -> '1,234,567', whatever stands between the digits."""
    return f"{int(''.join(filter(str.isdigit, number))):,}"


def _dotted_groups(match: re.Match[str]) -> str:
    """One group alone may be three decimals: it counts before a decimal comma or with euros."""
    number, decimals = match.groups()
    before = text_before(match, 12)
    if not decimals:
        if _OCTETS.fullmatch(number) or _VERSION_BEFORE.search(before):
            return match.group()
        euros = _EURO_BEFORE.search(before) or _EURO.match(match.string, match.end())
        if number.count(".") == 1 and (not euros or number.startswith("0")):
            return match.group()
    return _grouped(number) + (decimals or "").replace(",", ".")


def _spaced_groups(match: re.Match[str]) -> str:
    before = text_before(match, 16)
    if _NO_COUNT_BEFORE.search(before):
        return match.group()
    number, _, decimals = match.group().partition(",")
    return _grouped(number) + (f".{decimals}" if decimals else "")


def _ordinal(match: re.Match[str]) -> str:
    return ordinal(int(match[1].replace(",", "")))


def _team(match: re.Match[str]) -> str:
    """'the 49ers' -> 'forty niners'."""
    words = spoken_number(match[1])
    ending = match.group()[3 if words[-1] == "e" else 2 :]
    return f"{words[:-1] + 'i' if words[-1] == 'y' else words}{ending}"


def _magnitude(match: re.Match[str]) -> str:
    """'3B people' and '10k'; but 'a 2B pencil', 'a 4K screen', 'a 10k' (that is run), '5m'."""
    first, first_letter, _, amount, scale, letter = match.groups()
    if letter and not _is_magnitude(match, amount, letter, first or ""):
        return match.group()
    last = _MAGNITUDES[(scale or letter).lower()]
    if not first:
        return f"{spoken_number(amount)} {last}"
    own = _MAGNITUDES[first_letter.lower()] if first_letter else last
    start = spoken_number(first) if own == last else f"{spoken_number(first)} {own}"
    return f"{start} to {spoken_number(amount)} {last}"


def _is_magnitude(match: re.Match[str], amount: str, letter: str, first: str) -> bool:
    text, end = match.string, match.end()
    if letter == "m":
        return bool(MILLIONS_BEHIND.match(text, end))
    if _COUNTED_BEHIND.match(text, end):
        return True
    if letter == "b":
        return False
    if letter in "BT":
        is_model = letter == "B" and _MODEL_BEHIND.match(text, end)
        is_count = _COUNT_BEFORE.search(text_before(match, 16))
        return bool("." in amount or first or is_model or is_count)
    if letter == "M":  # 3M makes tape
        return amount != "3" or not _COMPANY_BEFORE.search(text_before(match, 5))
    if amount not in _RACES and _RUNNERS_BEHIND.match(text, end):
        return True
    if _RACE_BEHIND.match(text, end) or (letter == "K" and amount in ("2", "4", "8")):
        return False
    before = text_before(match, 10)
    is_race = amount in _RACES and _ARTICLE_BEFORE.search(before)
    return not is_race or bool(_NOUN_BEHIND.match(text, end))


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
