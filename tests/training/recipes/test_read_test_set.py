"""A teacher that says a tone for each word reads a set of texts."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from training.evaluation.sets import Line, TextSet, read_text_set
from training.recipes import read_test_set
from training.recipes.corpus.engines import EngineError, Request, Speech
from training.recipes.read_test_set import SAMPLE_RATE, read_line, read_set, readable

CONSOLE = Console(file=StringIO())


class Teacher:
    """Reads up to 20 words, a tenth of a second each."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def speak(self, request: Request) -> Speech:
        self.asked.append((request.text, request.voice))
        size = len(request.text.split())
        if size > 20 or request.voice == "nobody":
            raise EngineError(f"cannot read {request.text!r}")
        samples = np.full(size * SAMPLE_RATE // 10, 0.1, np.float32)
        return Speech(waveform=samples, sample_rate=SAMPLE_RATE)


@pytest.fixture
def texts(tmp_path: Path) -> TextSet:
    path = tmp_path / "mine.jsonl"
    rows = [
        {"id": "a", "text": "Is it so?", "category": "short"},
        {"id": "b", "text": "Call 12.", "spoken": "call twelve"},
        {"id": "c", "text": "Yes."},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_text_set(path)


def test_every_line_has_its_recording_and_its_voice(texts: TextSet, tmp_path: Path) -> None:
    teacher = Teacher()
    path = read_set(texts, teacher, tmp_path / "out", ["x", "y"], CONSOLE)  # type: ignore[arg-type]
    found = read_text_set(path)
    assert found.digest == texts.digest  # the same set, so that a sealed one stays one
    assert [line.speaker for line in found.lines] == ["x-f1000", "y-f1000", "x-f1000"]
    assert all(line.reference_audio and line.reference_audio.is_file() for line in found.lines)
    assert teacher.asked == [("Is it so?", "x"), ("call twelve", "y"), ("Yes.", "x")]
    # An interrupted call goes on.
    (tmp_path / "out/mine/b.flac").unlink()
    read_set(texts, teacher, tmp_path / "out", ["x", "y"], CONSOLE)  # type: ignore[arg-type]
    assert teacher.asked[3:] == [("call twelve", "y")]


def test_a_long_text_is_read_in_parts(tmp_path: Path) -> None:
    teacher = Teacher()
    text = " ".join(["one"] * 11 + ["end."] + ["two"] * 18)
    samples = read_line(text, "x", teacher)  # type: ignore[arg-type]
    assert [len(said.split()) for said, _ in teacher.asked] == [30, 12, 18]
    assert len(samples) == 3 * SAMPLE_RATE + SAMPLE_RATE // 4
    with pytest.raises(EngineError, match="cannot read"):
        read_line("just this", "nobody", teacher)  # type: ignore[arg-type]


def test_figures_are_read_as_they_should_be_spoken() -> None:
    plain = Line(id="a", text="Well - it's so!", spoken="well it's so")
    assert readable(plain) == "Well   it's so!"
    assert readable(Line(id="b", text="In 1984.", spoken="in nineteen eighty four")) == (
        "in nineteen eighty four"
    )


def test_mistakes_are_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_test_set.main(["plain", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "scripts/fetch_teacher" in capsys.readouterr().err
    assert read_test_set.main(["nothing", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "there is no test set 'nothing'" in capsys.readouterr().err
