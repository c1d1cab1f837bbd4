"""Subtitles: of speech that was made, and speech of those that are given.

A subtitle is a piece of the text as it was written, of at most two lines. The formats are SubRip
(.srt), WebVTT (.vtt, https://www.w3.org/TR/webvtt1/), whose words are timed, too, and JSON.
"""

from __future__ import annotations

import html
import json
import re
import textwrap
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenlm.text.markup import HIDDEN, hide_markup

if TYPE_CHECKING:
    from torch import Tensor

    from tokenlm.synthesis import Synthesizer
    from tokenlm.synthesis.session import Progress
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


def group_words(
    text: str, words: Sequence[TimedWord], total_seconds: float | None = None
) -> list[Cue]:
    """Groups words to subtitles: by sentences, and within two lines and `MAX_SECONDS`.

    Args:
        text: of the request.
        words: of it, in their order.
        total_seconds: length of the speech, at whose end the last subtitle ends at the latest.
    """
    readable = _readable(text, words)
    groups: list[list[TimedWord]] = []
    for word in words:
        if not groups or _begins_cue(readable, groups[-1], word):
            groups.append([])
        groups[-1].append(word)
    starts = [group[0].start_seconds for group in groups]
    cues = []
    for number, group in enumerate(groups):
        end = group[-1].end_seconds + HOLD_SECONDS
        if number + 1 < len(groups):
            end = min(end, max(starts[number + 1], group[-1].start_seconds))
        elif total_seconds is not None:
            end = min(end, max(total_seconds, group[-1].start_seconds))
        cues.append(Cue(tuple(group), starts[number], end))
    return cues


def _readable(text: str, words: Sequence[TimedWord]) -> str:
    """The text, character for character, with its markup hidden: `_shown` gives a part of it."""
    starts = [word.text_start for word in words]

    def is_said(start: int, end: int) -> bool:
        first = bisect_left(starts, start)
        return first < len(words) and words[first].text_end <= end

    return hide_markup(text, is_said)


def _shown(readable: str) -> str:
    """What a viewer reads of a part of a text: no markup, entities of HTML as their characters."""
    return html.unescape(readable.replace(HIDDEN, ""))


def _begins_cue(readable: str, group: Sequence[TimedWord], word: TimedWord) -> bool:
    last = group[-1]
    # As it is said, "Dr." has no full stop.
    if last.spoken.rstrip(_CLOSING).endswith(_SENTENCE_ENDS):
        return True
    if word.start_seconds - last.end_seconds > GAP_SECONDS:
        return True
    if word.end_seconds - group[0].start_seconds > MAX_SECONDS:
        return True
    return len(_lines(readable[group[0].text_start : word.text_end])) > 2


def _lines(readable: str) -> list[str]:
    """The lines of a subtitle."""
    return textwrap.wrap(" ".join(_shown(readable).split()), LINE_CHARACTERS)


def to_srt(text: str, words: Sequence[TimedWord], total_seconds: float | None = None) -> str:
    """SubRip subtitles; arguments as for `group_words`."""
    readable, blocks = _readable(text, words), []
    for number, cue in enumerate(group_words(text, words, total_seconds), start=1):
        lines = "\n".join(_lines(readable[cue.words[0].text_start : cue.words[-1].text_end]))
        times = f"{_clock(cue.start_seconds, ',')} --> {_clock(cue.end_seconds, ',')}"
        blocks.append(f"{number}\n{times}\n{lines}\n")
    return "\n".join(blocks)


def to_vtt(text: str, words: Sequence[TimedWord], total_seconds: float | None = None) -> str:
    """WebVTT subtitles in which each word has its own time; arguments as for `group_words`."""
    readable, blocks = _readable(text, words), ["WEBVTT\n"]
    for cue in group_words(text, words, total_seconds):
        shown, place = "", cue.words[0].text_start
        for word in cue.words:
            shown += _escaped(_shown(readable[place : word.text_start]))
            if shown and word.start_seconds > cue.start_seconds:
                shown += f"<{_clock(word.start_seconds, '.')}>"
            shown += _escaped(_shown(readable[word.text_start : word.text_end]))
            place = word.text_end
        lines = " ".join(shown.split())
        times = f"{_clock(cue.start_seconds, '.')} --> {_clock(cue.end_seconds, '.')}"
        blocks.append(f"{times}\n{lines}\n")
    return "\n".join(blocks)


def to_json(text: str, words: Sequence[TimedWord], total_seconds: float | None = None) -> str:
    """The text as it was written and its words as JSON; arguments as for `group_words`."""
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


class SubtitleError(ValueError):
    """Subtitles that cannot be read or spoken; the message has a line for each mistake."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, kw_only=True)
class Subtitle:
    """A subtitle that is to be spoken."""

    text: str
    start_seconds: float
    end_seconds: float
    number: int | None = field(default=None, compare=False)
    """In its file, for messages; None where it comes from none."""


def read_srt(content: str) -> list[Subtitle]:
    """Reads SubRip subtitles, in the order of their times; styles are dropped, as are empty ones.

    Raises:
        SubtitleError: lines that should have times have none, or subtitles end before they begin;
            the message names each of them.
    """
    subtitles, mistakes = [], []
    lines = content.replace("\ufeff", "").splitlines()
    place = count = 0
    while place < len(lines):
        if not lines[place].strip():
            place += 1
            continue
        count += 1
        number = count
        if lines[place].strip().isdecimal() and place + 1 < len(lines):
            number = int(lines[place])
            place += 1
        name = f"subtitle {number}: line {place + 1} of the subtitles"
        found = _TIMES.match(lines[place].strip())
        start = end = 0.0
        if found is None:
            shown = lines[place][:60]
            mistakes.append(f"{name} is no time such as 00:00:01,000 --> 00:00:02,500: {shown!r}.")
        else:
            start, end = (
                3600 * int(hours) + 60 * int(minutes) + int(whole) + int(rest.ljust(3, "0")) / 1000
                for hours, minutes, whole, rest in (found.groups()[:4], found.groups()[4:])
            )
            if end <= start:
                mistakes.append(f"{name} ends before it begins.")
        first = place = place + 1
        while place < len(lines) and lines[place].strip():
            place += 1
        text = " ".join(_STYLE.sub("", line).strip() for line in lines[first:place]).strip()
        if any(letter.isalnum() for letter in text):
            subtitles.append(
                Subtitle(text=text, start_seconds=start, end_seconds=end, number=number)
            )
    if mistakes:
        raise SubtitleError(mistakes)
    return sorted(subtitles, key=lambda subtitle: subtitle.start_seconds)


def dub(
    synthesizer: Synthesizer,
    subtitles: Sequence[Subtitle],
    *,
    folder: str | Path | None = None,
    comment: str | None = None,
    on_progress: Progress | None = None,
    **options: Any,
) -> Iterator[Tensor]:
    """Speaks subtitles, each at its time.

    What would take longer than its subtitle stands, or a little less, is spoken in just that time;
    what is much shorter is spoken at its own pace. A subtitle stands until its end, or until the
    next one begins.

    All subtitles are checked before the first is spoken. How long one takes is known when it has
    been spoken: where it does not fit into its time then, it stays silent, and the others are
    spoken.

    Args:
        synthesizer: what speaks.
        subtitles: in the order of their times.
        folder: where the speech of each subtitle is kept, as flac files of 16 bits, and looked for;
            default nowhere.
        comment: written to the metadata of these files.
        on_progress: called with the share that is done, by the number of subtitles.
        options: as for `Synthesizer.generate`, but no `duration` and no `speed`.

    Returns:
        An iterator of waveforms (S,), silence and speech in turn; joined they are the sound of the
        film. It ends with a SubtitleError where subtitles stayed silent.

    Raises:
        SubtitleError: subtitles cannot be read, or not be spoken in their time; each is named.
    """
    keys = _check(synthesizer, subtitles, options)
    parts = list(zip(subtitles, keys, strict=True))
    kept = None if folder is None else Path(folder)
    return _speak(synthesizer, parts, kept, comment, on_progress, options)


def _check(
    synthesizer: Synthesizer, subtitles: Sequence[Subtitle], options: dict[str, Any]
) -> list[str]:
    """Digests of all that the sound of each subtitle depends on, but for its time.

    Raises:
        SubtitleError: some cannot be spoken.
        ValueError: an option is wrong.
    """
    from tokenlm.synthesis.script import sound_key

    session_options = dict(options)
    if session_options.get("layout", "auto") == "auto":
        session_options["layout"] = "one_shot"
    synthesizer.new_session(**session_options).close()
    keys, mistakes = [], []
    for number, subtitle in enumerate(subtitles):
        start, end = subtitle.start_seconds, _end(subtitles, number)
        session = synthesizer.new_session(**session_options)
        try:
            if number and start < subtitles[number - 1].start_seconds:
                raise ValueError("it begins before the one in front of it.")
            if not 0.0 <= start < subtitle.end_seconds:
                raise ValueError("it ends before it begins.")
            if end <= start:
                raise ValueError("it begins with the next one, and has no time of its own.")
            session.text.read(subtitle.text, warns=False)
            if (shortest := session.shortest_seconds) > end - start:
                raise ValueError(
                    f"it takes at least {shortest:.2f} s, and has {end - start:.2f} s."
                )
            layout = session_options["layout"]
            keys.append(sound_key(synthesizer, session, subtitle.text, layout))
        except ValueError as error:
            mistakes.append(f"{_name(subtitle)}: {error}")
        finally:
            session.close()
    if mistakes:
        raise SubtitleError(mistakes)
    return keys


def _speak(
    synthesizer: Synthesizer,
    parts: Sequence[tuple[Subtitle, str]],
    folder: Path | None,
    comment: str | None,
    on_progress: Progress | None,
    options: dict[str, Any],
) -> Iterator[Tensor]:
    import torch

    from tokenlm.audio.io import load_audio, save_audio

    rate, num_samples = synthesizer.sample_rate, 0
    subtitles, mistakes = [subtitle for subtitle, _ in parts], []
    for number, (subtitle, key) in enumerate(parts):
        # Where the speech before it has ended a little late, less time is left.
        start = max(subtitle.start_seconds, num_samples / rate)
        silence = round(start * rate) - num_samples
        for done in range(0, silence, _SILENCE):
            yield torch.zeros(min(silence - done, _SILENCE))
        num_samples += silence
        seconds = _end(subtitles, number) - start
        path = None if folder is None else folder / f"{key}-{round(1e6 * seconds)}.flac"
        if path is not None and path.is_file():
            speech = load_audio(path, rate)
        else:
            try:
                speech = _spoken(synthesizer, subtitle, seconds, options)
            except ValueError as error:
                mistakes.append(f"{_name(subtitle)}: {error}")
                continue
            if path is not None:
                save_audio(path, speech, rate, comment=comment)
        yield speech
        num_samples += speech.shape[0]
        if on_progress is not None:
            on_progress((number + 1) / len(parts))
    if mistakes:
        raise SubtitleError(mistakes)


def _spoken(
    synthesizer: Synthesizer, subtitle: Subtitle, seconds: float, options: dict[str, Any]
) -> Tensor:
    """The speech (S,) of a subtitle that has so many seconds.

    Raises:
        ValueError: it cannot be spoken in them.
    """
    if seconds <= 0:
        raise ValueError("the speech in front of it leaves it no time.")
    speech = synthesizer.generate(subtitle.text, **options)
    if speech.shape[0] >= MIN_FILL * seconds * synthesizer.sample_rate:
        speech = synthesizer.generate(subtitle.text, duration=seconds, **options)
    return speech


def _end(subtitles: Sequence[Subtitle], number: int) -> float:
    """When a subtitle ends: at its end, or where the next one begins."""
    later = subtitles[number + 1 : number + 2]
    return min([subtitles[number].end_seconds, *(after.start_seconds for after in later)])


def _name(subtitle: Subtitle) -> str:
    name = "the subtitle" if subtitle.number is None else f"subtitle {subtitle.number}"
    return f"{name} at {_clock(subtitle.start_seconds, ',')} {subtitle.text[:40]!r}"
