"""Dates, times and durations to words: 'May 5, 2024', 2023-12-05, 1990s, '3:45 pm', '1h 30m'."""

from __future__ import annotations

import re

from tokenlm.text.measures import is_attribute
from tokenlm.text.numbers import (
    DIGIT,
    cardinal,
    code_number,
    is_one,
    ordinal,
    pair,
    plural,
    spoken_number,
    text_before,
    year,
)
from tokenlm.text.symbols import sentence_stop

# --- Dates: 'May 5, 2024', '5 May', 05/12/2023, 2023-12-05, decades, years ---

MONTHS = (
    "january february march april may june july august september october november december"
).split()
_WEEKDAYS = {
    "Mon": "monday", "Tue": "tuesday", "Tues": "tuesday", "Wed": "wednesday", "Thu": "thursday",
    "Thur": "thursday", "Thurs": "thursday", "Fri": "friday", "Sat": "saturday", "Sun": "sunday",
}  # fmt: skip
_MONTH_NAME = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|"
    r"Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?|JANUARY|FEBRUARY|MARCH|APRIL|MAY|"
    r"JUNE|JULY|AUGUST|SEPTEMBER|OCTOBER|NOVEMBER|DECEMBER|january|february|april|june|july|august|"
    r"september|october|november|december)"
)
_MONTH = rf"({_MONTH_NAME})\b\.?"
_DAY = r"(0?[1-9]|[12][0-9]|3[01])"
_YEAR = r"([12][0-9]{3})(?![\w%]|[.,:][0-9])"
_DASH = r" ?[-–] ?"

_SHORT_DAY = f"(?:{'|'.join([*_WEEKDAYS, *(name.upper() for name in _WEEKDAYS)])})"
_WEEKDAY_LIST = re.compile(
    rf"\b{_SHORT_DAY}\b\.?(?:(?:, ?(?:and |or |& ?)?| (?:and|or|to|through|thru|until|till|&) |"
    rf" ?[-–&/] ?){_SHORT_DAY}\b\.?){{1,6}}"
    r"|\b(?:mon|tue|wed|thu|fri|sat|sun)[-–](?:mon|tue|wed|thu|fri|sat|sun)\b"
)
_DAY_AND_GAP = re.compile(r"([A-Za-z]+)(\.?)([^A-Za-z.]*)")
_WEEKDAY = re.compile(
    # A day with a full stop; not the sun, nor somebody who sat down or wed.
    rf"(?<![\w'])({_SHORT_DAY})\.(?!\w)"
    # Without one: after words that days follow, before a date, a time or a part of the day.
    rf"|(?<![\w'])(?:(?<=[oO]n )|(?<=[bB]y )|(?<=ntil )|(?<=till )|(?<=from )|(?<=next )|"
    rf"(?<=last )|(?<=every )|(?<=[sS]ince )|(?<=[eE]ach ))({_SHORT_DAY})\b(?!['-]| [A-Z][a-z])|"
    rf"(?<![\w'])(?<![Tt]he )({_SHORT_DAY})(?=,? [0-9]|, (?:[A-Z]|the [0-9])| (?:morning|night|"
    rf"evening|afternoon|noon)\b| (?:at|@) ?[0-9])"
    r"|(?<![\w'])(?<=this )(Mon|Tues?|Wed|Thurs?|Thu|Fri)\b(?!['-]| [A-Z][a-z])"
)
_MONTH_DAY = re.compile(
    rf"\b{_MONTH} {_DAY}(?:st|nd|rd|th)?(?:{_DASH}{_DAY}(?:st|nd|rd|th)?)?(?!\w|[.,:][0-9]|"
    rf"[-–/%][0-9])(?: ?(,)? ?{_YEAR})?"
)
_DAY_MONTH = re.compile(
    rf"(?<![\w.,/$£€-])([Tt]he )?{_DAY}(?:st|nd|rd|th)?(?:{_DASH}{_DAY}(?:st|nd|rd|th)?)? "
    rf"(?:of )?{_MONTH}"
    rf"(?: ?(,)? ?{_YEAR})?",
    re.ASCII,
)
_MONTH_YEAR = re.compile(rf"\b{_MONTH}(?: of)?(,)? {_YEAR}")
_AFTER_DAY = re.compile(
    rf" (?:{_MONTH_NAME}\b|Morning|Night|Evening|Afternoon|Noon|Midnight|{_SHORT_DAY}\b)"
)
_DATE_SPAN = re.compile(
    rf"\b({_DAY} {_MONTH}|{_MONTH} {_DAY}){_DASH}(?={_DAY} {_MONTH_NAME}\b|"
    rf"{_MONTH_NAME}\b\.? {_DAY}\b)"
)
_DASHED = re.compile(rf"(?<![\w/-]){_DAY}-{_MONTH}-([12][0-9]{{3}}|[0-9]{{2}})(?![\w-])")
_MONTH_SPAN = re.compile(rf"\b{_MONTH}{_DASH}({_MONTH_NAME}\b\.?)")
_MONTH_ENDS = re.compile(r"(?! ?[0-9])")
_SHORT_MONTH = re.compile(
    r"\b((?:[iI]n|[sS]ince|[uU]ntil|[bB]y|last|next|early|late|mid|[tT]his|of|from|[dD]uring|till|"
    r"every|to) )(Feb|Apr|Aug|Sept?|Oct|Nov|Dec|(?<=[iI]n )(?:Jan|Mar)|(?<=early )(?:Jan|Mar)|"
    r"(?<=late )(?:Jan|Mar))(?![\w.'-]| [A-Z][a-z]| [0-9]| del\b)"
)
_MONTH_OF_YEAR = re.compile(r"\b(Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?(?= '[0-9]{2}\b)")
_OPENING = re.compile(
    r"(?:^|[.?!\"] )(?:In|On|By|Since|Until|During|Last|Next|Every|Early|Late|This|From)(?: early|"
    r" late| mid)?[ -]$"
)
_CENTURY = re.compile(
    r"\b([0-9]{1,2}(?:st|nd|rd|th))[- ](?:c\.|cent\.|(?:c|cent)(?= (?:BC|AD|CE|B\.C|"
    r"A\.D)))(?![\w.])"
)
_CIRCA = re.compile(
    r"(?<!\w)[cC]a?\. ?(?=[0-9]{3,4}s?(?![\w,.][0-9]|\w)|[0-9]{1,4} ?(?:BC|AD|CE|B\.C|A\.D))"
)
_ISO = re.compile(
    r"(?<![\w/.-])([12][0-9]{3})[-/.](0?[1-9]|1[0-2])[-/.](0?[1-9]|[12][0-9]|3[01])(?:T"
    r"(?=[0-9]{2}:)|(?![\w/-]|\.[0-9]))"
)
_NUMERIC = re.compile(
    r"(?<![\w/.,-])([0-9]{1,2})([-/.])([0-9]{1,2})\2((?:[12][0-9])?[0-9]{2})(?![\w/-]|[.,][0-9])"
)
_NUMERIC_MONTH = re.compile(
    r"\b((?:on|by|until|till|before|after|since|due|dated|from|date:|(?:mon|tues|wednes|thurs|fri|"
    r"satur|sun)day,?) )(1[0-2]|0?[1-9])/"
    r"(3[01]|[12][0-9]|0?[1-9])(?![\w/]|[.,][0-9]|-[0-9])",
    re.IGNORECASE,
)
_NUMERIC_SPAN = re.compile(
    r"(?<![\w/.,-])(1[0-2]|0?[1-9])/(3[01]|[12][0-9]|0?[1-9]) ?[-–] ?(1[0-2]|0?[1-9])/"
    r"(3[01]|[12][0-9]|0?[1-9])(?![\w/-]|[.,][0-9])"
)
_DECADE_SPAN = re.compile(r"(?<=[0-9]0s) ?[-–] ?(?:'?(?=([1-9]0s\b))|(?=[0-9]{3}0s\b))")
_SEASON = re.compile(r"(?<![\w.,$£€/-])((?:19|20)[0-9]{2})/([0-9]{2})(?![\w/%-]|[.,][0-9])")
_DECADE = re.compile(r"(?<![\w.,$£€])(?<![0-9]-)((?:1[0-9]|20)[0-9]0)'?s\b")
_PLURAL = re.compile(r"(?<=\b[Tt]he )([0-9]{3})s\b")
_SHORT_DECADE = re.compile(
    r"(?:(?<=')|(?<!\w)'|(?<![\w.,'])(?=[2-9]0s to|[1-9]0s and [1-9]0s)|"
    r"(?<=[1-9]0s and )(?=[1-9]0s|[2-9]0's)|((?:\b(?:the|his|her|their|my|our|your|early|mid|late|"
    r"low|high|upper|lower|roaring|swinging|turbulent)[ -])|(?:\bin (?=[1-9]0's|"
    r"[1-9]0s (?:and [1-9]0s|music|fashion|style|films?|movies|television|tv|pop|rock|slang)\b))))"
    r"([1-9]0)'?s\b",
    re.IGNORECASE,
)
_SHORT_YEAR = re.compile(r"(?<![\w'])'([0-9]{2})(?![\w'\"])(?!\.[0-9])")
_YEAR_SPAN = re.compile(
    rf"(?<![\w.,$£€/-])((?:1[1-9]|20)[0-9]{{2}}){_DASH}((?:1[1-9]|20)?[0-9]{{2}})(?![\w%/-]|"
    rf"[.,][0-9])"
)
_CUED_YEAR = re.compile(
    r"\b((?:in|since|by|until|till|from|circa|year|of|during|before|after|late|early|mid|"
    r"spring|summer|"
    r"fall|autumn|winter|back to|to|and|copyright|christmas|january|february|march|april|may|"
    r"june|july|"
    r"august|september|october|november|december|born|died)[ ,(]{1,3}|\()((?:1[1-9]|"
    r"20)[0-9]{2})(?![\w%$£€]|[.,:/][0-9]|-[0-9])"
    r"(?! (?:people|men|women|children|words|times|years|days|hours|miles|dollars|points|"
    r"percent|square|million|thousand)\b)",
    re.IGNORECASE,
)
_ERA_YEAR = re.compile(
    r"(?<![\w.,-])([0-9]{1,4}) ?(BCE?|CE|AD|B\.C\.(?:E\.)?|C\.E\.|A\.D\.)(?![A-Za-z])|\b(AD|"
    r"A\.D\.) ?([0-9]{1,4})(?![\w.,][0-9])"
)
_ERA = r"(?:BCE?|CE|AD|B\.C\.(?:E\.)?|C\.E\.|A\.D\.)"
_ERA_SPAN = re.compile(rf"(?<![\w.,-])([0-9]{{1,4}}) ?[-–] ?([0-9]{{1,4}} ?{_ERA})(?![A-Za-z])")
_ERA_TO_ERA = re.compile(rf"([0-9] ?{_ERA}) ?[-–] ?(?=(?:AD|A\.D\.) ?[0-9]|[0-9])")


def expand_dates(text: str) -> str:
    """Expand dates, decades, spans of years, and years that a word before them marks as such."""
    text = _WEEKDAY_LIST.sub(_weekday_list, text)
    text = _WEEKDAY.sub(_weekday, text)
    text = _MONTH_SPAN.sub(_month_span, text)
    text = _SHORT_MONTH.sub(_short_month, text)
    if not DIGIT.search(text):
        return text
    text = _MONTH_OF_YEAR.sub(lambda match: MONTHS[_month(match[1]) - 1], text)
    text = _CENTURY.sub(_century, text)
    text = _CIRCA.sub("circa ", text)
    text = _ERA_SPAN.sub(_era_span, text)
    text = _ISO.sub(lambda match: _date(int(match[2]), int(match[3]), match[1]) + " ", text)
    text = _NUMERIC.sub(_numeric, text)
    text = _DASHED.sub(lambda match: _date(_month(match[2]), int(match[1]), match[3]), text)
    text = _DATE_SPAN.sub(r"\1 to ", text)
    text = _MONTH_DAY.sub(_month_day, text)
    text = _DAY_MONTH.sub(_day_month, text)
    text = _MONTH_YEAR.sub(_month_year, text)
    text = _NUMERIC_MONTH.sub(
        lambda match: f"{match[1]}{_date(int(match[2]), int(match[3]))}", text
    )
    text = _NUMERIC_SPAN.sub(_numeric_span, text)
    text = _DECADE_SPAN.sub(lambda match: " to '" if match[1] else " to ", text)
    text = _DECADE.sub(lambda match: plural(year(int(match[1]))), text)
    text = _PLURAL.sub(lambda match: plural(code_number(match[1])), text)
    text = _SHORT_DECADE.sub(
        lambda match: f"{match[1] or ''}{plural(cardinal(int(match[2])))}", text
    )
    text = _SHORT_YEAR.sub(lambda match: pair(int(match[1])) if match[1] != "00" else "oh oh", text)
    text = _ERA_YEAR.sub(_era_year, _ERA_TO_ERA.sub(r"\1 to ", text))
    text = _SEASON.sub(_season, text)
    text = _YEAR_SPAN.sub(_year_span, text)
    return _CUED_YEAR.sub(lambda match: f"{match[1]}{year(int(match[2]))}", text)


def _day_name(name: str) -> str:
    return _WEEKDAYS[name.capitalize()]


def stop_after_date(match: re.Match[str], *, strict: bool = True) -> str:
    """The full stop of a short day or month, unless the sentence goes on ('In Jan. I left')."""
    opens = _OPENING.search(text_before(match, 20))
    at_end = not match.string[match.end() : match.end() + 4].strip("\"') ")
    return "" if opens and not at_end else sentence_stop(match, strict=strict)


def _names_follow(match: re.Match[str]) -> bool:
    """Whether a month or a part of the day stands behind a day: 'Fri. Sept. 5', 'Fri. Night'."""
    return bool(_AFTER_DAY.match(match.string, match.end()))


def _weekday_list(match: re.Match[str]) -> str:
    """'Mon-Fri', 'Mon, Wed, Fri', 'Sat. & Sun.' and their like."""
    words = ""
    parts = _DAY_AND_GAP.findall(match.group())
    for name, _, gap in parts:
        if name.capitalize() not in _WEEKDAYS:  # 'and'
            words += f"{name} "
            continue
        joint = gap.strip()
        words += _day_name(name)
        words += (
            " to "
            if joint in ("-", "–") and len(parts) == 2
            else ", "
            if joint in (",", "/", "-", "–")
            else " "
        )
        words += "and " if "&" in gap else ""
    words = words.replace(" ,", ",").rstrip()
    return words + sentence_stop(match, strict=True)


def _weekday(match: re.Match[str]) -> str:
    if not match[1]:
        return _day_name(match[2] or match[3] or match[4])
    before = text_before(match, 5)
    if match[1] == "Sun" and before.lower().endswith(("the ", " our ", " a ")):
        return match.group()
    return _day_name(match[1]) + stop_after_date(match, strict=_names_follow(match))


def _month_span(match: re.Match[str]) -> str:
    first, last = match.groups()
    words = f"{MONTHS[_month(first) - 1]} to "
    if not _MONTH_ENDS.match(match.string, match.end()):
        return words + last
    return words + MONTHS[_month(last) - 1] + sentence_stop(match, strict=True)


def _short_month(match: re.Match[str]) -> str:
    before, name = match.groups()
    return f"{before}{MONTHS[_month(name) - 1]}"


def _century(match: re.Match[str]) -> str:
    return f"{match[1]} century{sentence_stop(match, strict=True)}"


def _era_span(match: re.Match[str]) -> str:
    return f"{year(int(match[1]))} to {match[2]}"


def _month(name: str) -> int:
    name = name.lower()[:3]
    return next(index for index, month in enumerate(MONTHS, start=1) if month.startswith(name))


def _full_year(written: str) -> int:
    """Two digits stand for 1950 to 2049, as most calendars have it."""
    number = int(written)
    if len(written) > 2:
        return number
    return number + (2000 if number < 50 else 1900)


def _date(month: int, day: int, written_year: str | None = None) -> str:
    words = f"{MONTHS[month - 1]} {ordinal(day)}"
    return f"{words}, {year(_full_year(written_year))}" if written_year else words


def _numeric(match: re.Match[str]) -> str:
    """Month first, as Americans write; day first where only that is a date, or with dots."""
    first, sign, second, written_year = int(match[1]), match[2], int(match[3]), match[4]
    if sign == "." and len(written_year) == 2:
        return match.group()
    month, day = (second, first) if sign == "." and second <= 12 else (first, second)
    if month > 12:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match.group()
    return _date(month, day, written_year)


def _numeric_span(match: re.Match[str]) -> str:
    """'12/24-1/2', unless both may be fractions."""
    month, day, last_month, last_day = map(int, match.groups())
    if not any(number > 12 and number not in (16, 20, 25, 30) for number in (day, last_day)):
        return match.group()
    return f"{_date(month, day)} to {_date(last_month, last_day)}"


def _season(match: re.Match[str]) -> str:
    """'2020/21' is a year that begins in one and ends in the next."""
    first, last = int(match[1]), int(match[2])
    if (first + 1) % 100 != last:
        return match.group()
    return f"{year(first)} to {pair(last) if last else year(first + 1)}"


def _month_day(match: re.Match[str]) -> str:
    name, day, last_day, _, written_year = match.groups()
    words = _date(_month(name), int(day))
    if last_day:
        words += f" to {ordinal(int(last_day))}"
    return f"{words}, {year(int(written_year))}" if written_year else words + _tail(match, name)


def _day_month(match: re.Match[str]) -> str:
    _, day, last_day, name, _, written_year = match.groups()
    days = ordinal(int(day)) + (f" to {ordinal(int(last_day))}" if last_day else "")
    words = f"the {days} of {MONTHS[_month(name) - 1]}"
    if written_year:
        return f"{words}, {year(int(written_year))}"
    return words + _tail(match, name)


def _tail(match: re.Match[str], name: str) -> str:
    """A comma that the expression took with it; the full stop of a full month name is one."""
    last = match.group()[-1]
    if last == "," or (last == "." and len(name) > 4):
        return last
    return sentence_stop(match, strict=True)


def _month_year(match: re.Match[str]) -> str:
    comma = match[2] or ""
    return f"{MONTHS[_month(match[1]) - 1]}{comma} {year(int(match[3]))}"


def _era_year(match: re.Match[str]) -> str:
    number, era = match[1] or match[4], match[2] or match[3]
    letters = " ".join(era.lower().replace(".", ""))
    if not match[1]:
        return f"{letters} {year(int(number))}"
    return f"{year(int(number))} {letters}{sentence_stop(match, strict=True)}"


def _year_span(match: re.Match[str]) -> str:
    first, last = match.groups()
    if len(last) == 2:
        if int(last) <= int(first[2:]):
            return match.group()
        return f"{year(int(first))} to {pair(int(last))}"
    return f"{year(int(first))} to {year(int(last))}"


# --- Times of day and durations: '3:45 pm', '15:30', '7:05', '10-11:30 a.m.', '1h 30m' ---

_HALF = r"(?: ?([AaPp])(?:\.[Mm]\.|[Mm]\b\.?))"
_TIME = re.compile(
    r"(?<![\w.:,$£€/-])([01]?[0-9]|2[0-4]):([0-5][0-9])(?::([0-5][0-9])(?:\.([0-9]{1,6}))?)?"
    rf"(?![0-9:]|[.,][0-9]){_HALF}?(?: ?(Z|h(?:rs|ours)?)\b)?"
)
_HALF_TIME = re.compile(rf"(?<![\w.:,$£€/])([0-9]{{1,2}})(?:\.([0-5][0-9]))?{_HALF}")
_SPAN = re.compile(
    rf"(?<![\w.:,$£€/-])([0-9]{{1,2}}(?::[0-5][0-9])?{_HALF}?) ?[-–—] ?(?=[0-9]{{1,2}}"
    rf"(?::[0-5][0-9](?![0-9])|(?::[0-5][0-9])? ?[AaPp]\.?[Mm]\b))"
)
_SHORT_SPAN_START = re.compile(
    r"(?<![\w.:,$£€/-])([0-9]{1,2})(?= to [0-9]{1,2}(?::[0-5][0-9])? ?[AaPp]\.?[Mm]\b)"
)
_O_CLOCK = re.compile(r"(?<![\w.,])([0-9]{1,2}) ?o'? ?clock\b", re.IGNORECASE)
_HOUR_MINUTE = re.compile(r"(?<![\w.,])([0-9]{1,2})h([0-5][0-9])(?:m|min)?\b")
_NOON_SPAN = re.compile(r"\b([Nn]oon|[Mm]idnight) ?[-–] ?(?=[0-9]{1,2}[ :apAP])")
_MILITARY = re.compile(
    r"(?:(?<=[aA]t )|(?<=[bB]y )|(?<=ntil )|(?<=till )|(?<=[fF]rom )|(?<=[bB]efore )|"
    r"(?<=[aA]fter )|(?<=[aA]round )|(?<=[sS]ince ))([01][0-9]|2[0-3])([0-5][0-9]) ?(?:hrs\b\.?|"
    r"hours\b|h\b)|(?:(?<=[aA]t )|(?<=[bB]y )|(?<=ntil )|(?<=[fF]rom ))(0[0-9])([0-5][0-9])"
    r"(?![\w/:%-]|[.,][0-9]| [0-9])|(?<![\w.,:/+-])(0[0-9])([0-5][0-9]) ?(?:hrs\b\.?|hours\b)"
)
_SPANS = {
    "y": "year", "yr": "year", "yrs": "year", "mo": "month", "mos": "month", "w": "week",
    "wk": "week", "wks": "week", "d": "day", "h": "hour", "hr": "hour", "hrs": "hour",
    "m": "minute", "min": "minute", "mins": "minute", "s": "second", "sec": "second",
    "secs": "second",
}  # fmt: skip
_LONGEST_FIRST = ("year", "month", "week", "day", "hour", "minute", "second")
_PART = rf"[0-9]{{1,4}}(?:\.[0-9]{{1,3}})? ?(?:{'|'.join(sorted(_SPANS, key=len, reverse=True))})"
_DURATION = re.compile(
    rf"(?<![\w.,:/-])({_PART}\.?(?:(?: and |, ?| )?{_PART}){{1,6}})(?![\w'])(\.(?= [a-z0-9(]|,))?"
)
_DURATION_PART = re.compile(r"([0-9.]+) ?([a-z]+)")
_MINUTE_SECOND = re.compile(r"(?<![\w.,])([0-9]{1,2})m([0-5][0-9])(?!\w|[.,][0-9])")
# A lone "5m" is a length, unless what stands around it speaks of time; so is "3d" a name.
_SPAN_UNIT = "(mo|[mdwy])"
_SPAN_SIGN = re.compile(r"[0-9](?i:mo|[mdwyh])\b")
_SPAN_BEFORE = re.compile(
    rf"(?i:\b(eta:?|wait(?:ed|ing)?|takes?|took|lasts?|lasted|paused?|sleeps?|slept|rest(?:ed)?|"
    rf"snoozed?|back in|starts in|begins in|ends in|opens in|closes in|leaves in|arrives in|"
    rf"ready in|done in|up in|every|last|past|next|another|within|expires in|after) )"
    rf"([0-9]{{1,3}})(?i:{_SPAN_UNIT})(?![\w'-])(?! (?:of|tall|wide|deep|long|high|away|from|below|"
    rf"above)\b)"
)
_SPAN_AFTER = re.compile(
    rf"(?<![\w.,$£€-])([0-9]{{1,3}}){_SPAN_UNIT}(?= (?:ago|later|left|remaining|early|late|older|"
    rf"younger|old|passed|from now|to go|before|after that|each day|a day|per day|into)\b)"
)
_SPAN_NOUN = re.compile(
    r"(?<![\w.,$£€-])([0-9]{1,3})([mdwyh])(?= (?:reads?|breaks?|timer|call|video|clip|meeting|"
    r"delay|session|interval|nap|talk|speech|interview|workout|warm-up|countdown|pause|wait|ride|"
    r"clock|shift|day|trial|trip|journey|flight|period|window|cooldown|streak|forecast|warranty|"
    r"visit)\b)"
)
_YEAR_OLD = re.compile(r"(?<![\w.,-])([0-9]{1,3}) ?(?:yo|y/o)(s?)(?!\w)")


def expand_times(text: str) -> str:
    """Expand times of day; the last full stop of 'a.m.' stays where it also ends the sentence."""
    text = _MILITARY.sub(_military, _NOON_SPAN.sub(r"\1 to ", text))
    text = _SPAN.sub(lambda match: f"{match[1]} to ", text)
    text = _TIME.sub(_time, text)
    text = _DURATION.sub(_duration, text)
    text = _MINUTE_SECOND.sub(
        lambda match: f"{_count(match[1], 'minute')} {_count(match[2], 'second')}", text
    )
    text = _YEAR_OLD.sub(lambda match: f"{cardinal(int(match[1]))} year old{match[2]}", text)
    if _SPAN_SIGN.search(text):
        text = _SPAN_BEFORE.sub(
            lambda match: f"{match[1]} {_count(match[2], _SPANS[match[3].lower()])}", text
        )
        text = _SPAN_AFTER.sub(lambda match: _count(match[1], _SPANS[match[2]]), text)
        text = _SPAN_NOUN.sub(lambda match: f"{cardinal(int(match[1]))} {_SPANS[match[2]]}", text)
    text = _HOUR_MINUTE.sub(_hour_minute, text)
    text = _HALF_TIME.sub(_half_time, text)
    text = _SHORT_SPAN_START.sub(lambda match: cardinal(int(match[1])), text)
    return _O_CLOCK.sub(lambda match: f"{cardinal(int(match[1]))} o'clock", text)


def _count(number: str, noun: str) -> str:
    value = int(number)
    return f"{cardinal(value)} {noun}{'' if value == 1 else 's'}"


def _hour_minute(match: re.Match[str]) -> str:
    hours, minutes = int(match[1]), int(match[2])
    if is_attribute(match.string, match.start(), match.end()):  # "a 2h30 film"
        return f"{cardinal(hours)} hour {cardinal(minutes)} minute"
    return f"{_count(match[1], 'hour')} {_count(match[2], 'minute')}"


def _duration(match: re.Match[str]) -> str:
    """'1h 30m 20s': the parts stand from the longest to the shortest, else it is none."""
    parts = _DURATION_PART.findall(match[1])
    ranks = [_LONGEST_FIRST.index(_SPANS[unit]) for _, unit in parts]
    if any(later <= rank for rank, later in zip(ranks, ranks[1:], strict=False)):
        return match.group()
    attribute = is_attribute(match.string, match.start(), match.end())
    joints = re.split(r"[0-9.]+ ?[a-z]+\.?", match[1])[1:-1]
    words = ""
    for (number, unit), joint in zip(parts, [*joints, ""], strict=True):
        noun = _SPANS[unit]
        if number.isdigit():
            number = number.lstrip("0") or "0"
        words += f"{spoken_number(number)} {noun}{'' if attribute or is_one(number) else 's'}"
        words += f" {joint.strip()} ".replace(" ,", ",").replace("  ", " ")
    return words.rstrip()


def _military(match: re.Match[str]) -> str:
    """'at 0730' -> 'oh seven thirty', '0600 hours' -> 'oh six hundred hours'."""
    hour, minute = (match[1] or match[3] or match[5]), (match[2] or match[4] or match[6])
    is_named = not match[3]
    words = f"oh {cardinal(int(hour))}" if hour[0] == "0" != hour[1] else cardinal(int(hour))
    words += " hundred" if minute == "00" else f" {pair(int(minute))}"
    return words + (" hours" if is_named else "")


def _time(match: re.Match[str]) -> str:
    hour, minute, seconds = int(match[1]), int(match[2]), match[3]
    if match[1] == "00" and seconds and not match[5]:  # a length: 00:03:20
        parts = [_count(match[2], "minute")] if minute else []
        parts += [_count(seconds, "second")] if int(seconds) or not minute else []
        return " ".join(parts)
    half, suffix = match[5], match[6]
    words = cardinal(hour)
    if minute:
        words = f"{words} {pair(minute)}"
    elif not half and seconds is None:
        words = f"{words} hundred" if hour > 12 or suffix else f"{words} o'clock"
        if hour == 0:
            words = "midnight"
    if seconds and int(seconds):
        words += f" and {_count(seconds, 'second')}"
    if half:
        return words + _half(match, half)
    return f"{words} hours" if suffix and suffix != "Z" else words


def _half_time(match: re.Match[str]) -> str:
    hour, minute, half = match.groups()
    if int(hour) > 24:
        return match.group()
    words = cardinal(int(hour)) + (f" {pair(int(minute))}" if minute and int(minute) else "")
    return words + _half(match, half)


def _half(match: re.Match[str], half: str) -> str:
    return f" {half.lower()} m{sentence_stop(match)}"
