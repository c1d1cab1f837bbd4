from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch

from training.evaluation.cloning import speaker_prompts
from training.evaluation.error_rate import ErrorCount, errors_by_part
from training.evaluation.long_text import (
    cut_in_pauses,
    long_sentences,
    long_text_figures,
    long_text_suite,
    score_long_texts,
)
from training.evaluation.prompts import Prompt
from training.evaluation.sets import RecordingSet, read_recording_set
from training.evaluation.statistics import Figure
from training.evaluation.suite import Judges, Row, speak


@pytest.fixture
def test_set(heldout: Path) -> RecordingSet:
    return read_recording_set("heldout", heldout, num_items=6, num_voices=3, prompt_seconds=0.4)


def tone(hertz: float, seconds: float) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(int(16_000 * seconds)) / 16_000)


def measure(
    recordings: RecordingSet, num_texts: int, system, judges: Judges
) -> tuple[list[Figure], list[Row]]:
    suite = long_text_suite(recordings, speaker_prompts(recordings), num_texts, 20.0, 0)
    rows = score_long_texts(suite, speak(system, suite), judges)
    return long_text_figures(rows), rows


def test_what_drifts_is_told_from_what_holds(test_set: RecordingSet, parrot) -> None:
    class Drifting(parrot):
        def say(self, prompt: Prompt) -> torch.Tensor:
            own = {"ann": 200.0, "bob": 400.0, "cyd": 800.0}[prompt.name[:3]]
            # The second voice ends as another one.
            end = 1200.0 if prompt.name.startswith("bob") else own
            return torch.cat([tone(own, 12.0), tone(end, 11.0)])

    speaker = Drifting()
    judges = speaker.judges()
    pieces: list[int] = []
    submit = judges.submit

    def counted(samples: np.ndarray):
        pieces.append(len(samples))
        return submit(samples)

    judges.submit = counted
    figures, rows = measure(test_set, 3, speaker, judges)
    found = {figure.name: figure for figure in figures}
    assert [row["similarity_end_to_start"] for row in rows] == pytest.approx([1, 0, 1], abs=0.02)
    assert [row["similarity_change"] for row in rows] == pytest.approx([0, 0.95, 0], abs=0.06)
    assert found["similarity_change"].value == pytest.approx(0.95 / 3, abs=0.02)
    assert "2 of 3 voices within 0.05" in found["similarity_change"].note
    assert found["similarity_start"].value > 0.9
    assert found["similarity_end"].value == pytest.approx(0.92 * 2 / 3, abs=0.03)
    # Two pieces of each, whose texts are put together before the errors are counted.
    assert len(pieces) == 6 and max(pieces) <= 20 * 16_000
    assert sum(pieces) == 3 * 23 * 16_000
    assert rows[0]["errors"] == rows[0]["words"] == sum(rows[0]["sentence_words"])


def test_words_are_counted_by_sentence(test_set: RecordingSet, parrot) -> None:
    speaker = parrot(lambda prompt: 2)
    figures, rows = measure(test_set, 1, speaker, speaker.judges())
    assert rows[0]["errors"] == 2 and rows[0]["sentence_errors"][:2] == [2, 0]
    rate = next(figure for figure in figures if figure.name == "word_error_rate")
    assert rate.value == pytest.approx(2 / rows[0]["words"])
    assert rate.num_items == len(rows[0]["sentence_errors"]) > 20
    assert rate.low is not None and rate.low < rate.value < (rate.high or 0)


def test_the_text_is_long_enough_and_none_of_the_prompts(test_set: RecordingSet) -> None:
    prompts = {row.text for row in test_set.prompts.values()}
    for number in range(3):
        rows = long_sentences(test_set, 20.0, number)
        total = sum(row.duration for row in rows)
        assert 20.0 <= total < 20.6
        assert not prompts & {row.text for row in rows}
    first, second = (long_sentences(test_set, 1.0, number) for number in range(2))
    assert [row.id for row in first] == ["ann-1", "ann-2"]
    assert [row.id for row in second] == ["bob-1", "bob-2"]


def test_a_recording_is_cut_in_its_pauses() -> None:
    silence = torch.zeros(8000)
    waveform = torch.cat([tone(200, 1.5), silence, tone(200, 1.5), silence, tone(200, 1.0)])
    pieces = list(cut_in_pauses(waveform, 16_000, 2.0))
    assert torch.equal(torch.cat(pieces), waveform)
    assert all(len(piece) <= 32_000 for piece in pieces)
    for piece in pieces[:-1]:
        assert piece[-100:].abs().max() == 0
    assert len(list(cut_in_pauses(torch.zeros(0), 16_000))) == 1


@pytest.mark.parametrize(
    ("heard", "errors"),
    [
        ("the cat sat it was red", [0, 0]),
        ("the cat it was red", [1, 0]),
        ("the cat sat oh it was red", [0, 1]),
        ("the cat sat it was red oh no", [0, 2]),
        ("the cut sat at was red", [1, 1]),
        ("", [3, 3]),
    ],
)
def test_errors_belong_to_the_part_they_are_in(heard: str, errors: list[int]) -> None:
    found = errors_by_part(["The cat sat.", "It was red!"], heard)
    assert found == [ErrorCount(count, 3) for count in errors]


def test_a_part_must_have_words() -> None:
    with pytest.raises(ValueError, match="holds no words"):
        errors_by_part(["Yes.", "…"], "yes")


def test_rate_and_level_of_the_end_stand_beside_the_start(test_set: RecordingSet, parrot) -> None:
    class Fading(parrot):
        def say(self, prompt: Prompt) -> torch.Tensor:
            return torch.cat([tone(200.0, 12.0), 0.5 * tone(200.0, 12.0)])

    speaker = Fading()
    heard = iter(["red cat " * 30, "red cat " * 3])
    judges = Judges(lambda samples: _done(next(heard)), speaker.judges().embed)
    suite = long_text_suite(test_set, speaker_prompts(test_set), 1, 20.0, 0)
    [row] = score_long_texts(suite, speak(speaker, suite), judges, edge_seconds=4.0)
    assert row["level_change_db"] == pytest.approx(6.02, abs=0.05)
    assert row["rate_change"] == pytest.approx(0.52, abs=0.02) and row["edge_seconds"] == 4.0
    found = {figure.name: figure for figure in long_text_figures([row])}
    assert found["level_change_db"].value == row["level_change_db"]
    assert "last and first 4 s" in found["rate_change"].note
    # Of silence there is neither level nor rate.
    quiet = {**row, "rate_change": None, "level_change_db": None}
    names = {figure.name for figure in long_text_figures([quiet])}
    assert not {"rate_change", "level_change_db"} & names


def _done(text: str) -> Future[str]:
    future: Future[str] = Future()
    future.set_result(text)
    return future
