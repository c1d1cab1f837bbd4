from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenlm.audio.io import save_audio
from training.data.manifest import ManifestError
from training.evaluation.conditions import (
    length_prompts,
    prompt_length_figures,
    prompt_length_suite,
    write_prompt_lengths,
)
from training.evaluation.prompts import join_up_to, read_prompt, transpose
from training.evaluation.sets import RecordingSet, read_recording_set
from training.evaluation.statistics import mean_figure
from training.evaluation.suite import score, speak

LENGTHS = (0.5, 1.0)


@pytest.fixture
def test_set(heldout: Path) -> RecordingSet:
    # Three recordings of 0.40, 0.48 and 0.56 s for each voice: one is the prompt, one is asked for.
    return read_recording_set("heldout", heldout, num_items=3, num_voices=3, prompt_seconds=0.4)


def test_the_prompt_comes_first_and_what_is_asked_for_never(test_set: RecordingSet) -> None:
    prompts = length_prompts(test_set, LENGTHS, 16_000)
    assert list(prompts) == ["0.5s", "1s"]
    for speaker in ("ann", "bob", "cyd"):
        short, long = prompts["0.5s"][speaker], prompts["1s"][speaker]
        assert (len(short.waveform), len(long.waveform)) == (8000, 16_000)
        assert torch.equal(short.waveform, long.waveform[:8000])
        assert short.text is None and short.name != long.name
        first, other = test_set.prompts[speaker], f"{speaker}-2"
        assert other not in {item.original.id for item in test_set.items}
        # 0.40 s of the prompt, a pause of 0.25 s, and the start of the other recording.
        assert torch.equal(long.waveform[:6400], read_prompt(first).waveform)
        assert long.waveform[6400:10_400].abs().max() == 0
        assert long.waveform[10_400:].abs().max() > 0.1


def test_too_few_recordings_are_told_with_the_voice(test_set: RecordingSet) -> None:
    with pytest.raises(ManifestError, match=r"a prompt of 8 s .* 'ann' hold less"):
        length_prompts(test_set, (1.0, 8.0), 16_000)


def test_longer_prompts_are_compared_sentence_by_sentence(test_set: RecordingSet, parrot) -> None:
    speaker = parrot(lambda prompt: 2 if len(prompt.waveform) == 8000 else 1)
    suite = prompt_length_suite(test_set, LENGTHS, 16_000, 0)
    rows = [one.row for one in score(suite, speak(speaker, suite), speaker.judges())]
    found = {figure.key: figure for figure in prompt_length_figures(rows)}
    words = sum(row["words"] for row in rows[:3])
    assert found["heldout/prompt_lengths/0.5s_word_error_rate"].value == pytest.approx(6 / words)
    assert found["heldout/prompt_lengths/1s_word_error_rate"].value == pytest.approx(3 / words)
    ratio = found["heldout/prompt_lengths/0.5s_word_errors_over_1s"]
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 2.0, 2.0)
    assert "heldout/prompt_lengths/1s_word_errors_over_1s" not in found
    assert found["heldout/prompt_lengths/1s_speaker_similarity"].value == pytest.approx(1.0)
    assert found["heldout/prompt_lengths/0.5s_speaker_similarity"].value > 0.9
    assert [(row["condition"], row["item"]) for row in rows] == [
        ("0.5s", 0), ("0.5s", 1), ("0.5s", 2), ("1s", 0), ("1s", 1), ("1s", 2),
    ]  # fmt: skip
    # Paired: the same texts with the same seeds.
    said = [(request.text, request.seed) for request in speaker.said]
    assert said[:3] == said[3:]


def test_a_table_and_a_plot_are_written(tmp_path: Path) -> None:
    def figure(name: str, values: list[float]):
        return mean_figure("prompt_lengths", "heldout", name, values)

    figures = [
        figure("1s_word_error_rate", [0.2, 0.4]),
        figure("1s_speaker_similarity", [0.5, 0.5]),
        figure("1s_word_errors_over_8s", [3.0, 3.0]),
        figure("8s_word_error_rate", [0.1, 0.1]),
        figure("8s_speaker_similarity", [0.9, 0.9]),
    ]
    paths = write_prompt_lengths(tmp_path / "out", figures)
    assert [path.name for path in paths] == ["prompt_lengths.md", "prompt_lengths.png"]
    lines = paths[0].read_text().splitlines()
    assert lines[0].startswith("| prompt | word errors | 95 % | over 8s |")
    assert lines[2:] == [
        "| 1 s | 30.0 % | 20.0 to 40.0 | 3.000 | 3.000 to 3.000 | 0.500 | 0.500 to 0.500 |",
        "| 8 s | 10.0 % | 10.0 to 10.0 | 1 |  | 0.900 | 0.900 to 0.900 |",
    ]
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    other = mean_figure("cloned", "heldout", "word_error_rate", [0.1])
    assert write_prompt_lengths(tmp_path / "none", [other]) == []
    assert not (tmp_path / "none").exists()


def test_a_prompt_is_read_at_its_own_rate_and_moved(tmp_path: Path, heldout: Path) -> None:
    rows = read_recording_set("heldout", heldout, num_items=3, num_voices=3, prompt_seconds=0.4)
    row = rows.prompts["ann"]
    save_audio(row.audio, torch.zeros(2205), 22_050)
    prompt = read_prompt(row)
    assert (prompt.sample_rate, len(prompt.waveform)) == (22_050, 2205)
    moved = transpose(prompt, 1.1)
    assert len(moved.waveform) == pytest.approx(2205 / 1.1, abs=1.0)
    assert moved.sample_rate == 22_050 and moved.name != prompt.name


def test_joining_needs_enough(heldout: Path) -> None:
    test_set = read_recording_set("heldout", heldout, num_items=3, num_voices=3, prompt_seconds=0.4)
    own = [row for row in test_set.recordings if row.speaker == "bob"]
    assert len(join_up_to(own, 1.5, 16_000).waveform) == 24_000
    with pytest.raises(ManifestError, match="'bob' hold less"):
        join_up_to(own, 2.5, 16_000)
