"""Sets of texts: rows, figures, pages and comparisons, with a system and judges made up here."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import Future
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from tokenlm.text.tokenizers import load_text_tokenizer
from training.evaluation import run as evaluation
from training.evaluation import sealed
from training.evaluation.command import evaluate
from training.evaluation.compare import compare, compare_folders, warn_of_prompts
from training.evaluation.parts import Parts, find_parts
from training.evaluation.prompts import Prompt
from training.evaluation.run import check_judge_is_no_reward
from training.evaluation.sets import Line, TextSet, TextSetError, find_text_sets, read_text_set
from training.evaluation.snapshot import Reading, Snapshot
from training.evaluation.suite import Judges, Request, Speech, score, speak
from training.evaluation.systems import Cloning
from training.evaluation.texts import (
    LinePrompts,
    by_item,
    chosen_lines,
    compare_rows,
    longest,
    other_prompts,
    text_figures,
    text_suite,
)
from training.rl.regression import Regression, RegressionConfig
from training.rl.rewards import RewardConfig

RATE = 24_000


def line(name: str, text: str, category: str = "c") -> Line:
    return Line(id=name, text=text, spoken=text, category=category)


TEXTS = TextSet(
    name="mine",
    path=Path("mine.jsonl"),
    lines=[line("a", "one two"), line("b", "three four five"), line("c", "six"), line("d", "ten")],
    digest="0",
)


def reading(errors: int, words: int) -> Reading:
    return Reading(voice="v", heard="", errors=errors, words=words, seconds=1.0)


SNAPSHOT = Snapshot(
    digest="0",
    judge="pocketsphinx 5",
    readings={"a": reading(0, 2), "b": reading(0, 3), "c": reading(1, 1), "d": reading(0, 1)},
)


class Tones:
    """Says a line as a tone, as many tenths of a second as it has characters."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def speak(self, request: Request) -> Speech:
        self.seeds.append(request.seed)
        time = torch.arange(len(request.text) * RATE // 10) / RATE
        return Speech(
            request=request,
            waveform=0.2 * torch.sin(2 * torch.pi * 200 * time),
            sample_rate=RATE,
            work_seconds=0.5,
            first_audio_seconds=0.1 * "abcd".index(str(request.id)),
        )


class OnePrompt(LinePrompts):
    """The same prompt, without sound, for every line."""

    def __init__(self) -> None:
        self.prompt = Prompt(
            name="p", text="from the prompt", waveform=torch.zeros(RATE), sample_rate=RATE
        )

    def find(self, number: int, line: Line) -> Prompt:
        return self.prompt


def judges(heard: dict[int, str]) -> Judges:
    """Transcribe by the length of the speech, in tenths of a second."""

    def submit(samples: np.ndarray) -> Future[str]:
        future: Future[str] = Future()
        future.set_result(heard[round(len(samples) / 1600)])
        return future

    def embed(samples: np.ndarray) -> np.ndarray:
        return np.array([0.6, 0.8]) if np.any(samples) else np.array([1.0, 0.0])

    return Judges(submit, embed, lambda samples: {"dnsmos_ovrl": 3.5})


HEARD = {7: "one two", 15: "from the prompt", 3: ""}


def rows_of(
    heard: dict[int, str],
    *,
    snapshot: Snapshot | None = None,
    seeds: tuple[int, ...] = (0,),
    folder: Path | None = None,
    system: Tones | None = None,
) -> list[dict[str, Any]]:
    suite = text_suite(TEXTS, snapshot, OnePrompt(), seeds=seeds)
    speeches = speak(system or Tones(), suite, folder)
    return [one.row for one in score(suite, speeches, judges(heard))]


def test_rows_by_hand(tmp_path: Path) -> None:
    rows = rows_of(HEARD, snapshot=SNAPSHOT, folder=tmp_path)
    assert [row["item"] for row in rows] == ["a", "b", "d"]  # c is left out
    first, second, third = rows
    assert (first["errors"], first["words"], first["char_errors"]) == (0, 2, 0)
    assert first["catastrophic"] is False and first["faults"] == []
    assert first["speaking_rate"] == pytest.approx(10.0)  # 7 characters in 0.7 s
    assert first["similarity"] == 0.6 and first["dnsmos_ovrl"] == 3.5
    assert (second["errors"], second["word_error_rate"], second["catastrophic"]) == (3, 1.0, True)
    assert second["faults"] == ["prompt_leak"]
    assert third["faults"] == ["early_stop"] and third["catastrophic"] is True
    assert (
        Path(second["audio"]) == tmp_path / "mine/b-0.wav" and (tmp_path / "mine/b-0.wav").is_file()
    )


def test_every_line_is_spoken_once_with_each_seed() -> None:
    system = Tones()
    rows = rows_of(HEARD, snapshot=SNAPSHOT, seeds=(0, 7), system=system)
    assert [(row["item"], row["seed"]) for row in rows] == [
        ("a", 0), ("b", 0), ("d", 0), ("a", 7), ("b", 7), ("d", 7),
    ]  # fmt: skip
    assert len(set(system.seeds)) == 6


def test_a_limit_spreads_over_the_lines_that_remain() -> None:
    assert [n for n, _ in chosen_lines(TEXTS, None)] == [0, 1, 2, 3]
    assert [n for n, _ in chosen_lines(TEXTS, SNAPSHOT)] == [0, 1, 3]
    assert [n for n, _ in chosen_lines(TEXTS, None, 2)] == [0, 2]
    assert [n for n, _ in chosen_lines(TEXTS, SNAPSHOT, 9)] == [0, 1, 3]


def test_figures_by_hand() -> None:
    rows = rows_of(HEARD, snapshot=SNAPSHOT, seeds=(0, 1))
    found = {figure.name: figure for figure in text_figures(rows)}
    assert found["word_error_rate"].value == pytest.approx(4 / 6)  # 0 of 2, 3 of 3, 1 of 1
    assert found["mean_word_error_rate"].value == pytest.approx(2 / 3)
    assert found["catastrophic_failure_rate"].value == pytest.approx(2 / 3)
    assert found["prompt_leak_rate"].value == pytest.approx(1 / 3)
    assert found["early_stop_rate"].value == pytest.approx(1 / 3)
    assert found["repeat_rate"].value == 0.0
    assert found["time_to_first_audio"].value == pytest.approx(0.1)
    assert found["real_time_factor"].value == pytest.approx(1.5 / 2.5)
    assert found["lost_or_doubled_rate"].value == pytest.approx(1 / 3)  # "ten" was not heard
    assert found["short_line_failure_rate"].value == pytest.approx(2 / 3)
    assert found["dnsmos_ovrl"].value == 3.5 and "high_band_db" in found
    assert found["repeat_rate"].low == 0.0 and (found["repeat_rate"].high or 0) > 0.5
    # Two seeds are not twice as many items.
    assert {figure.num_items for figure in found.values()} == {3}
    assert "not comparable" in found["speaker_similarity"].note
    assert "2 seeds each" in found["word_error_rate"].note


def test_seeds_of_an_item_are_averaged() -> None:
    rows = [{"item": "a", "x": 1.0}, {"item": "b", "x": 5.0}, {"item": "a", "x": True}]
    rows += [{"item": "a", "x": 4.0}, {"item": "c", "x": None}]
    assert by_item(rows, "x") == {"a": 2.0, "b": 5.0}


def test_sets_that_were_looked_at_are_named_so() -> None:
    rows = rows_of(HEARD, snapshot=SNAPSHOT)
    assert "development" not in text_figures(rows)[0].note
    hard = [{**row, "group": "hard"} for row in rows]
    assert all("a development set: choices were made on it" in f.note for f in text_figures(hard))


def test_two_systems_are_compared_on_the_items_of_both() -> None:
    first = rows_of(HEARD, snapshot=SNAPSHOT)
    second = rows_of({**HEARD, 15: "three four six"}, snapshot=SNAPSHOT)[:2]
    found = {one.name: one for one in compare_rows(first, second)}
    assert (found["word_error_rate"].first, found["word_error_rate"].second) == (0.6, 0.2)
    assert found["catastrophic_failure_rate"].difference == -0.5
    assert found["prompt_leak_rate"].num_items == 2
    with pytest.raises(ValueError, match="no item in common"):
        compare_rows(first[:1], second[1:])


def test_other_prompts_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    first = [{"item": item, "prompt": "ann"} for item in "abc"]
    second = [{"item": item, "prompt": "ann" if item == "b" else "bob"} for item in "bcd"]
    assert other_prompts(first, second) == ["c"]
    warn_of_prompts({"mine": first, "plain": first}, {"mine": second})
    said = capsys.readouterr().err
    assert said.startswith("warning: mine: 1 items, c for one, were spoken to other prompts")
    # Seeds of an item may have prompts of their own, as long as both systems have the same.
    twice = [*first, {"item": "a", "prompt": "bob"}]
    assert other_prompts(twice, twice[::-1]) == [] and other_prompts(first, twice) == ["a"]


@pytest.fixture
def set_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    rows = [{"id": "a", "text": "Is it so?"}, {"id": "b", "text": "Yes, <b>it</b> is!"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    def embed(samples: np.ndarray) -> np.ndarray:
        return np.array([1.0, float(np.abs(samples).mean())])

    monkeypatch.setattr(evaluation, "load_voice_judge", lambda: embed)
    monkeypatch.setattr(evaluation, "load_recognizer", lambda name: lambda pcm: "is it so")
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [*arguments, "--memory", str(tmp_path / "memory.jsonl")])


@pytest.mark.slow
def test_a_bundle_is_judged_on_a_set_and_can_be_heard(
    tmp_path: Path,
    tiny_bundle: Path,
    set_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def run(name: str, *more: str) -> Any:
        options = ["--bundle", str(tiny_bundle), "--set", str(set_file), "--judge", "mine"]
        return command(tmp_path, monkeypatch, *options, "--output", str(tmp_path / name), *more)

    result = run("one")
    assert result.exit_code == 0, result.output
    assert "has no snapshot" in caplog.text and "mean_word_error_rate" in result.output
    rows = [json.loads(text) for text in (tmp_path / "one/utterances.jsonl").open()]
    assert [(row["item"], row["errors"], row["prompt"]) for row in rows] == [
        ("a", 0, "ann"),
        ("b", 2, "bob"),
    ]
    report = json.loads((tmp_path / "one/metrics.json").read_text())
    assert report["figures"][0]["command"].endswith("--judge mine")
    page = (tmp_path / "one/report.html").read_text()
    assert page.count("data:audio/flac;base64,") == 1  # the only line that went wrong
    assert page.count("data:image/png;base64,") == 2
    assert "Yes, &lt;b&gt;it&lt;/b&gt; is!" in page and "<b>it</b>" not in page
    assert "http" not in page

    result = run("two", "--seeds", "0,1", "--keep-audio")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "two/audio/mine").iterdir())) == 4
    found = compare_folders(tmp_path / "one", tmp_path / "two")
    assert found["mine"][0].difference == 0.0

    app = typer.Typer()
    app.command()(compare)
    arguments = [str(tmp_path / name) for name in ("one", "two")]
    shown = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "both")])
    assert shown.exit_code == 0 and "word_error_rate" in shown.output
    assert "paired by item" in shown.output
    assert "Beside another system" in (tmp_path / "both/report.html").read_text()
    assert "prompts" not in shown.output
    written = json.loads((tmp_path / "both/compare.json").read_text())
    assert written["mine"][0]["num_items"] == 2
    assert CliRunner().invoke(app, [str(tmp_path), str(tmp_path)]).exit_code == 2


def test_a_set_with_recordings_is_read_beside_them(
    tmp_path: Path, tiny_bundle: Path, heldout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "read.jsonl"
    audio = str(heldout.parent / "ann-0.wav")
    row = {"id": "a", "text": "It is.", "reference_audio": audio}
    path.write_text(json.dumps(row) + "\n")
    options = ["--bundle", str(tiny_bundle), "--set", str(path), "--judge", "mine"]
    result = command(tmp_path, monkeypatch, *options, "--output", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "out/metrics.json").read_text())["figures"]
    found = {row["name"]: row["original"] for row in figures}
    # "is it so" is heard of both; what only speech has has nothing beside it.
    assert found["word_error_rate"] == 1.0 and found["lost_or_doubled_rate"] == 0.0
    assert found["catastrophic_failure_rate"] is found["real_time_factor"] is None
    rows = [json.loads(line) for line in (tmp_path / "out/utterances.jsonl").open()]
    assert len(rows) == 1  # the recording is no row of the set


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--set", "easy"],
            "there is no test set 'easy': give plain, hard, development, or a file",
        ),
        (["--set", "hard"], "a test set needs speech_lm"),
        (["--set", "hard", "--seeds", "x"], "--seeds are whole numbers"),
        (["--set", "hard", "--seeds", "1,1"], "names a seed twice"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    result = command(tmp_path, monkeypatch, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split()) and "Traceback" not in result.output


def test_the_sealed_set_is_spoken_once_and_written_down(
    tmp_path: Path, tiny_bundle: Path, set_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "eval"
    folder.mkdir()
    shutil.copy(set_file, folder / "sealed.jsonl")
    monkeypatch.setattr(sealed, "sealed_path", lambda: folder / "sealed.jsonl")
    log = folder / "sealed.log.jsonl"
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)

    def run(*more: str, test_set: Path = folder / "sealed.jsonl") -> tuple[int, str]:
        options = ["--bundle", str(bundle), "--set", str(test_set), "--judge", "mine"]
        result = command(tmp_path, monkeypatch, *options, *more)
        return result.exit_code, " ".join(result.output.split())

    code, said = run()
    assert code == 2 and "is spoken once for each bundle" in said
    copied = run(test_set=set_file)  # by its texts, whatever the file is called
    assert copied[0] == 2 and "is sealed" in copied[1]
    for more in (
        ["--limit", "1"],
        ["--plain-sampling"],
        ["--generation", "num_steps=1"],
        ["--component", str(tiny_bundle / "speech_lm")],
    ):
        code, said = run("--sealed", *more)
        assert code == 2 and "as a whole by a bundle as it is" in said, more
    assert not log.exists()

    code, said = run("--sealed")
    assert code == 0, said
    [row] = [json.loads(text) for text in log.read_text().splitlines()]
    assert set(row) == {"date", "bundle", "fingerprint", "set", "command", "completed"}
    assert row["completed"] >= row["date"]
    assert "--sealed" in row["command"] and len(row["fingerprint"]) == 64
    # What was stopped has shown no figure, and may be asked again; then it is complete.
    log.write_text(json.dumps({**row, "completed": None}) + "\n")
    assert run("--sealed")[0] == 0
    stopped, row = [json.loads(text) for text in log.read_text().splitlines()]
    assert stopped["completed"] is None and row["completed"] is not None
    code, said = run("--sealed")
    assert code == 2 and "have spoken the sealed set on" in said and row["date"][:10] in said
    # Another card or another setting makes no other bundle, other weights do.
    (bundle / "README.md").write_text("# Another\n")
    assert run("--sealed")[0] == 2 and len(log.read_text().splitlines()) == 2
    (bundle / "voices").mkdir(exist_ok=True)
    (bundle / "voices" / "new.voice").write_bytes(b"another")
    assert sealed.bundle_fingerprint(bundle) != row["fingerprint"]


def test_the_log_is_no_set_and_sealed_needs_the_set(
    tmp_path: Path, tiny_bundle: Path, set_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--bundle", str(tiny_bundle), "--set", str(set_file), "--judge", "mine"]
    result = command(tmp_path, monkeypatch, *options, "--sealed")
    assert result.exit_code == 2
    assert "--sealed is for the sealed set" in " ".join(result.output.split())
    shipped = find_text_sets(["sealed", "hard", "plain", "development"])
    assert [sealed.is_sealed(texts) for texts in shipped] == [True, False, False, False]


@pytest.mark.parametrize("share", ["some", "one among others", "spelled otherwise"])
def test_lines_of_the_sealed_set_are_sealed_in_any_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: str, tiny_bundle: Path
) -> None:
    texts = [f"The {word} lamp burned on for nights." for word in ("red", "green", "blue")]
    others = [f"Nobody {word} the old gate any more." for word in ("opens", "paints", "likes")]
    path = tmp_path / "sealed.jsonl"

    def write(path: Path, texts: list[str], kind: str) -> Path:
        rows = [
            json.dumps({"id": f"{kind}-{number}", "text": text, "spoken": text.lower().strip(".!")})
            for number, text in enumerate(texts)
        ]
        path.write_text("\n".join(rows) + "\n")
        return path

    write(path, texts, "sealed")
    monkeypatch.setattr(sealed, "sealed_path", lambda: path)
    own = {
        "some": texts[1:],
        "one among others": [*others, texts[0]],
        "spelled otherwise": [texts[2].upper().replace(".", "!")],
    }[share]
    mine = read_text_set(write(tmp_path / "mine.jsonl", own, "mine"))
    assert sealed.is_sealed(mine)
    with pytest.raises(ValueError, match="has lines of the sealed set"):
        sealed.check_seal([mine], asked=False, whole=True)
    with pytest.raises(ValueError, match="as a whole"):
        sealed.check_seal([mine], asked=True, whole=True)
    tokenizer = load_text_tokenizer(tiny_bundle / "text_tokenizer")
    with pytest.raises(ValueError, match="no model is trained or stopped by it"):
        Regression(RegressionConfig(plain_texts=mine.path), tokenizer, None)
    other = read_text_set(write(tmp_path / "other.jsonl", others, "mine"))
    assert not sealed.is_sealed(other)


def test_sets_of_one_name_are_told_apart(set_file: Path, tmp_path: Path) -> None:
    with pytest.raises(TextSetError, match="two test sets are called 'mine'"):
        find_text_sets([str(set_file), str(set_file)])


def test_what_rewarded_a_model_does_not_judge_it(tiny_bundle: Path) -> None:
    class Rewarded(Parts):
        def facts(self, name: str) -> dict[str, Any]:
            return {"rewards": ["token_asr", "transformers:x"]}

    parts = find_parts(str(tiny_bundle))
    check_judge_is_no_reward(parts, "transformers:x")
    rewarded = Rewarded(parts.folders, parts.generation)
    check_judge_is_no_reward(rewarded, "pocketsphinx")
    check_judge_is_no_reward(rewarded, "whisper:FOLDER")
    with pytest.raises(ValueError, match="trained with transformers:x as a reward"):
        check_judge_is_no_reward(rewarded, "transformers:x")

    class Whispered(Parts):
        def facts(self, name: str) -> dict[str, Any]:
            return {"rewards": ["transformers:openai/Whisper-base"]}

    # The same weights by another name are the same judge.
    with pytest.raises(ValueError, match="whisper:FOLDER cannot judge it, too"):
        check_judge_is_no_reward(Whispered(parts.folders, parts.generation), "whisper:FOLDER")


@pytest.mark.parametrize("judge", ["pocketsphinx", "whisper:FOLDER"])
def test_no_judge_of_the_evaluation_is_a_reward(judge: str) -> None:
    with pytest.raises(ValueError, match="is a judge of tokenlm evaluate, and is no reward"):
        RewardConfig(recognizer=judge)


def test_nothing_that_trains_or_speaks_loads_a_judge() -> None:
    """Rewards may load a recogniser, which is written down; nothing loads the other judges."""
    root = Path(evaluation.__file__).parents[2]
    modules = ("voice_encoder", "suite", "run")
    judges = ("load_naturalness", "find_cleaner", "clean_for_whisper", "high_band_db")
    folders = ("tokenlm", "inference", "training/rl", "training/stages", "training/losses")
    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    assert len(files) > 100
    for path in files:
        text = path.read_text(encoding="utf-8")
        for name in modules:
            assert f"training.evaluation.{name} " not in text, path
        for name in judges:
            assert name not in text, path
        assert not re.search(r"import (faster_whisper|speechmos|distillmos|resemblyzer)", text), (
            path
        )


def request(text: str, prompt: Prompt) -> Request:
    return Request(id="a", text=text, prompt=prompt, seed=3)


def test_prompts_take_turns_and_are_joined_for_long_ones(heldout: Path, tiny_bundle: Path) -> None:
    system = Cloning(find_parts(str(tiny_bundle)))
    prompts = LinePrompts(system, heldout, num_voices=2, prompt_seconds=0.4)
    short = prompts.find(0, line("a", "go"))
    assert short.name == "ann" and short.text == "Say ann."
    assert prompts.find(1, line("b", "go")).name == "bob"
    assert prompts.find(2, line("c", "go")) is short
    long = prompts.find(2, line("c", "go", "long_prompt"))
    # 0.56 + 0.48 + 0.4 s, the longest first.
    assert long.text == "Say ann and ann and ann. Say ann and ann. Say ann."
    spoken, again = (system.speak(request("is it so?", short)) for _ in range(2))
    assert torch.equal(spoken.waveform, again.waveform)
    assert spoken.work_seconds is not None and spoken.work_seconds > 0
    assert spoken.processor_seconds is not None and spoken.processor_seconds > 0


def test_streams_tell_when_they_are_heard_first(tiny_bundle: Path) -> None:
    parts = find_parts(str(tiny_bundle))
    whole, streamed = Cloning(parts), Cloning(parts, stream=True)
    prompt = whole.voice_prompt("ann")
    one, other = (system.speak(request("is it so?", prompt)) for system in (whole, streamed))
    assert one.first_audio_seconds is None
    torch.testing.assert_close(other.waveform, one.waveform, atol=1e-4, rtol=0)
    assert other.first_audio_seconds is not None and other.work_seconds is not None
    assert 0 < other.first_audio_seconds <= other.work_seconds + 1.0


def test_joined_recordings_keep_below_the_limit(heldout: Path) -> None:
    from training.data.manifest import read_manifest

    rows = [row for row in read_manifest(heldout).utterances if row.speaker == "ann"]
    assert [row.id for row in longest(rows, 1.4)] == ["ann-2", "ann-1"]
    assert [row.id for row in longest(rows, 0.1)] == ["ann-0"]


def test_without_voices_nothing_is_spoken(tiny_bundle: Path) -> None:
    folders = find_parts(str(tiny_bundle)).folders
    parts = find_parts(None, list(folders.values()))
    with pytest.raises(TextSetError, match="the line 'a' needs a voice"):
        LinePrompts(Cloning(parts)).find(0, line("a", "go"))


def test_the_table_marks_what_is_significant() -> None:
    from training.evaluation.compare import print_comparison

    console = Console(file=StringIO(), width=160)
    rows = rows_of(HEARD)
    better = [{**row, "errors": 0, "word_error_rate": 0.0} for row in rows]
    print_comparison("mine", compare_rows(rows, better), console)
    assert "mean_word_error_rate" in console.file.getvalue()  # type: ignore[attr-defined]
