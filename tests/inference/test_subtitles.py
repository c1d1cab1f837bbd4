"""Subtitles of timed words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.subtitles import (
    Subtitle,
    SubtitleError,
    dub,
    group_words,
    read_srt,
    to_json,
    to_srt,
    to_vtt,
)
from tokenlm.audio.encoders import to_pcm16
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.session import Session
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


MARKED = (
    '<speak>Wait. [pause 0.8s] <b>Now</b>, <prosody rate="90%">the <sub alias="World Wide Web'
    ' Consortium">W3C</sub></prosody><break time="1s"/>says H<sub>2</sub>O &amp; so on<br>'
    "<!-- or not -->here.<img src='a.png' alt='A cat'> x < y &lt;z</speak>"
)
"""Words as `WrittenWords` gives them: markup is none, the text of a picture is."""
MARKED_WORDS = "Wait. Now , the W3C says H 2 O &amp; so on here. A cat x < y &lt;z".split()


def marked() -> list[TimedWord]:
    """The words of that text, at half a second each."""
    words, place = [], 0
    for number, word in enumerate(MARKED_WORDS):
        found = re.compile(rf"(?<![\w=/<]){re.escape(word)}(?!\w*=)").search(MARKED, place)
        assert found, word
        place = found.end()
        words.append(
            TimedWord(
                text=word, spoken=word, start_seconds=number / 2, end_seconds=number / 2 + 0.5,
                text_start=found.start(), text_end=found.end(),
            )
        )  # fmt: skip
    return words


def test_markup_is_hidden_from_viewers() -> None:
    cues = to_srt(MARKED, marked())
    shown = " ".join(line for line in cues.splitlines() if line and not line[0].isdigit())
    assert shown == "Wait. Now, the W3C says H2O & so on here. A cat x < y <z"
    plain = re.sub(r"<[\d:.]+>", "", to_vtt(MARKED, marked()))
    lines = [line for line in plain.splitlines()[1:] if line and "-->" not in line]
    assert " ".join(lines) == "Wait. Now, the W3C says H2O &amp; so on here. A cat x &lt; y &lt;z"
    # JSON has the text as it was written: its places are those of the words.
    assert json.loads(to_json(MARKED, marked()))["text"] == MARKED


def test_what_is_said_is_no_markup() -> None:
    """Without markup, brackets are words; a front-end drops tags of HTML all the same."""
    text = "Say [pause 0.8s] and <voice name='x'> or <b>bold</b> words."
    words = timed(text, 0.1)
    assert to_srt(text, words).splitlines()[2:4] == [
        "Say [pause 0.8s] and <voice name='x'> or", "bold words.",
    ]  # fmt: skip


def test_the_last_subtitle_ends_with_the_sound() -> None:
    words = timed("It is so. Yes.", 1.0)
    assert "--> 00:00:04,400" in to_srt("It is so. Yes.", words)
    for seconds, end in ((4.1, "04,100"), (3.9, "03,900"), (60.0, "04,400"), (1.0, "03,000")):
        assert f"--> 00:00:{end}" in to_srt("It is so. Yes.", words, seconds)
        assert f"--> 00:00:{end.replace(',', '.')}" in to_vtt("It is so. Yes.", words, seconds)


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
    with pytest.raises(SubtitleError, match="subtitle 1: line 2 of the subtitles is no time"):
        read_srt("1\nhello\n")
    with pytest.raises(ValueError, match="line 1 of the subtitles ends before it begins"):
        read_srt("00:00:02,000 --> 00:00:01,000\nhello\n")
    bad = "1\nno\n\n2\n00:00:02,000 --> 00:00:01,000\na\n\n9\n00:00:03,000\nb\n"
    with pytest.raises(SubtitleError) as error:
        read_srt(bad)
    assert [mistake[:19] for mistake in error.value.mistakes] == [
        "subtitle 1: line 2 ", "subtitle 2: line 5 ", "subtitle 9: line 9 ",
    ]  # fmt: skip
    assert [subtitle.number for subtitle in read_srt(GIVEN)] == [1, 4, 3]
    words = timed("Hello, world! It is.", 1.5)
    again = read_srt(to_srt("Hello, world! It is.", words))
    assert [subtitle.text for subtitle in again] == ["Hello, world!", "It is."]


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


def subtitle(text: str, start: float, end: float, number: int | None = None) -> Subtitle:
    return Subtitle(text=text, start_seconds=start, end_seconds=end, number=number)


def test_subtitles_are_spoken_at_their_times(synthesizer: Synthesizer) -> None:
    natural = synthesizer.generate("the lazy dog").shape[0] / 24_000
    subtitles = [
        subtitle("the lazy dog", 1.0, 1.0 + 0.9 * natural), subtitle("the lazy dog", 4.0, 20.0)
    ]  # fmt: skip
    parts = list(dub(synthesizer, subtitles))
    assert [part.shape[0] for part in parts[::2]] == [
        24_000, round(4.0 * 24_000) - 24_000 - parts[1].shape[0],
    ]  # fmt: skip
    assert not bool(parts[0].any()) and not bool(parts[2].any())
    assert parts[1].shape[0] / 24_000 == pytest.approx(0.9 * natural, abs=0.05)
    # There is more than enough time: it is spoken as without subtitles.
    assert torch.equal(parts[3], synthesizer.generate("the lazy dog"))


def test_all_subtitles_are_checked_before_the_first_is_spoken(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be spoken")

    monkeypatch.setattr(Session, "generate", nothing)
    subtitles = [
        subtitle("yes", 0.0, 2.0, 1),
        subtitle("the <foo> dog", 2.0, 4.0, 2),
        subtitle("<voice name='nobody'>the dog</voice>", 4.0, 6.0, 3),
        subtitle("…", 6.0, 8.0, 4),
        subtitle("with the next", 8.0, 10.0, 5),
        subtitle("yes", 8.0, 10.0, 6),
        subtitle("yes", 12.0, 12.0, 7),
        subtitle("yes", 11.0, 13.0, 8),
        subtitle("the quick brown fox jumps over the lazy dog " * 9, 13.0, 13.05, 9),
        subtitle("<b>the dog", 13.2, 14.0, 10),
    ]
    with pytest.raises(SubtitleError) as error:
        dub(synthesizer, subtitles)
    expected = {
        2: "line 1, column 5: the element <foo> is not known",
        3: "line 1, column 1: there is no voice 'nobody'",
        4: "the text holds nothing that can be said",
        5: "it begins with the next one, and has no time of its own",
        7: "it ends before it begins",
        8: "it begins before the one in front of it",
        9: "it takes at least ",
    }
    assert len(error.value.mistakes) == len(expected)
    for (number, message), mistake in zip(expected.items(), error.value.mistakes, strict=True):
        assert mistake.startswith(f"subtitle {number} at 00:00:"), mistake
        assert message in mistake
    with pytest.raises(ValueError, match="sentence_gap must be from 0 to 60 seconds"):
        dub(synthesizer, subtitles, sentence_gap=-1)


def test_what_fails_on_the_way_loses_nothing(
    synthesizer: Synthesizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long the speech is is known late: the rest is spoken, kept, and spoken no second time."""
    subtitles = [
        subtitle("yes", 0.5, 3.0, 1), subtitle("the dog", 3.0, 3.04, 2),
        subtitle("the lazy dog", 3.04, 3.5, 3), subtitle("it is so", 3.5, 9.0, 4),
    ]  # fmt: skip
    whole = list(dub(synthesizer, [subtitles[0], *subtitles[2:]]))
    shares: list[float] = []
    heard = []
    with pytest.raises(SubtitleError, match=r"^subtitle 2 at 00:00:03,000 'the dog': .*takes"):
        for part in dub(synthesizer, subtitles, folder=tmp_path, on_progress=shares.append):
            heard.append(part)
    assert torch.equal(torch.cat(heard), torch.cat(whole)) and shares == [0.25, 0.75, 1.0]
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) == 3
    spoken: list[str] = []
    generate = synthesizer.generate

    def counted(text: str, **options: Any) -> torch.Tensor:
        spoken.append(text)
        return generate(text, **options)

    monkeypatch.setattr(synthesizer, "generate", counted)
    mended = [subtitles[0], subtitle("no", 3.0, 3.04, 2), *subtitles[2:]]
    with pytest.raises(SubtitleError):
        list(dub(synthesizer, mended, folder=tmp_path))
    again = list(dub(synthesizer, [subtitles[0], *subtitles[2:]], folder=tmp_path))
    assert set(spoken) == {"no"}
    # Kept is what a file of 16 bits holds.
    assert np.array_equal(to_pcm16(torch.cat(again)), to_pcm16(torch.cat(whole)))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept
    # Another voice is another sound.
    list(dub(synthesizer, subtitles[:1], folder=tmp_path, voice="bob"))
    assert set(spoken) == {"no", "yes"} and len(list(tmp_path.iterdir())) == 4
