"""Lines are assigned to voices in which the judge understands the engine, and spoken in these."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import typer
from script_module import load_script
from typer.testing import CliRunner

from tokenlm.checkpoint.resolve import packaged_configs
from tokenlm.config import load_config
from training.evaluation import run as evaluation
from training.evaluation.command import evaluate
from training.evaluation.parts import find_parts
from training.evaluation.sets import Line, TextSet, TextSetError, read_text_set
from training.evaluation.snapshot import (
    Reading,
    Snapshot,
    assign_speakers,
    read_snapshot,
    snapshot_path,
    write_snapshot,
)
from training.evaluation.systems import Cloning
from training.evaluation.texts import LinePrompts
from training.recipes.corpus.config import CorpusConfig, PersonConfig
from training.recipes.corpus.engines import EngineError, Request, Speech

SCRIPT = load_script("snapshot_test_set")
assign_voices, voices_of = SCRIPT.assign_voices, SCRIPT.voices_of

VOICES = ("ann-f1000", "bob-f1000", "cyd-f1000")
CORPUS = CorpusConfig(
    people=tuple(
        PersonConfig(
            name=name,
            engine="flite",
            voices=(name,),
            share=1.0,
            formants=(0.9,),
            heldout_formants=(1.0,),
            heldout_manifest=manifest,
        )
        for name, manifest in [
            ("cyd", "heldout"),
            ("eve", "heldout_eve"),
            ("ann", "heldout"),
            ("bob", "heldout"),
        ]
    )
)


@pytest.fixture
def texts(tmp_path: Path) -> TextSet:
    path = tmp_path / "mine.jsonl"
    rows = [{"id": name, "text": f"{name} two three four five."} for name in "pqrst"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_text_set(path)


def reading(errors: int, voice: str = "flite rms") -> Reading:
    return Reading(voice=voice, heard="x", errors=errors, words=5, seconds=1.0)


def snapshot_of(texts: TextSet) -> Snapshot:
    """The second line does not count."""
    readings = {line.id: reading(5 if line.id == "q" else 0) for line in texts.lines}
    return Snapshot(digest=texts.digest, judge="pocketsphinx 5", readings=readings)


def assigned_of(texts: TextSet) -> Snapshot:
    readings = {
        name: reading(errors, voice)
        for name, errors, voice in [
            ("p", 1, "bob-f1000"),
            ("r", 0, "cyd-f1000"),
            ("s", 3, "ann-f1000"),
            ("t", 0, "bob-f1000"),
        ]
    }
    return Snapshot(digest=texts.digest, judge="j", readings=readings, voices=VOICES)


def test_voices_are_those_of_the_manifest_by_name() -> None:
    assert tuple(voice.name for voice in voices_of(CORPUS)) == VOICES
    assert [voice.name for voice in voices_of(CORPUS, "heldout_eve")] == ["eve-f1000"]
    with pytest.raises(ValueError, match="no held-out speakers in the manifest 'x'"):
        voices_of(CORPUS, "x")


def test_voices_of_the_corpus_are_those_of_its_manifest_of_prompts() -> None:
    corpus = load_config(CorpusConfig, packaged_configs() / "data" / "corpus.yaml")
    names = [voice.name for voice in voices_of(corpus)]
    assert names == sorted(names) and len(names) == 6
    assert {voice.person for voice in voices_of(corpus)} == {"rms", "slt", "kal"}


def test_each_line_goes_to_the_first_voice_that_is_understood(
    texts: TextSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def speak(engine: str, requests: list[Request]) -> list[Speech | EngineError]:
        asked.append((requests[0].voice, requests[0].text[0]))
        tone = np.sin(0.1 * np.arange(8000)).astype(np.float32)
        return [Speech(waveform=tone, sample_rate=16_000)]

    heard = {
        ("ann", "p"): "p",
        ("bob", "p"): "p two three four",  # 1 of 5: understood
        ("cyd", "r"): "r two three four five",
        ("ann", "s"): "s",
        ("bob", "s"): "s two",
        ("cyd", "s"): "",
        ("bob", "t"): "t two three four five",
    }

    def submit(samples: np.ndarray) -> Future[str]:
        future: Future[str] = Future()
        future.set_result(heard[asked[-1]])
        return future

    monkeypatch.setattr(SCRIPT, "speak", speak)
    monkeypatch.setattr(SCRIPT, "check_voice", lambda engine, voice: None)
    found = assign_voices(texts, snapshot_of(texts), voices_of(CORPUS), CORPUS, submit, "judge 1")
    assert {name: (row.voice, row.errors) for name, row in found.readings.items()} == {
        "p": ("bob-f1000", 1),
        "r": ("cyd-f1000", 0),
        "s": ("bob-f1000", 3),  # the best of three that are not understood
        "t": ("bob-f1000", 0),
    }
    assert found.voices == VOICES and found.judge == "judge 1"
    assert found.excluded == {"s"}
    # Line n begins with voice n; the one that the frozen list leaves out is read by nobody.
    assert asked == [
        ("ann", "p"), ("cyd", "r"), ("ann", "s"), ("bob", "t"),
        ("bob", "p"), ("bob", "s"),
        ("cyd", "s"),
    ]  # fmt: skip


def test_an_engine_that_refuses_is_told(texts: TextSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCRIPT, "check_voice", lambda engine, voice: None)
    monkeypatch.setattr(SCRIPT, "speak", lambda engine, requests: [EngineError("no voice")])
    with pytest.raises(EngineError, match="no voice"):
        assign_voices(texts, snapshot_of(texts), voices_of(CORPUS), CORPUS, lambda s: Future(), "j")


def test_both_lists_lie_beside_the_script(texts: TextSet) -> None:
    write_snapshot(texts, snapshot_of(texts))
    path = write_snapshot(texts, assigned_of(texts))
    assert path == snapshot_path(texts, assigned=True) == texts.path.with_name("mine.voices.json")
    assert read_snapshot(texts) == snapshot_of(texts)
    assert read_snapshot(texts, assigned=True) == assigned_of(texts)
    assert json.loads(path.read_text())["voices"] == list(VOICES)
    with pytest.raises(TextSetError, match="has a snapshot already"):
        write_snapshot(texts, assigned_of(texts))


def test_lines_name_their_voice_and_are_judged_beside_it(texts: TextSet) -> None:
    placed, snapshot = assign_speakers(
        texts, snapshot_of(texts), assigned_of(texts), [*VOICES, "dan"]
    )
    assert [line.speaker for line in placed.lines] == [
        "bob-f1000", None, "cyd-f1000", "ann-f1000", "bob-f1000",
    ]  # fmt: skip
    assert snapshot is not None and snapshot.excluded == {"q", "s"}
    assert (snapshot.readings["p"].errors, snapshot.readings["p"].voice) == (1, "bob-f1000")
    assert snapshot.readings["q"] == snapshot_of(texts).readings["q"]


def test_other_voices_leave_the_script_as_it_is(texts: TextSet) -> None:
    snapshot, assigned = snapshot_of(texts), assigned_of(texts)
    assert assign_speakers(texts, snapshot, assigned, VOICES[:2]) == (texts, snapshot)
    assert assign_speakers(texts, snapshot, assigned, []) == (texts, snapshot)
    assert assign_speakers(texts, snapshot, None, VOICES) == (texts, snapshot)
    with pytest.raises(TextSetError, match="are assigned to voices, but its own snapshot"):
        assign_speakers(texts, None, assigned, VOICES)


def test_a_line_with_a_voice_of_its_own_keeps_it(texts: TextSet) -> None:
    lines = [*texts.lines]
    lines[0] = Line(id="p", text="p", spoken="p", voice="ann")
    lines[2] = Line(id="r", text="r", spoken="r", speaker="dan")
    own = TextSet(name="mine", path=texts.path, lines=lines, digest=texts.digest)
    placed, snapshot = assign_speakers(own, snapshot_of(texts), assigned_of(texts), VOICES)
    assert placed.lines[0] == lines[0] and placed.lines[2] == lines[2]
    assert snapshot is not None and snapshot.readings["p"] == snapshot_of(texts).readings["p"]


def test_a_line_is_spoken_after_the_prompt_of_its_speaker(heldout: Path, tiny_bundle: Path) -> None:
    system = Cloning(find_parts(str(tiny_bundle)))
    prompts = LinePrompts(system, heldout, num_voices=2, prompt_seconds=0.4)
    assert prompts.speakers == ["ann", "bob"]
    assert prompts.find(0, Line(id="a", text="go", spoken="go", speaker="bob")).name == "bob"
    assert prompts.find(1, Line(id="b", text="go", spoken="go", speaker="ann")).name == "ann"
    with pytest.raises(TextSetError, match="the voice of 'cyd', but --heldout gives ann"):
        prompts.find(0, Line(id="c", text="go", spoken="go", speaker="cyd"))


def test_a_speaker_without_recordings_is_told(tiny_bundle: Path) -> None:
    prompts = LinePrompts(Cloning(find_parts(str(tiny_bundle))))
    with pytest.raises(TextSetError, match="asks for the voice of 'ann', but no recordings"):
        prompts.find(0, Line(id="a", text="go", spoken="go", speaker="ann"))


def run(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(evaluate)
    memory = ["--memory", str(tmp_path / "memory.jsonl")]
    result = CliRunner().invoke(app, [*arguments, *memory])
    return result.exit_code, " ".join(result.output.split())


def test_mistakes_are_one_sentence(
    texts: TextSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = str(packaged_configs() / "data" / "corpus.yaml")
    options = [str(texts.path), "--memory", str(tmp_path / "memory.jsonl")]
    assert SCRIPT.main([*options, "--voices", corpus]) == 2
    assert "needs a snapshot before its lines are assigned" in capsys.readouterr().err
    write_snapshot(texts, snapshot_of(texts))
    assert SCRIPT.main(options) == 2
    assert "has a snapshot already" in capsys.readouterr().err
    write_snapshot(texts, assigned_of(texts))
    assert SCRIPT.main([*options, "--voices", corpus]) == 2
    assert "has a snapshot already" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_speaks_lines_where_they_are_assigned(
    texts: TextSet,
    tmp_path: Path,
    tiny_bundle: Path,
    heldout: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def judge(name: str, *more: str) -> list[list[str]]:
        options = ["--bundle", str(tiny_bundle), "--set", str(texts.path), "--judge", "mine"]
        output = ["--output", str(tmp_path / name)]
        code, shown = run(tmp_path, *options, *output, *more)
        assert code == 0, shown
        rows = [json.loads(text) for text in (tmp_path / name / "utterances.jsonl").open()]
        return [[row["item"], row["prompt"]] for row in rows]

    monkeypatch.setattr(evaluation, "load_voice_judge", lambda: lambda samples: samples[:2])
    monkeypatch.setattr(evaluation, "load_recognizer", lambda name: lambda pcm: "five")
    write_snapshot(texts, snapshot_of(texts))
    readings = {name: reading(0, "cyd" if name == "p" else "ann") for name in "prst"}
    assigned = Snapshot(digest=texts.digest, judge="j", readings=readings, voices=("ann", "cyd"))
    write_snapshot(texts, assigned)
    rows = judge("one", "--heldout", str(heldout))
    assert rows == [["p", "cyd"], ["r", "ann"], ["s", "ann"], ["t", "ann"]]
    assert "assigns the lines" not in caplog.text
    rows = judge("two")
    assert [name for name, _ in rows] == ["p", "r", "s", "t"]
    assert "assigns the lines to ann, cyd; this evaluation has other voices" in caplog.text


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_a_real_engine_reads_in_a_warped_voice(texts: TextSet) -> None:
    corpus = load_config(CorpusConfig, packaged_configs() / "data" / "corpus.yaml")
    heard: list[np.ndarray] = []

    def submit(samples: np.ndarray) -> Future[str]:
        heard.append(samples)
        future: Future[str] = Future()
        future.set_result("p two three four five")
        return future

    low = [voice for voice in voices_of(corpus) if voice.name == "rms-f0945"]
    assigned = assign_voices(texts, snapshot_of(texts), low, corpus, submit, "j")
    assert assigned.readings["p"].voice == "rms-f0945" and assigned.readings["p"].errors == 0
    assert 1.0 < assigned.readings["p"].seconds < 3.0
    assert len(heard[0]) == round(assigned.readings["p"].seconds * 16_000)
    assert 0.05 < float(np.sqrt(np.mean(heard[0] ** 2))) < 0.1  # -22 dB, as the corpus stores it
