"""The snapshot of a set: made once, of the best reading, for one text."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from script_module import load_script

from training.evaluation.sets import TextSet, TextSetError, read_text_set
from training.evaluation.snapshot import Reading, read_snapshot, snapshot_path, write_snapshot
from training.recipes.corpus.engines import EngineError, Request, Speech

SCRIPT = load_script("snapshot_test_set")
make_snapshot = SCRIPT.make_snapshot


@pytest.fixture
def texts(tmp_path: Path) -> TextSet:
    path = tmp_path / "mine.jsonl"
    rows = [
        {"id": "a", "text": "One two three four, five!"},
        {"id": "b", "text": "He is 5 years old.", "spoken": "he is five years old"},
        {"id": "c", "text": "Six seven."},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_text_set(path)


def done(text: str) -> Future[str]:
    future: Future[str] = Future()
    future.set_result(text)
    return future


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Two engines whose speech is as many samples as there are characters."""
    asked: list[tuple[str, str]] = []

    def speak(engine: str, requests: list[Request]) -> list[Speech | EngineError]:
        asked.append((engine, requests[0].text))
        count = len(requests[0].text) + (100 if engine == "two" else 0)
        return [Speech(waveform=np.ones(count, np.float32), sample_rate=16_000)]

    monkeypatch.setattr(SCRIPT, "speak", speak)
    monkeypatch.setattr(SCRIPT, "check_voice", lambda engine, voice: None)
    return asked


def test_the_best_reading_counts(texts: TextSet, engines: list[tuple[str, str]]) -> None:
    heard = {
        25: "one two three four nine",  # 1 of 5 words: kept, and not asked of another engine
        20: "he is",
        120: "he has five years old",  # 1 of 5 words: kept
        10: "sick",  # 2 of 2 words
        110: "six eleven",  # 1 of 2 words: left out
    }
    found = make_snapshot(
        texts,
        lambda samples: done(heard[len(samples)]),
        "judge 1",
        engines=[("one", "v"), ("two", "w")],
    )
    assert {name: (row.voice, row.errors, row.words) for name, row in found.readings.items()} == {
        "a": ("one v", 1, 5),
        "b": ("two w", 1, 5),
        "c": ("two w", 1, 2),
    }
    assert found.excluded == {"c"} and found.num_remaining == 2
    # Marks help an engine; figures are given to it in words.
    assert engines == [
        ("one", "One two three four, five!"),
        ("one", "he is five years old"),
        ("one", "Six seven."),
        ("two", "he is five years old"),
        ("two", "Six seven."),
    ]


def test_a_list_is_written_once_and_read_back(
    texts: TextSet, engines: list[tuple[str, str]]
) -> None:
    assert read_snapshot(texts) is None
    found = make_snapshot(texts, lambda samples: done("x"), "judge 1", engines=[("one", "v")])
    path = write_snapshot(texts, found)
    assert path == snapshot_path(texts) == texts.path.with_name("mine.frozen.json")
    assert read_snapshot(texts) == found
    assert json.loads(path.read_text())["excluded"] == ["a", "b", "c"]
    with pytest.raises(TextSetError, match="has a snapshot already"):
        write_snapshot(texts, found)


def test_changed_texts_void_the_list(texts: TextSet, engines: list[tuple[str, str]]) -> None:
    write_snapshot(
        texts, make_snapshot(texts, lambda samples: done("x"), "j", engines=[("one", "v")])
    )
    texts.path.write_text(texts.path.read_text().replace("Six", "Sixty"))
    with pytest.raises(TextSetError, match="was made of other texts"):
        read_snapshot(read_text_set(texts.path))
    snapshot_path(texts).write_text("{}")
    with pytest.raises(TextSetError, match="is not the snapshot"):
        read_snapshot(texts)


def test_an_engine_that_refuses_is_told(texts: TextSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCRIPT, "check_voice", lambda engine, voice: None)
    monkeypatch.setattr(SCRIPT, "speak", lambda engine, requests: [EngineError("no voice")])
    with pytest.raises(EngineError, match="no voice"):
        make_snapshot(texts, lambda samples: done("x"), "j", engines=[("one", "v")])


def test_the_threshold() -> None:
    reading = Reading(voice="v", heard="", errors=1, words=5, seconds=1.0)
    assert not reading.is_excluded  # 0.2 is not above 0.2
    assert Reading(voice="v", heard="", errors=2, words=9, seconds=1.0).is_excluded


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_a_real_engine_reads(texts: TextSet) -> None:
    found = make_snapshot(texts, lambda samples: done("six seven"), "j", engines=[("flite", "rms")])
    assert found.readings["c"].errors == 0 and 0.5 < found.readings["c"].seconds < 2.5
