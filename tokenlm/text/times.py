"""Times of day to words: '3:45 pm', '15:30', '9am', '7:05', '10-11:30 a.m.'."""

from __future__ import annotations

import re

from tokenlm.text.abbreviations import sentence_stop
from tokenlm.text.numerals import cardinal, pair

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
_DIGIT = re.compile(r"[0-9]")


def expand_times(text: str) -> str:
    """Say times of day; the last full stop of 'a.m.' stays where it also ends the sentence."""
    if not _DIGIT.search(text):
        return text
    text = _SPAN.sub(lambda match: f"{match[1]} to ", text)
    text = _TIME.sub(_time, text)
    text = _HOUR_MINUTE.sub(
        lambda match: f"{_count(match[1], 'hour')} {_count(match[2], 'minute')}", text
    )
    text = _HALF_TIME.sub(_half_time, text)
    text = _SHORT_SPAN_START.sub(lambda match: cardinal(int(match[1])), text)
    return _O_CLOCK.sub(lambda match: f"{cardinal(int(match[1]))} o'clock", text)


def _count(number: str, noun: str) -> str:
    value = int(number)
    return f"{cardinal(value)} {noun}{'' if value == 1 else 's'}"


def _time(match: re.Match[str]) -> str:
    hour, minute, seconds = int(match[1]), int(match[2]), match[3]
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
