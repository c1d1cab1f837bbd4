"""Lines are dealt to voices in which the judge understands the engine, and spoken in these."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tokenlm.checkpoint.resolve import packaged_configs
from tokenlm.config import load_config
from training.evaluation import dealt as module
from training.evaluation import script_command
from training.evaluation.cloning import CloningSystem
from training.evaluation.command import evaluate
from training.evaluation.dealt import deal_voices, in_voices, voices_of
from training.evaluation.frozen import Frozen, Reading, frozen_path, read_frozen, write_frozen
from training.evaluation.parts import find_parts
from training.evaluation.script import Line, Script, ScriptError, read_script
from training.recipes.corpus.config import CorpusConfig, PersonConfig
from training.recipes.corpus.engines import EngineError, Request, Speech

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
def script(tmp_path: Path) -> Script:
    path = tmp_path / "mine.jsonl"
    rows = [{"id": name, "text": f"{name} two three four five."} for name in "pqrst"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_script(path)


def reading(errors: int, voice: str = "flite rms") -> Reading:
    return Reading(voice=voice, heard="x", errors=errors, words=5, seconds=1.0)


def frozen_of(script: Script) -> Frozen:
    """The second line does not count."""
    readings = {line.id: reading(5 if line.id == "q" else 0) for line in script.lines}
    return Frozen(digest=script.digest, judge="pocketsphinx 5", readings=readings)


def dealt_of(script: Script) -> Frozen:
    readings = {
        name: reading(errors, voice)
        for name, errors, voice in [
            ("p", 1, "bob-f1000"),
            ("r", 0, "cyd-f1000"),
            ("s", 3, "ann-f1000"),
            ("t", 0, "bob-f1000"),
        ]
    }
    return Frozen(digest=script.digest, judge="j", readings=readings, voices=VOICES)


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
    script: Script, monkeypatch: pytest.MonkeyPatch
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

    monkeypatch.setattr(module, "speak", speak)
    monkeypatch.setattr(module, "check_voice", lambda engine, voice: None)
    found = deal_voices(script, frozen_of(script), voices_of(CORPUS), CORPUS, submit, "judge 1")
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


def test_an_engine_that_refuses_is_told(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "check_voice", lambda engine, voice: None)
    monkeypatch.setattr(module, "speak", lambda engine, requests: [EngineError("no voice")])
    with pytest.raises(EngineError, match="no voice"):
        deal_voices(script, frozen_of(script), voices_of(CORPUS), CORPUS, lambda s: Future(), "j")


def test_both_lists_lie_beside_the_script(script: Script) -> None:
    write_frozen(script, frozen_of(script))
    path = write_frozen(script, dealt_of(script))
    assert path == frozen_path(script, dealt=True) == script.path.with_name("mine.voices.json")
    assert read_frozen(script) == frozen_of(script)
    assert read_frozen(script, dealt=True) == dealt_of(script)
    assert json.loads(path.read_text())["voices"] == list(VOICES)
    with pytest.raises(ScriptError, match="is frozen already"):
        write_frozen(script, dealt_of(script))


def test_lines_name_their_voice_and_are_judged_beside_it(script: Script) -> None:
    placed, frozen = in_voices(script, frozen_of(script), dealt_of(script), [*VOICES, "dan"])
    assert [line.speaker for line in placed.lines] == [
        "bob-f1000", None, "cyd-f1000", "ann-f1000", "bob-f1000",
    ]  # fmt: skip
    assert frozen is not None and frozen.excluded == {"q", "s"}
    assert (frozen.readings["p"].errors, frozen.readings["p"].voice) == (1, "bob-f1000")
    assert frozen.readings["q"] == frozen_of(script).readings["q"]


def test_other_voices_leave_the_script_as_it_is(script: Script) -> None:
    frozen, dealt = frozen_of(script), dealt_of(script)
    assert in_voices(script, frozen, dealt, VOICES[:2]) == (script, frozen)
    assert in_voices(script, frozen, dealt, []) == (script, frozen)
    assert in_voices(script, frozen, None, VOICES) == (script, frozen)
    with pytest.raises(ScriptError, match="dealt to voices, but not frozen"):
        in_voices(script, None, dealt, VOICES)


def test_a_line_with_a_voice_of_its_own_keeps_it(script: Script) -> None:
    lines = [*script.lines]
    lines[0] = Line(id="p", text="p", spoken="p", voice="ann")
    lines[2] = Line(id="r", text="r", spoken="r", speaker="dan")
    own = Script(name="mine", path=script.path, lines=lines, digest=script.digest)
    placed, frozen = in_voices(own, frozen_of(script), dealt_of(script), VOICES)
    assert placed.lines[0] == lines[0] and placed.lines[2] == lines[2]
    assert frozen is not None and frozen.readings["p"] == frozen_of(script).readings["p"]


def test_a_line_is_spoken_after_the_prompt_of_its_speaker(heldout: Path, tiny_bundle: Path) -> None:
    system = CloningSystem(
        find_parts(str(tiny_bundle)),
        lambda samples: samples[:2],
        heldout=heldout,
        num_voices=2,
        prompt_seconds=0.4,
    )
    assert system.speakers == ["ann", "bob"]
    assert system.prompt(0, Line(id="a", text="go", spoken="go", speaker="bob")).name == "bob"
    assert system.prompt(1, Line(id="b", text="go", spoken="go", speaker="ann")).name == "ann"
    with pytest.raises(ScriptError, match="asks for the voice of 'cyd', but --heldout gives ann"):
        system.prompt(0, Line(id="c", text="go", spoken="go", speaker="cyd"))


def test_a_speaker_without_recordings_is_told(tiny_bundle: Path) -> None:
    system = CloningSystem(find_parts(str(tiny_bundle)), lambda samples: samples[:2])
    with pytest.raises(ScriptError, match="asks for the voice of 'ann', but no recordings"):
        system.prompt(0, Line(id="a", text="go", spoken="go", speaker="ann"))


def run(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(evaluate)
    memory = ["--memory", str(tmp_path / "memory.jsonl")]
    result = CliRunner().invoke(app, [*arguments, *memory])
    return result.exit_code, " ".join(result.output.split())


def test_mistakes_are_one_sentence(script: Script, tmp_path: Path) -> None:
    corpus = str(packaged_configs() / "data" / "corpus.yaml")
    options = ["--set", str(script.path), "--voices", corpus]
    code, output = run(tmp_path, *options)
    assert code == 2 and "--voices says to whom lines are dealt" in output
    code, output = run(tmp_path, *options, "--freeze")
    assert code == 2 and "has to be frozen before its lines are dealt" in output
    write_frozen(script, frozen_of(script))
    write_frozen(script, dealt_of(script))
    code, output = run(tmp_path, *options, "--freeze")
    assert code == 2 and "is frozen already" in output


def test_the_command_speaks_lines_where_they_were_dealt(
    script: Script,
    tmp_path: Path,
    tiny_bundle: Path,
    heldout: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def judge(name: str, *more: str) -> tuple[list[list[str]], str]:
        options = ["--bundle", str(tiny_bundle), "--set", str(script.path), "--judge", "mine"]
        output = ["--output", str(tmp_path / name)]
        code, shown = run(tmp_path, *options, *output, *more)
        assert code == 0, shown
        rows = [json.loads(text) for text in (tmp_path / name / "utterances.jsonl").open()]
        return [[row["item"], row["prompt"]] for row in rows], shown

    monkeypatch.setattr(script_command, "_load_embed", lambda: lambda samples: samples[:2])
    monkeypatch.setattr(script_command, "load_recognizer", lambda name: lambda pcm: "five")
    write_frozen(script, frozen_of(script))
    readings = {name: reading(0, "cyd" if name == "p" else "ann") for name in "prst"}
    dealt = Frozen(digest=script.digest, judge="j", readings=readings, voices=("ann", "cyd"))
    write_frozen(script, dealt)
    rows, shown = judge("one", "--heldout", str(heldout))
    assert rows == [["p", "cyd"], ["r", "ann"], ["s", "ann"], ["t", "ann"]]
    assert "deals the lines" not in shown
    rows, shown = judge("two")
    assert [name for name, _ in rows] == ["p", "r", "s", "t"]
    assert "deals the lines to ann, cyd; this evaluation has other voices" in shown


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_a_real_engine_reads_in_a_warped_voice(script: Script) -> None:
    corpus = load_config(CorpusConfig, packaged_configs() / "data" / "corpus.yaml")
    heard: list[np.ndarray] = []

    def submit(samples: np.ndarray) -> Future[str]:
        heard.append(samples)
        future: Future[str] = Future()
        future.set_result("p two three four five")
        return future

    low = [voice for voice in voices_of(corpus) if voice.name == "rms-f0945"]
    dealt = deal_voices(script, frozen_of(script), low, corpus, submit, "j")
    assert dealt.readings["p"].voice == "rms-f0945" and dealt.readings["p"].errors == 0
    assert 1.0 < dealt.readings["p"].seconds < 3.0
    assert len(heard[0]) == round(dealt.readings["p"].seconds * 16_000)
    assert 0.05 < float(np.sqrt(np.mean(heard[0] ** 2))) < 0.1  # -22 dB, as the corpus stores it
