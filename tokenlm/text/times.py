"""Times of day to words: '3:45 pm', '15:30', '9am', '7:05', '10-11:30 a.m.'."""

from __future__ import annotations

import re

from tokenlm.text.money import is_attribute
from tokenlm.text.numerals import cardinal, is_one, pair, spoken_number
from tokenlm.text.punctuation import sentence_stop

_HALF = r"(?: ?([AaPp])(?:\.[Mm]\.|[Mm]\b\.?))"
_CLOCK = r"([01]?[0-9]|2[0-4])[:.]([0-5][0-9])"
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
_DIGIT = re.compile(r"[0-9]")


def expand_times(text: str) -> str:
    """Say times of day; the last full stop of 'a.m.' stays where it also ends the sentence."""
    if not _DIGIT.search(text):
        return text
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
    words = f" {half.lower()} m"
    return f"{words}{sentence_stop(match)}" if match.group().endswith(".") else words
