"""Subtitles: of speech that was made, and speech of those that are given.

A subtitle is a piece of the text as it was written, of at most two lines. The formats are SubRip
(.srt), WebVTT (.vtt, https://www.w3.org/TR/webvtt1/), whose words are timed, too, and JSON.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from tokenlm.synthesis import Synthesizer
    from tokenlm.synthesis.words import TimedWord

LINE_CHARACTERS = 42
"""Longest line of a subtitle; it has two of them. What broadcasters ask for."""
MAX_SECONDS = 7.0
"""Longest time that a subtitle stands."""
GAP_SECONDS = 1.0
"""A pause that ends a subtitle."""
HOLD_SECONDS = 0.4
"""A subtitle stays for this time after its last word, if the next one does not begin by then."""
MIN_FILL = 0.8
"""Speech that takes less than this share of the time of its subtitle is not made slower to fill
it."""
_TIME = r"(\d{1,2}):([0-5]\d):([0-5]\d)[,.](\d{1,3})"
_TIMES = re.compile(rf"{_TIME}\s*-->\s*{_TIME}", re.ASCII)
_SILENCE = 1_000_000
"""Samples of silence that are made at once."""
_STYLE = re.compile(r"\{\\[^}]*\}|</?(?:i|b|u|s|font)\b[^>]*>", re.IGNORECASE)
_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")
_CLOSING = "\"'”’»)]」』*_"


@dataclass(frozen=True)
class Cue:
    """A subtitle: words that are shown at once."""

    words: tuple[TimedWord, ...]
    start_seconds: float
    end_seconds: float


def group_words(text: str, words: Sequence[TimedWord]) -> list[Cue]:
    """Groups words to subtitles: by sentences, and within two lines and `MAX_SECONDS`.

    Args:
        text: of the request.
        words: of it, in their order.
    """
    groups: list[list[TimedWord]] = []
    for word in words:
        if not groups or _begins_cue(text, groups[-1], word):
            groups.append([])
        groups[-1].append(word)
    starts = [group[0].start_seconds for group in groups]
    cues = []
    for number, group in enumerate(groups):
        end = group[-1].end_seconds + HOLD_SECONDS
        if number + 1 < len(groups):
            end = min(end, max(starts[number + 1], group[-1].start_seconds))
        cues.append(Cue(tuple(group), starts[number], end))
    return cues


def _begins_cue(text: str, group: Sequence[TimedWord], word: TimedWord) -> bool:
    last = group[-1]
    # As it is said, "Dr." has no full stop.
    if last.spoken.rstrip(_CLOSING).endswith(_SENTENCE_ENDS):
        return True
    if word.start_seconds - last.end_seconds > GAP_SECONDS:
        return True
    if word.end_seconds - group[0].start_seconds > MAX_SECONDS:
        return True
    shown = " ".join(text[group[0].text_start : word.text_end].split())
    return len(textwrap.wrap(shown, LINE_CHARACTERS)) > 2


def to_srt(text: str, words: Sequence[TimedWord]) -> str:
    """SubRip subtitles; arguments as for `group_words`."""
    blocks = []
    for number, cue in enumerate(group_words(text, words), start=1):
        shown = " ".join(text[cue.words[0].text_start : cue.words[-1].text_end].split())
        lines = "\n".join(textwrap.wrap(shown, LINE_CHARACTERS))
        times = f"{_clock(cue.start_seconds, ',')} --> {_clock(cue.end_seconds, ',')}"
        blocks.append(f"{number}\n{times}\n{lines}\n")
    return "\n".join(blocks)


def to_vtt(text: str, words: Sequence[TimedWord]) -> str:
    """WebVTT subtitles in which each word has its own time; arguments as for `group_words`."""
    blocks = ["WEBVTT\n"]
    for cue in group_words(text, words):
        shown, place = "", cue.words[0].text_start
        for word in cue.words:
            between = " ".join(text[place : word.text_start].split(" "))
            shown += _escaped(between)
            if shown and word.start_seconds > cue.start_seconds:
                shown += f"<{_clock(word.start_seconds, '.')}>"
            shown += _escaped(word.text)
            place = word.text_end
        lines = " ".join(shown.split())
        times = f"{_clock(cue.start_seconds, '.')} --> {_clock(cue.end_seconds, '.')}"
        blocks.append(f"{times}\n{lines}\n")
    return "\n".join(blocks)


def to_json(text: str, words: Sequence[TimedWord]) -> str:
    """The text and its words as JSON; arguments as for `group_words`."""
    fields = {"text": text, "words": [asdict(word) for word in words]}
    return json.dumps(fields, ensure_ascii=False, indent=1) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, mark: str) -> str:
    """Hours, minutes, seconds, and milliseconds behind a mark."""
    total = round(max(seconds, 0.0) * 1000)
    hours, rest = divmod(total, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    whole, milliseconds = divmod(rest, 1000)
    return f"{hours:02}:{minutes:02}:{whole:02}{mark}{milliseconds:03}"


@dataclass(frozen=True, kw_only=True)
class Subtitle:
    """A subtitle that is to be spoken."""

    text: str
    start_seconds: float
    end_seconds: float


def read_srt(content: str) -> list[Subtitle]:
    """Reads SubRip subtitles, in the order of their times; styles are dropped, as are empty ones.

    Raises:
        ValueError: a line that should have times has none, or one ends before it begins; the
            sentence has its number.
    """
    subtitles = []
    lines = content.replace("\ufeff", "").splitlines()
    number = 0
    while number < len(lines):
        if not lines[number].strip():
            number += 1
            continue
        if lines[number].strip().isdigit() and number + 1 < len(lines):
            number += 1
        found = _TIMES.match(lines[number].strip())
        if found is None:
            raise ValueError(
                f"line {number + 1} of the subtitles is no time such as "
                f"00:00:01,000 --> 00:00:02,500: {lines[number][:60]!r}."
            )
        start, end = (
            3600 * int(hours) + 60 * int(minutes) + int(seconds) + int(rest.ljust(3, "0")) / 1000
            for hours, minutes, seconds, rest in (found.groups()[:4], found.groups()[4:])
        )
        if end <= start:
            raise ValueError(f"line {number + 1} of the subtitles ends before it begins.")
        first = number = number + 1
        while number < len(lines) and lines[number].strip():
            number += 1
        text = " ".join(_STYLE.sub("", line).strip() for line in lines[first:number]).strip()
        if any(letter.isalnum() for letter in text):
            subtitles.append(Subtitle(text=text, start_seconds=start, end_seconds=end))
    return sorted(subtitles, key=lambda subtitle: subtitle.start_seconds)


def dub(
    synthesizer: Synthesizer, subtitles: Sequence[Subtitle], **options: Any
) -> Iterator[Tensor]:
    """Speaks subtitles, each at its time.

    What would take longer than its subtitle stands, or a little less, is spoken in just that time;
    what is much shorter is spoken at its own pace.

    Args:
        synthesizer: what speaks.
        subtitles: in the order of their times.
        options: as for `Synthesizer.generate`, but no `duration` and no `speed`.

    Yields:
        Waveforms (S,), silence and speech in turn; joined they are the sound of the film.

    Raises:
        ValueError: a subtitle cannot be spoken in its time; the sentence names it.
    """
    import torch

    rate, num_samples = synthesizer.sample_rate, 0
    for number, subtitle in enumerate(subtitles):
        later = subtitles[number + 1].start_seconds if number + 1 < len(subtitles) else None
        end = subtitle.end_seconds if later is None else min(subtitle.end_seconds, later)
        # Where the speech before it has ended a little late, less time is left.
        start = max(subtitle.start_seconds, num_samples / rate)
        silence = round(start * rate) - num_samples
        for done in range(0, silence, _SILENCE):
            yield torch.zeros(min(silence - done, _SILENCE))
        try:
            if end <= start:
                raise ValueError("it begins with the next one, and has no time of its own.")
            speech = synthesizer.generate(subtitle.text, **options)
            if speech.shape[0] >= MIN_FILL * (end - start) * rate:
                speech = synthesizer.generate(subtitle.text, duration=end - start, **options)
        except ValueError as error:
            shown = f"{_clock(subtitle.start_seconds, ',')} {subtitle.text[:40]!r}"
            raise ValueError(f"the subtitle at {shown}: {error}") from error
        yield speech
        num_samples += silence + speech.shape[0]
