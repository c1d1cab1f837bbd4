"""From a folder to a manifest; resumed, reported, and proved on known damage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from toy_sounds import RATE, embed, quiet, tone

from tokenlm.audio.io import load_audio, save_audio
from training.data.manifest import Utterance, read_manifest
from training.refine import steps
from training.refine.config import RefineConfig
from training.refine.damage import KINDS, damage_kinds, precision_and_recall
from training.refine.proof import damage_corpus, draw_rows, prove
from training.refine.report import write_report

CONFIG = RefineConfig(min_bandwidth_hz=100.0, detector="level")
WORDS = "alpha bravo delta echo foxtrot golf hotel india kilo lima mike november oscar papa".split()


def speech(index: int) -> torch.Tensor:
    pitch = 300.0 if index % 2 else 2500.0
    return torch.cat([quiet(0.3), tone(2.0 + 0.06 * (index % 11), pitch), quiet(0.3)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "raw"
    save_audio(source / "ann" / "short.wav", speech(1), RATE)
    (source / "ann" / "short.txt").write_text("Yes, of course.")
    save_audio(source / "long.wav", torch.cat([speech(0), quiet(1.0), speech(2)]), RATE)
    (source / "broken.wav").write_bytes(b"RIFF")
    return source


def test_a_folder_becomes_a_manifest_and_goes_on_where_it_was(folder: Path) -> None:
    work, output = folder.parent / "out.work", folder.parent / "out.jsonl"
    calls: list[int] = []

    def recognise(waveform: torch.Tensor) -> str:
        calls.append(waveform.shape[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return "yes of course"

    recordings = steps.find_recordings(folder)
    assert [(r.id, r.speaker, r.text) for r in recordings] == [
        ("ann/short", "ann", "Yes, of course."),
        ("broken", "unknown", ""),
        ("long", "unknown", ""),
    ]
    clips, unreadable = steps.segment_step(recordings, work, CONFIG)
    assert [clip.id for clip in clips] == ["ann/short", "long-0000", "long-0001"]
    assert list(unreadable) == ["broken"] and "broken.wav" in unreadable["broken"]
    with pytest.raises(KeyboardInterrupt):
        steps.transcribe_step(clips, work, {"it": recognise})
    with (work / "transcribe.it.jsonl").open("a") as file:
        file.write('{"id": "long-00')  # torn by a kill
    heard = steps.transcribe_step(clips, work, {"it": recognise})
    assert len(calls) == 4, "what was heard before is not heard again"
    measures = steps.measure_step(clips, work, heard)
    assert measures["ann/short"].disagreement == 0.0
    assert measures["long-0000"].disagreement is None, "one opinion is none"
    decisions = steps.decide(clips, measures, CONFIG)
    assert steps.write_outcome(decisions, work, output) == 3
    rows = read_manifest(output, strict=True).utterances
    assert [(row.id, row.text) for row in rows][:2] == [
        ("ann/short", "Yes, of course."),
        ("long-0000", "yes of course"),
    ]
    assert all(row.audio.is_file() for row in rows)
    with pytest.raises(ValueError, match="other settings of detector, pause_seconds"):
        steps.segment_step(recordings, work, RefineConfig(pause_seconds=0.2, detector="level"))
    with pytest.raises(ValueError, match="no recording"):
        steps.find_recordings(work / "clips" / "ann" / "nothing")


def test_the_text_of_a_long_recording_is_parted_among_its_clips(tmp_path: Path) -> None:
    said = ["We came at 5.", "Nobody was there, not even the dog.", "So we left again."]
    pieces = [part for index in range(3) for part in (speech(index), quiet(1.0))]
    save_audio(tmp_path / "raw" / "long.wav", torch.cat(pieces), RATE)
    (tmp_path / "raw" / "long.txt").write_text(" ".join(said))
    config = replace(CONFIG, max_seconds=4.0)
    recordings = steps.find_recordings(tmp_path / "raw")
    clips, _ = steps.segment_step(recordings, tmp_path / "work", config)
    assert [(clip.text, clip.source) for clip in clips] == [("", "long")] * 3
    spelled = ["we cam at fife", "nobody wasthere not efen the dog", "so we leftagen"]
    heard = {clip.id: {"it": text} for clip, text in zip(clips, spelled, strict=True)}
    assert steps.align_step(recordings, clips, {}) == clips, "nobody heard where the parts are"
    parted = steps.align_step(recordings, clips, heard)
    assert [clip.text for clip in parted] == said
    measures = steps.measure_step(parted, tmp_path / "work", heard)
    agreed = [measures[clip.id].letter_disagreement for clip in parted]
    assert all(found is not None and 0 < found < 0.3 for found in agreed)


def test_the_report_names_filters_and_plays_examples(folder: Path) -> None:
    work = folder.parent / "out.work"
    clips, unreadable = steps.segment_step(steps.find_recordings(folder), work, CONFIG)
    heard = {clip.id: {"it": "something else <b>"} for clip in clips}
    measures = steps.measure_step(clips, work, heard)
    decisions = steps.decide(clips, measures, CONFIG)
    assert [made.dropped_by for made in decisions][0] == "agreement"
    write_report(folder.parent / "out.html", decisions, unreadable)
    text = (folder.parent / "out.html").read_text()
    assert "<h3>agreement</h3>" in text and "out.work/clips/ann/short.flac" in text
    assert "data:image/png;base64," in text and "broken.wav" in text
    steps.write_outcome(decisions, work, folder.parent / "out.jsonl")
    dropped = [json.loads(line) for line in (work / "dropped.jsonl").read_text().splitlines()]
    assert dropped[0]["filter"] == "agreement" and "of the words" in dropped[0]["reason"]


def test_embeddings_are_kept(folder: Path) -> None:
    work = folder.parent / "out.work"
    clips, _ = steps.segment_step(steps.find_recordings(folder), work, CONFIG)
    first = steps.embed_step(clips, work, embed)

    def never(waveform: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it has been embedded before")

    again = steps.embed_step(clips, work, never)
    for clip, one, two in zip(clips, first, again, strict=True):
        torch.testing.assert_close(one, embed(load_audio(clip.audio, steps.RATE)))
        assert torch.equal(one, two)


def test_damage_is_of_every_kind_and_kept_apart() -> None:
    kinds = damage_kinds(120, 0.2, 3)
    assert sum(bool(kind) for kind in kinds) == 24
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 4)
    assert kinds == damage_kinds(120, 0.2, 3) != damage_kinds(120, 0.2, 4)


def test_draws_share_no_clip() -> None:
    rows = [
        Utterance(id=str(i), audio=Path("a.wav"), text="a", speaker="s", duration=1.0)
        for i in range(20)
    ]
    first, second = draw_rows(rows, 0, 8), draw_rows(rows, 8, 0)
    assert len(first) == 8 and len(second) == 12
    assert {row.id for row in first + second} == {row.id for row in rows}
    assert [row.id for row in first] != [row.id for row in rows[:8]], "from all over the corpus"
    with pytest.raises(ValueError, match="none is left"):
        draw_rows(rows, 20, 5)


def test_precision_and_recall_by_hand() -> None:
    kinds = ["noise", "noise", "wrong_text", "wrong_text", "", "", "", ""]
    dropped = [True, False, True, True, True, True, False, False]
    table = precision_and_recall(kinds, dropped)
    # Two clips were dropped wrongly; each kind has half of the damage and answers for one.
    assert table == {"noise": (1 / 2, 1 / 2), "wrong_text": (2 / 3, 1.0)}


def test_all_damage_is_found_with_a_recogniser_that_hears(tmp_path: Path) -> None:
    rows, truth = [], {}
    for index in range(60):
        path = tmp_path / "clean" / f"{index}.wav"
        save_audio(path, speech(index), RATE)
        words = [WORDS[(index * 5 + k * (1 + index % 3)) % len(WORDS)] for k in range(6)]
        truth[f"c{index}"] = " ".join(words)
        rows.append(
            Utterance(
                id=f"c{index}", audio=path, text=truth[f"c{index}"],
                speaker=f"s{index % 2}", duration=2.0,
            )
        )  # fmt: skip
    heard = iter(list(truth.values()))
    table, without_tails = prove(
        rows, tmp_path / "proof", replace(CONFIG, longest_share=0.0),
        {"oracle": lambda waveform: next(heard)}, embed,
    )  # fmt: skip
    assert set(table) == set(KINDS)
    assert table == without_tails, "the config turns the tails off: there is nothing to leave out"
    clean = read_manifest(tmp_path / "proof" / "clean.jsonl", strict=True).utterances
    assert [(row.id, row.text) for row in clean] == list(truth.items())
    for kind, (precision, recall) in table.items():
        assert recall == 1.0 and precision >= 0.9, (kind, precision, recall)
    labels = (tmp_path / "proof" / "labels.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["damage"] != "" for line in labels) == 12
    with pytest.raises(ValueError, match="one speaker"):
        damage_corpus(rows[::2], tmp_path / "x", 0.2, 0)


def test_texts_of_other_languages_are_compared_as_they_are(folder: Path) -> None:
    recordings = [replace(steps.find_recordings(folder)[0], text="Да, в 5 часов.")]
    work = folder.parent / "out.work"
    clips, _ = steps.segment_step(recordings, work, CONFIG)

    def disagreement(heard: str, normalizer: Literal["english", "none"]) -> float | None:
        told = {clips[0].id: {"it": heard}}
        measures = steps.measure_step(clips, work, told, normalizer=normalizer)
        return measures[clips[0].id].disagreement

    assert disagreement("да в 5 часов", "none") == 0.0
    assert disagreement("нет в 5 часов", "none") == 0.25
    assert disagreement("нет в 5 часов", "english") == 0.0, "nothing but the figure is English"
