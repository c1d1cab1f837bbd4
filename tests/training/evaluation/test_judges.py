from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from tokenlm.installation import install_command
from training.evaluation import judges
from training.evaluation.judges import JudgeError, WordJudge, require


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("jiwer", install_command("eval")),
        ("pocketsphinx", install_command("eval")),
        ("resemblyzer", "pip install --no-deps resemblyzer"),
    ],
)
def test_a_missing_judge_is_one_sentence_with_the_command(
    monkeypatch: pytest.MonkeyPatch, package: str, command: str
) -> None:
    monkeypatch.setattr(judges, "find_spec", lambda name: None)
    with pytest.raises(JudgeError) as caught:
        require(package)
    assert package in str(caught.value) and str(caught.value).endswith(command)
    assert "\n" not in str(caught.value)


def test_the_judge_of_words_asks_for_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "find_spec", lambda name: None)
    with pytest.raises(JudgeError, match="pocketsphinx"):
        WordJudge()


def test_the_judge_hears_16_bit_samples() -> None:
    heard = []

    def transcribe(pcm: bytes) -> str:
        heard.append(np.frombuffer(pcm, dtype="<i2").tolist())
        return "words"

    with WordJudge(transcribe=transcribe) as judge:
        assert judge.submit(np.array([0.0, 0.5, -2.0])).result() == "words"
    assert heard == [[0, 16383, -32767]]


class FakePool:
    """Counts what is heard; does it at once."""

    def __init__(self) -> None:
        self.heard = 0

    def submit(self, function: object, pcm: bytes) -> Future[str]:
        self.heard += 1
        future: Future[str] = Future()
        future.set_result(f"{len(pcm)} bytes")
        return future

    def shutdown(self, cancel_futures: bool) -> None: ...


def test_nothing_is_heard_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "find_spec", lambda name: object())
    memory = tmp_path / "new" / "transcripts.jsonl"
    pool = FakePool()
    for _ in range(2):
        judge = WordJudge(memory=memory)
        monkeypatch.setattr(judge, "_open_pool", lambda: pool)
        assert judge.submit(np.zeros(3)).result() == "6 bytes"
        assert judge.submit(np.ones(3)).result() == "6 bytes"
    assert pool.heard == 2
    assert len(memory.read_text().splitlines()) == 2


def test_a_line_of_the_memory_that_was_cut_off_is_heard_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "find_spec", lambda name: object())
    memory = tmp_path / "transcripts.jsonl"
    memory.write_text(json.dumps({"key": "k", "heard": "yes"}) + '\n{"key": "half', "utf-8")
    judge = WordJudge(memory=memory)
    assert judge._cache == {"k": "yes"}
    pool = FakePool()
    monkeypatch.setattr(judge, "_open_pool", lambda: pool)
    judge.submit(np.zeros(5)).result()
    again = WordJudge(memory=memory)
    assert len(again._cache) == 2
