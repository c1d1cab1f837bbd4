"""From a folder to a manifest; resumed, reported, and proved on known damage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from phone_recordings import CONTAINERS, write_by_ffmpeg
from script_module import load_script
from toy_sounds import RATE, embed, quiet, tone

from tokenlm.audio.io import load_audio, save_audio
from tokenlm.audio.resample import resample
from training.data.importers import sound_seconds
from training.data.manifest import Utterance, audio_problem, read_manifest
from training.data.rejects import Rejects, TooManyRejects
from training.refine import steps
from training.refine.config import RefineConfig
from training.refine.recordings import find_recordings
from training.refine.report import write_report

PROOF = load_script("prove_refinement")
KINDS, damage_kinds, precision_and_recall = (
    PROOF.KINDS, PROOF.damage_kinds, PROOF.precision_and_recall,
)  # fmt: skip
damage_corpus, draw_rows, prove = PROOF.damage_corpus, PROOF.draw_rows, PROOF.prove

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

    recordings, bad = find_recordings(folder)
    assert bad == []
    assert [(r.id, r.speaker, r.text) for r in recordings] == [
        ("ann/short", "ann", "Yes, of course."),
        ("broken", "unknown", ""),
        ("long", "unknown", ""),
    ]
    rejects = Rejects(None, 0.5)
    clips = steps.segment_step(recordings, work, CONFIG, rejects)
    assert [clip.id for clip in clips] == ["ann/short", "long-0000", "long-0001"]
    assert [bad.file for bad in rejects.found] == [str(folder / "broken.wav")]
    assert (rejects.num_seen, rejects.num_bad) == (3, 1)
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
        steps.segment_step(recordings, work, replace(CONFIG, pause_seconds=0.2), rejects)
    with pytest.raises(ValueError, match="no recording"):
        find_recordings(work / "clips" / "ann" / "nothing")


def test_memos_of_phones_are_recordings(tmp_path: Path) -> None:
    source, rate = tmp_path / "raw", 48_000
    source.mkdir()
    sound = resample(speech(1), RATE, rate)
    for suffix in CONTAINERS:
        write_by_ffmpeg(source / f"{suffix}.{suffix}", sound.numpy()[:, None], rate)
    found, bad = find_recordings(source)
    assert [row.id for row in found] == sorted(CONTAINERS) and not bad
    assert {steps.native_rate(row.audio) for row in found} == {rate}
    rows = [
        Utterance(
            id=row.id,
            audio=row.audio,
            text="So.",
            speaker="ann",
            duration=sound_seconds(row.audio, decode=False),
        )
        for row in found
    ]
    assert [audio_problem(row) for row in rows] == [None] * len(rows)


def test_the_text_of_a_long_recording_is_parted_among_its_clips(tmp_path: Path) -> None:
    said = ["We came at 5.", "Nobody was there, not even the dog.", "So we left again."]
    pieces = [part for index in range(3) for part in (speech(index), quiet(1.0))]
    save_audio(tmp_path / "raw" / "long.wav", torch.cat(pieces), RATE)
    (tmp_path / "raw" / "long.txt").write_text(" ".join(said))
    config = replace(CONFIG, max_seconds=4.0)
    recordings, _ = find_recordings(tmp_path / "raw")
    clips = steps.segment_step(recordings, tmp_path / "work", config, Rejects(None, 0.0))
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
    rejects = Rejects(None, 1.0)
    clips = steps.segment_step(find_recordings(folder)[0], work, CONFIG, rejects)
    heard = {clip.id: {"it": "something else <b>"} for clip in clips}
    measures = steps.measure_step(clips, work, heard)
    decisions = steps.decide(clips, measures, CONFIG)
    assert [made.dropped_by for made in decisions][0] == "agreement"
    write_report(folder.parent / "out.html", decisions, rejects.found)
    text = (folder.parent / "out.html").read_text()
    assert "<h3>agreement</h3>" in text and "out.work/clips/ann/short.flac" in text
    assert "data:image/png;base64," in text and "broken.wav" in text
    steps.write_outcome(decisions, work, folder.parent / "out.jsonl")
    dropped = [json.loads(line) for line in (work / "dropped.jsonl").read_text().splitlines()]
    assert dropped[0]["filter"] == "agreement" and "of the words" in dropped[0]["reason"]


def test_embeddings_are_kept(folder: Path) -> None:
    work = folder.parent / "out.work"
    clips = steps.segment_step(find_recordings(folder)[0], work, CONFIG, Rejects(None, 1.0))
    first = steps.embed_step(clips, work, embed)

    def never(waveform: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it has been embedded before")

    again = steps.embed_step(clips, work, never)
    for clip, one, two in zip(clips, first, again, strict=True):
        torch.testing.assert_close(one, embed(load_audio(clip.audio, steps.RATE)))
        assert torch.equal(one, two)


def test_what_was_mended_is_read_again_and_texts_are_those_of_now(folder: Path) -> None:
    work, rejects = folder.parent / "out.work", Rejects(None, 1.0)
    steps.segment_step(find_recordings(folder)[0], work, CONFIG, rejects)
    save_audio(folder / "broken.wav", speech(3), RATE)
    (folder / "ann" / "short.txt").write_text("No, never.")
    (folder / "silent.wav").write_bytes((folder / "broken.wav").read_bytes())
    save_audio(folder / "silent.wav", torch.zeros(RATE), RATE)
    (folder / "torn.wav").write_bytes((folder / "broken.wav").read_bytes())
    (folder / "torn.txt").write_bytes(b"caf\xe9")
    recordings, bad = find_recordings(folder)
    assert [Path(reject.file).name for reject in bad] == ["torn.txt"]
    config = replace(CONFIG, detector="silero")
    with pytest.raises(ValueError, match="begun with other settings"):
        steps.segment_step(recordings, work, config, rejects)
    clips = steps.segment_step(recordings, work, CONFIG, rejects)
    assert [clip.id for clip in clips if clip.source == "broken"] == ["broken-0000"]
    assert [clip.text for clip in clips if clip.source == "ann/short"] == ["No, never."]
    with pytest.raises(TooManyRejects, match=r"broken\.wav"):
        (folder / "broken.wav").write_bytes(b"RIFF")
        steps.segment_step(
            find_recordings(folder)[0], folder.parent / "new.work", CONFIG, Rejects(None, 0.1)
        )


def test_clipping_is_seen_through_resampling_and_short_clips_are_told(tmp_path: Path) -> None:
    time = torch.arange(2 * 44_100) / 44_100
    swelling = (0.6 + 0.3 * torch.sin(2 * torch.pi * time)) * torch.sin(600 * torch.pi * time)
    for name, wave in (
        ("loud", (2 * swelling).clamp(-0.9, 0.9)),
        ("fine", swelling),
        ("blip", swelling[:2000]),
    ):
        padded = torch.nn.functional.pad(wave, (10_000, 10_000)) if name != "blip" else wave
        save_audio(tmp_path / "raw" / f"{name}.wav", padded, 44_100)
        (tmp_path / "raw" / f"{name}.txt").write_text(f"This is {name}.")
    recordings, _ = find_recordings(tmp_path / "raw")
    clips = steps.segment_step(recordings, tmp_path / "work", CONFIG, Rejects(None, 0.0))
    measures = steps.measure_step(clips, tmp_path / "work", {})
    made = {made.clip.id: made for made in steps.decide(clips, measures, CONFIG)}
    assert made["loud"].dropped_by == "clipping" and measures["loud"].clipped_share > 0.1
    assert made["fine"].dropped_by == "" and measures["fine"].clipped_share < 0.001
    assert made["blip"].dropped_by == "duration", "nothing is lost without a word"


def test_rows_of_a_manifest_keep_their_line_their_keys_and_their_place(tmp_path: Path) -> None:
    save_audio(tmp_path / "a.wav", speech(1), RATE)
    place = tmp_path / "elsewhere" / "a"
    rows = [
        {"id": str(place), "audio": "a.wav", "text": "Yes.", "speaker": "ann", "duration": 2.6},
        {"id": "../b", "audio": "b.wav", "text": "No.", "speaker": "ann", "duration": 2.6},
    ]
    lines = [json.dumps({**row, "language": "en"}) for row in rows]
    source = tmp_path / "raw.jsonl"
    source.write_text("\n".join([lines[0], "{", lines[1]]) + "\n")
    recordings, bad = find_recordings(source)
    assert [(reject.file, reject.line) for reject in bad] == [(str(source), 2)]
    work, rejects = tmp_path / "out.work", Rejects(None, 1.0)
    clips = steps.segment_step(recordings, work, CONFIG, rejects)
    assert [(reject.file, reject.line) for reject in rejects.found] == [(str(source), 3)]
    assert all(clip.audio.resolve().is_relative_to(work.resolve()) for clip in clips)
    decisions = steps.decide(clips, steps.measure_step(clips, work, {}), CONFIG)
    steps.write_outcome(decisions, work, tmp_path / "out.jsonl")
    (row,) = read_manifest(tmp_path / "out.jsonl", strict=True).utterances
    assert row.extra == {"language": "en"} and row.audio.is_file()


def test_two_clips_of_one_name_are_an_error(tmp_path: Path) -> None:
    save_audio(tmp_path / "raw" / "a.wav", speech(1), RATE)
    save_audio(tmp_path / "raw" / "a-0000.wav", speech(2), RATE)
    (tmp_path / "raw" / "a-0000.txt").write_text("Yes.")
    recordings, _ = find_recordings(tmp_path / "raw")
    with pytest.raises(ValueError, match="'a' both have a clip 'a-0000'"):
        steps.segment_step(recordings, tmp_path / "work", CONFIG, Rejects(None, 0.0))


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


@pytest.mark.slow
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
    found, _ = find_recordings(folder / "ann")
    recordings = [replace(found[0], text="Да, в 5 часов.")]
    work = folder.parent / "out.work"
    clips = steps.segment_step(recordings, work, CONFIG, Rejects(None, 1.0))

    def disagreement(heard: str, normalizer: Literal["english", "none"]) -> float | None:
        told = {clips[0].id: {"it": heard}}
        measures = steps.measure_step(clips, work, told, normalizer=normalizer)
        return measures[clips[0].id].disagreement

    assert disagreement("да в 5 часов", "none") == 0.0
    assert disagreement("нет в 5 часов", "none") == 0.25
    assert disagreement("нет в 5 часов", "english") == 0.0, "nothing but the figure is English"


@pytest.mark.slow
def test_noisy_recordings_are_enhanced_and_heard_before_and_after(
    tmp_path: Path, enhancer_bundle: Path
) -> None:
    time = torch.arange(3 * RATE) / RATE
    voice = 0.1 * torch.sin(2 * torch.pi * 150 * time) * torch.exp(-(time % 0.5) * 35)
    hiss = torch.randn(3 * RATE, generator=torch.Generator().manual_seed(0))
    for name, level in (("clean", 1e-5), ("noisy", 4e-3), ("lost", 0.3)):
        save_audio(tmp_path / "raw" / f"{name}.wav", voice + level * hiss, RATE)
        (tmp_path / "raw" / f"{name}.txt").write_text("Yes, of course.")
    recordings, _ = find_recordings(tmp_path / "raw")
    work, config = tmp_path / "out.work", replace(CONFIG, enhance=str(enhancer_bundle))
    rejects = Rejects(None, 0.0)
    clips = {clip.id: clip for clip in steps.segment_step(recordings, work, config, rejects)}
    assert [name for name, clip in clips.items() if clip.before is not None] == ["noisy"]
    assert clips["clean"].enhancement.startswith("clean:")
    assert "no speech stands out" in clips["lost"].enhancement
    before, enhanced = clips["noisy"].before, clips["noisy"]
    assert before is not None and enhanced.enhancement.startswith("isolation: speech")
    plain = steps.segment_step(recordings, tmp_path / "plain.work", CONFIG, rejects)
    unchanged = {clip.id: load_audio(clip.audio, RATE) for clip in plain}
    for name in clips:
        is_equal = torch.equal(load_audio(clips[name].audio, RATE), unchanged[name])
        assert is_equal == (name != "noisy")
    assert torch.equal(load_audio(before, RATE), unchanged["noisy"])
    # Read back by a run that goes on, and refused with other settings.
    again = steps.segment_step(recordings, work, config, Rejects(None, 0.0))
    assert again == [*clips.values()]
    with pytest.raises(ValueError, match="other settings"):
        steps.segment_step(recordings, work, CONFIG, rejects)
    measures = steps.measure_step(again, work, {})
    write_report(tmp_path / "out.html", steps.decide(again, measures, config), [])
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "1 of 3 clips are of recordings that were enhanced" in page
    assert "out.work/before/noisy.flac" in page and "out.work/clips/noisy.flac" in page
