from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from script_module import load_script

from tokenlm.audio.io import load_audio, save_audio
from training.data.manifest import ManifestError, Utterance, validate, write_manifest
from training.evaluation.conditions import read_recordings, recording_figures, recording_suite
from training.evaluation.sets import read_recording_set
from training.evaluation.suite import score, speak

ALSA = load_script("alsa_recordings")


def write_recordings(folder: Path, seconds: list[float]) -> Path:
    rows = []
    for number, length in enumerate(seconds):
        # Named as a held-out recording, to be told apart from it all the same.
        path = folder / f"ann-{number}.wav"
        times = torch.arange(int(16_000 * length)) / 16_000
        save_audio(path, 0.2 * torch.sin(2 * torch.pi * (300 + 250 * number) * times), 16_000)
        rows.append(
            Utterance(id=path.stem, audio=path, text="Hello.", speaker="me", duration=length)
        )
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_recordings(tmp_path, [1.0, 1.5, 2.0, 2.5])


def test_recordings_are_read_evenly_from_a_folder_or_manifest(folder: Path) -> None:
    assert [row.id for row in read_recordings(folder, 9)] == [f"ann-{n}" for n in range(4)]
    found = read_recordings(folder / "manifest.jsonl", 2)
    assert [row.id for row in found] == ["ann-0", "ann-2"]


@pytest.mark.parametrize("seconds", [0.9, 10.2])
def test_a_recording_must_have_one_to_ten_seconds(tmp_path: Path, seconds: float) -> None:
    write_recordings(tmp_path, [2.0, seconds])
    with pytest.raises(ManifestError, match=rf"'ann-1' has {seconds:.2f} s; prompts have 1 to 10"):
        read_recordings(tmp_path, 8)


def test_what_is_no_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="has no manifest.jsonl: one line for each"):
        read_recordings(tmp_path, 8)
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(ManifestError, match="has no rows"):
        read_recordings(tmp_path, 8)
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"id": "a", "audio": "a.wav"}) + "\n")
    with pytest.raises(ManifestError, match="missing key 'text'"):
        read_recordings(tmp_path, 8)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_recordings(tmp_path / "nothing.jsonl", 8)


def test_each_recording_says_sentences_of_its_own(heldout: Path, folder: Path, parrot) -> None:
    test_set = read_recording_set("heldout", heldout, num_items=6, num_voices=3, prompt_seconds=0.4)
    recordings = read_recordings(folder, 4)
    # One recording loses two words of each sentence, the others none.
    speaker = parrot(lambda prompt: 2 if len(prompt.waveform) == 24_000 else 0)
    suite = recording_suite(test_set, recordings, 2, 0)
    rows = [one.row for one in score(suite, speak(speaker, suite), speaker.judges())]
    assert [row["prompt"] for row in rows] == [f"ann-{n}" for n in (0, 0, 1, 1, 2, 2, 3, 3)]
    texts = [item.original.text for item in test_set.items]
    assert [row["text"] for row in rows] == [*texts, *texts[:2]]
    assert [row["errors"] for row in rows] == [0, 0, 2, 2, 0, 0, 0, 0]
    found = {figure.key: figure for figure in recording_figures(rows)}
    rate = found["heldout/recordings/word_error_rate"]
    words = sum(row["words"] for row in rows)
    assert rate.value == pytest.approx(4 / words) and f"4 of {words} words wrong" in rate.note
    assert found["heldout/recordings/speaker_similarity"].value == pytest.approx(1.0, abs=1e-3)
    assert {row["section"] for row in rows} == {"recordings"}
    assert [request.id for request in speaker.said] == list(range(8))
    assert len({request.seed for request in speaker.said}) == 8


@pytest.fixture
def alsa(tmp_path: Path) -> Path:
    for number, words in enumerate(ALSA.WORDS):
        times = torch.arange(int(48_000 * 1.2)) / 48_000
        tone = 0.2 * torch.sin(2 * torch.pi * (200 + 100 * number) * times)
        silence = torch.zeros(9600)
        path = tmp_path / "alsa" / f"{words.replace(' ', '_')}.wav"
        save_audio(path, torch.cat([silence, tone, silence]), 48_000)
    return tmp_path / "alsa"


def test_prompts_of_alsa_utils_can_be_used(
    alsa: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "prompts"
    assert ALSA.main([str(output), "--source", str(alsa)]) == 0
    assert "Front left." in capsys.readouterr().out
    manifest = validate(output / "manifest.jsonl")
    assert not manifest.bad_rows
    rows = read_recordings(output, 8)
    assert len(rows) == 8 and rows[2].text == "Front right. Side right."
    assert all(1.0 <= row.duration <= 10.0 for row in rows)
    # Two words with their silence cut off to 80 ms, and a pause.
    assert rows[2].duration == pytest.approx(2 * 1.36 + 0.25, abs=0.05)
    power = torch.fft.rfft(load_audio(rows[2].audio, 16_000)).abs()
    hertz = torch.arange(len(power)) / rows[2].duration
    strong = [float(power[(hertz > f - 20) & (hertz < f + 20)].max()) for f in (400, 500, 600)]
    assert strong[0] > 10 * strong[2] and strong[1] > 10 * strong[2]


def test_a_missing_package_is_told_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ALSA.main([str(tmp_path / "out"), "--source", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "no such recording" in message and "alsa-utils" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not ALSA.SOURCE.is_dir(), reason="alsa-utils is not installed")
def test_the_recordings_of_the_package_give_prompts_of_one_to_ten_seconds(tmp_path: Path) -> None:
    assert (
        len(ALSA.make_recordings(ALSA.SOURCE, tmp_path)) == len(read_recordings(tmp_path, 8)) == 8
    )
