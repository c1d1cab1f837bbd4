from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tokenlm.config import load_config
from tokenlm.installation import install_command
from training.evaluation import command, judges, run
from training.evaluation.command import command_line
from training.evaluation.config import EvaluationConfig
from training.evaluation.run import Results
from training.evaluation.statistics import mean_figure

CONFIG = Path(__file__).parents[3] / "configs" / "eval" / "mini_en.yaml"


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(command.evaluate)
    return app


def test_the_config_of_the_embedded_voice_loads() -> None:
    config = load_config(EvaluationConfig, CONFIG)
    assert (config.num_items, config.num_voices) == (100, 6)


@pytest.mark.parametrize(
    "key",
    [
        "num_items",
        "num_voices",
        "num_recordings_per_speaker",
        "num_formant_items",
        "num_long_texts",
        "num_prompt_length_items",
        "num_damaged_prompt_items",
        "num_recordings",
        "num_items_per_recording",
    ],
)
def test_counts_must_be_positive(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        dataclasses.replace(EvaluationConfig(), **{key: 0})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("formant_factors", (0.9, 1.1), "must hold 1 and at least one other"),
        ("formant_factors", (1.0,), "must hold 1 and at least one other"),
        ("formant_factors", (0.9, 1.0, 1.0), "none of them twice"),
        ("formant_factors", (1.0, 1.5), "must be from 0.833 to 1.2"),
        ("formant_factors", (-1.0, 1.0), "must be from 0.833 to 1.2"),
        ("long_text_seconds", 19.0, "at least 20"),
        ("prompt_length_seconds", (1.0,), "two or more that rise"),
        ("prompt_length_seconds", (2.0, 1.0), "two or more that rise"),
        ("prompt_length_seconds", (0.1, 1.0), "at least 0.5"),
    ],
)
def test_prompts_that_make_no_sense_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"{key} must .*{message}|{key} .*{message}"):
        dataclasses.replace(EvaluationConfig(), **{key: value})  # type: ignore[arg-type]


def test_a_report_is_written_with_commands_that_repeat_it(
    app: typer.Typer, runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def fake(config: EvaluationConfig, parts: object, sections: list, **more: object) -> Results:
        asked.update(config=config, sections=sections, **more)
        figure = mean_figure("originals", "heldout", "speaker_similarity", [0.9, 0.8])
        return Results(figures=[figure], rows=[{"section": "originals", "group": "heldout"}])

    monkeypatch.setattr(run, "evaluate", fake)
    monkeypatch.chdir(CONFIG.parents[2])
    arguments = ["--config", str(CONFIG), "--heldout", "h.jsonl", "--limit", "7", "num_voices=4"]
    result = runner.invoke(app, [*arguments, "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "speaker_similarity" in result.output and "0.850" in result.output
    config = asked["config"]
    assert (config.heldout, config.num_items, config.num_voices) == (Path("h.jsonl"), 7, 4)
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    command_of = report["figures"][0]["command"]
    assert command_of == (
        "tokenlm evaluate --config configs/eval/mini_en.yaml --heldout h.jsonl --limit 7 "
        "num_voices=4 --sections originals"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heldout", "nothing.jsonl"], "nothing.jsonl: the manifest cannot be read"),
        ([], "name the manifest of held-out recordings"),
        (["--sections", "formants"], "the section formants needs speech_lm"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--stream"], "--stream and --sealed need a set of texts"),
        (["--sections", "script"], "a test set needs speech_lm"),
        (["--keep-audio"], "--keep-audio needs the folder"),
        (["--sections", "singing"], "there is no section 'singing'"),
        (["--component", "nowhere"], "there is no such component folder"),
        (["num_itemz=3"], "num_itemz"),
    ],
)
def test_mistakes_are_one_sentence(
    app: typer.Typer, runner: CliRunner, arguments: list[str], message: str
) -> None:
    result = runner.invoke(app, ["--config", str(CONFIG), *arguments])
    assert result.exit_code == 2
    assert message in result.output and "Traceback" not in result.output


def test_a_missing_judge_is_told_before_anything_is_read(
    app: typer.Typer, runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "find_spec", lambda name: None)
    result = runner.invoke(app, ["--config", str(CONFIG)])
    assert result.exit_code == 2
    assert install_command("eval") in result.output


def test_the_command_tells_no_path_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TOKENLM_RUNS", str(tmp_path / "runs"))
    arguments = [
        "--heldout", str(tmp_path / "runs/corpus/heldout.jsonl"),
        "--bundle", str(tmp_path / "work/mini en"),
    ]  # fmt: skip
    assert command_line("cloned", arguments) == (
        "tokenlm evaluate --heldout $TOKENLM_RUNS/corpus/heldout.jsonl --bundle 'mini en' "
        "--sections cloned"
    )


def test_the_command_quotes_what_needs_it() -> None:
    assert command_line("cloned", ["--bundle", "my voice"]) == (
        "tokenlm evaluate --bundle 'my voice' --sections cloned"
    )
