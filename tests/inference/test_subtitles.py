"""Subtitles of timed words."""

from __future__ import annotations

import json

from inference.subtitles import group_words, to_json, to_srt, to_vtt
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
