"""Subtitles of timed words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from inference.subtitles import Subtitle, dub, group_words, read_srt, to_json, to_srt, to_vtt
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.words import TimedWord

SPOKEN = {"Dr.": "doctor", "e.g.": "for example,"}


def timed(text: str, seconds: float = 0.5, gaps: dict[int, float] | None = None) -> list[TimedWord]:
    """The words of a text, each of a length, behind gaps before some of them."""
    words, place, now = [], 0, 0.0
    for number, word in enumerate(text.split()):
        now += (gaps or {}).get(number, 0.0)
        place = text.index(word, place)
        words.append(
            TimedWord(
                text=word, spoken=SPOKEN.get(word, word.lower()),
                start_seconds=now, end_seconds=now + seconds,
                text_start=place, text_end=place + len(word),
            )
        )  # fmt: skip
        place += len(word)
        now += seconds
    return words


def shown(text: str, words: list[TimedWord]) -> list[str]:
    return [" ".join(word.text for word in cue.words) for cue in group_words(text, words)]


def test_subrip() -> None:
    text = "Hello,   world! It\nis 3661 o'clock."
    assert to_srt(text, timed(text, 1.5)) == (
        "1\n00:00:00,000 --> 00:00:03,000\nHello, world!\n\n"
        "2\n00:00:03,000 --> 00:00:09,400\nIt is 3661 o'clock.\n"
    )
    late = [*timed("Yes.", gaps={0: 3661.0015})]
    assert "01:01:01,002 --> 01:01:01,902" in to_srt("Yes.", late)


def test_webvtt_times_every_word() -> None:
    text = "A <b> & c."
    assert to_vtt(text, timed(text)) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.400\n"
        "A <00:00:00.500>&lt;b&gt; <00:00:01.000>&amp; <00:00:01.500>c.\n"
    )


def test_json() -> None:
    text = "Größe 5"
    found = json.loads(to_json(text, timed(text)))
    assert found["text"] == text
    assert found["words"][1] == {
        "text": "5", "spoken": "5", "start_seconds": 0.5, "end_seconds": 1.0,
        "text_start": 6, "text_end": 7,
    }  # fmt: skip


def test_where_subtitles_end() -> None:
    text = "He met Dr. Lee. Then e.g. nothing."
    assert shown(text, timed(text)) == ["He met Dr. Lee.", "Then e.g. nothing."]
    long = "word " * 30
    cues = shown(long, timed(long, 0.1))
    assert " ".join(cues).split() == long.split()
    assert all(len(cue) <= 84 for cue in cues) and len(cues) == 2
    slow = "one two three four five six"
    assert shown(slow, timed(slow, 2.0)) == ["one two three", "four five six"]
    apart = "one two"
    assert shown(apart, timed(apart, 0.5, {1: 1.5})) == ["one", "two"]
    assert group_words("", []) == [] and to_srt("", []) == "" and to_vtt("", []) == "WEBVTT\n"
    for cue, after in zip(
        group_words(long, timed(long, 0.1)), group_words(long, timed(long, 0.1))[1:], strict=False
    ):
        assert cue.end_seconds <= after.start_seconds


GIVEN = """\ufeff1\r
00:00:01,500 --> 00:00:03,000\r
<i>Is it so?</i>\r
{\\an8}Yes,\r
it is!\r

2
00:00:05.25 --> 00:00:07,250
♪

3
01:00:00,000 --> 01:00:01,000
late

00:00:03,000 --> 00:00:04,000
without a number
"""


def test_subrip_is_read() -> None:
    assert read_srt(GIVEN) == [
        Subtitle(text="Is it so? Yes, it is!", start_seconds=1.5, end_seconds=3.0),
        Subtitle(text="without a number", start_seconds=3.0, end_seconds=4.0),
        Subtitle(text="late", start_seconds=3600.0, end_seconds=3601.0),
    ]
    assert read_srt("") == []
    with pytest.raises(ValueError, match="line 2 of the subtitles is no time"):
        read_srt("1\nhello\n")
    with pytest.raises(ValueError, match="line 1 of the subtitles ends before it begins"):
        read_srt("00:00:02,000 --> 00:00:01,000\nhello\n")
    words = timed("Hello, world! It is.", 1.5)
    again = read_srt(to_srt("Hello, world! It is.", words))
    assert [subtitle.text for subtitle in again] == ["Hello, world!", "It is."]


def test_subtitles_are_spoken_at_their_times(tiny_bundle: Path) -> None:
    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    natural = synthesizer.generate("the lazy dog").shape[0] / 24_000
    subtitles = [
        Subtitle(text="the lazy dog", start_seconds=1.0, end_seconds=1.0 + 0.9 * natural),
        Subtitle(text="the lazy dog", start_seconds=4.0, end_seconds=20.0),
    ]
    parts = list(dub(synthesizer, subtitles))
    assert [part.shape[0] for part in parts[::2]] == [
        24_000, round(4.0 * 24_000) - 24_000 - parts[1].shape[0],
    ]  # fmt: skip
    assert not bool(parts[0].any()) and not bool(parts[2].any())
    assert parts[1].shape[0] / 24_000 == pytest.approx(0.9 * natural, abs=0.05)
    # There is more than enough time: it is spoken as without subtitles.
    assert torch.equal(parts[3], synthesizer.generate("the lazy dog"))
    for end in (1.001, 0.5):
        short = [Subtitle(text="the lazy dog", start_seconds=1.0, end_seconds=end)]
        with pytest.raises(ValueError, match="the subtitle at 00:00:01,000 'the lazy dog': "):
            list(dub(synthesizer, short))
