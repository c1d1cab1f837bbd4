"""Scripts as they are spoken: each line by itself, at even loudness, kept and made again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.audio.level import SPEECH_LUFS, even_out, loudness_lufs
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.script import SpokenLine, check_lines, even_line, speak_script
from tokenlm.text.markup import Style
from tokenlm.text.script import ScriptError, ScriptLine, read_dialogue

RATE = 24_000
LINES = read_dialogue(
    "Ann: Is it so?\nBob: Yes, it is one.\nAnn: Well, one.", {"Ann": "ann", "Bob": "bob"}
)


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


def speak(synthesizer: Synthesizer, lines: Any = LINES, **options: Any) -> list[SpokenLine]:
    return list(speak_script(synthesizer, lines, **options))


def speech(part: SpokenLine) -> Tensor:
    return part.waveform[: part.waveform.shape[0] - round(part.line.pause * RATE)]


def test_lines_follow_each_other_without_overlap(synthesizer: Synthesizer) -> None:
    parts = speak(synthesizer, seed=3)
    assert [part.number for part in parts] == [1, 2, 3] and not any(p.is_kept for p in parts)
    starts = [0, parts[0].waveform.shape[0]]
    starts.append(starts[1] + parts[1].waveform.shape[0])
    assert [part.start_sample for part in parts] == starts
    for part, line in zip(parts, LINES, strict=True):
        pause = round(line.pause * RATE)
        assert not part.waveform[-pause:].any()
        alone = synthesizer.generate(line.text, voice=line.voice, seed=3)
        torch.testing.assert_close(speech(part), even_out(alone, RATE), atol=1e-6, rtol=0)


def test_a_line_does_not_depend_on_others(synthesizer: Synthesizer) -> None:
    parts = speak(synthesizer)
    lines = [LINES[2], ScriptLine(text="One.", voice="bob", seed=9, pause=0.0), LINES[0]]
    changed = speak(synthesizer, lines)
    torch.testing.assert_close(changed[0].waveform, parts[2].waveform, atol=0, rtol=0)
    torch.testing.assert_close(changed[2].waveform, parts[0].waveform, atol=0, rtol=0)
    own = synthesizer.generate("One.", voice="bob", seed=9)
    torch.testing.assert_close(changed[1].waveform, even_out(own, RATE), atol=1e-6, rtol=0)


def test_finished_lines_are_kept(synthesizer: Synthesizer, tmp_path: Path) -> None:
    whole = torch.cat([part.waveform for part in speak(synthesizer, folder=tmp_path / "a")])
    # Interrupted after the first line, it goes on there, with the same result.
    shares: list[float] = []
    interrupted = speak_script(synthesizer, LINES, folder=tmp_path / "b")
    assert not next(interrupted).is_kept
    interrupted.close()
    resumed = speak(synthesizer, folder=tmp_path / "b", on_progress=shares.append)
    assert [part.is_kept for part in resumed] == [True, False, False]
    assert torch.equal(torch.cat([part.waveform for part in resumed]), whole)
    assert shares == sorted(shares) and shares[-1] == 1.0
    # What changes a line makes it again, and no other; back again, it is still there.
    for change in ({"seed": 5}, {"text": "No, it is two."}, {"speed": 1.2}, {"voice": "ann"}):
        fields = {"text": LINES[1].text, "voice": LINES[1].voice, **change}
        lines = [LINES[0], ScriptLine(**fields), LINES[2]]
        parts = speak(synthesizer, lines, folder=tmp_path / "b")
        assert [part.is_kept for part in parts] == [True, False, True], change
    assert all(part.is_kept for part in speak(synthesizer, folder=tmp_path / "b"))
    lines = [ScriptLine(text=line.text, voice=line.voice, pause=2.0) for line in LINES]
    assert all(part.is_kept for part in speak(synthesizer, lines, folder=tmp_path / "b"))
    assert not any(p.is_kept for p in speak(synthesizer, folder=tmp_path / "b", num_steps=3))


def test_the_volume_of_a_line_is_kept(synthesizer: Synthesizer) -> None:
    lines = [
        ScriptLine(text="Is it so?"),
        ScriptLine(text='<prosody volume="-6dB">Is it so?</prosody>'),
    ]
    loud, soft = (loudness_lufs(speech(part), RATE) for part in speak(synthesizer, lines))
    assert loud == pytest.approx(SPEECH_LUFS, abs=0.5)
    assert soft - loud == pytest.approx(-6.0, abs=0.5)
    styles = [Style(volume=-100.0)]
    assert even_line(torch.zeros(RATE), RATE, [[1]], styles).abs().max() == 0


def test_mistakes_are_told_before_anything_is_spoken(synthesizer: Synthesizer) -> None:
    for line, message in (
        (ScriptLine(text="Well.", voice="nobody"), r"line 2 \('Well.'\): .*nobody"),
        (
            ScriptLine(text="Well.", style="sadly"),
            "line 2 .*cannot follow instructions; leave them",
        ),
        (ScriptLine(text="Well. <foo>"), "line 2 .*line 1, column 7: the element <foo>"),
        (ScriptLine(text="…"), "line 2 .*nothing that can be said"),
        (ScriptLine(text="Well.", speed=9.0), "line 2 .*speed must be from 0.25 to 4"),
    ):
        with pytest.raises(ScriptError, match=message):
            speak_script(synthesizer, [LINES[0], line])
    with pytest.raises(ScriptError, match="no lines"):
        speak_script(synthesizer, [])


def test_words_that_are_left_out_are_told_once(
    synthesizer: Synthesizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [LINES[0], ScriptLine(text="Say Привет, Bob.")]
    caplog.set_level("WARNING", "tokenlm")  # whatever tests before have set
    check_lines(synthesizer, lines)
    assert not caplog.records  # who speaks them tells
    for _ in range(2):  # a line that is kept tells, too
        caplog.clear()
        speak(synthesizer, lines, folder=tmp_path)
        (record,) = caplog.records
        assert record.getMessage().endswith("Привет")


def test_loudness() -> None:
    time = torch.arange(5 * RATE) / RATE
    tone = torch.sin(2 * math.pi * 997 * time)
    # A tone of full scale in one channel has -3.01 LUFS (BS.1770-4).
    assert loudness_lufs(tone, RATE) == pytest.approx(-3.01, abs=0.1)
    assert loudness_lufs(tone * 0.1, RATE) == pytest.approx(-23.01, abs=0.1)
    # Low sounds count for less, silence for nothing.
    low = torch.sin(2 * math.pi * 40 * time)
    assert loudness_lufs(low, RATE) < loudness_lufs(tone, RATE) - 3
    gap = torch.cat([tone * 0.1, torch.zeros(5 * RATE)])
    assert loudness_lufs(gap, RATE) == pytest.approx(-23.0, abs=0.3)
    assert loudness_lufs(torch.zeros(RATE), RATE) == -math.inf == loudness_lufs(tone[:0], RATE)
    assert loudness_lufs(even_out(tone * 0.02, RATE), RATE) == pytest.approx(-23.0, abs=0.1)
    silence = torch.zeros(RATE)
    assert even_out(silence, RATE) is silence
