"""The benchmark: its arithmetic by hand, and a quick run of all of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner, Result

from inference.benchmark import command, judgement
from inference.benchmark.cold_start import measure_cold_starts
from inference.benchmark.measurements import BenchmarkConfig, Row, measure
from inference.benchmark.subject import bundle_subject, config_subject
from inference.benchmark.timeline import Event, Timeline
from tests.distributed.toy import toy_model
from tokenlm.audio.joining import sound_seconds
from tokenlm.report import bootstrap_interval

TINY = {
    "speech_lm": toy_model("speech_lm", backbone={"vocab_size": 4096}, codebook_size=27),
    "flow": toy_model("flow", codebook_size=27),
    "vocoder": toy_model("vocoder"),
}


def event(wall: float, cpu: float, seconds: float, sound: float) -> Event:
    return Event(wall, cpu, seconds, sound, state_bytes=10 + int(seconds * 10), cache_bytes=7)


LINE = Timeline(
    events=[
        event(0.2, 0.1, 0.2, 0.04),
        event(0.3, 0.3, 0.4, 0.4),
        event(1.5, 1.1, 1.0, 1.0),
        event(1.6, 1.2, 0.4, 0.4),
    ],
    wall_seconds=1.8,
    cpu_seconds=1.3,
)


def test_first_audio_is_when_a_player_never_runs_dry() -> None:
    """80 ms of sound are there at 0.3 s, but 0.6 s of speech do not last until 1.5 s."""
    assert LINE.time_to_first_audio == pytest.approx(0.9)
    assert Timeline(events=LINE.events[:2]).time_to_first_audio == pytest.approx(0.3)
    assert LINE.seconds == pytest.approx(2.0)
    assert LINE.real_time_factor == pytest.approx(0.9)


def test_cost_of_a_part() -> None:
    assert LINE.cpu_between(0.0, 0.6) == pytest.approx(0.3 / 0.6)
    assert LINE.cpu_between(1.6, 2.0) == pytest.approx(0.1 / 0.4)
    # Half of the third chunk, which took 0.8 of the processor for 1.0 of speech.
    assert LINE.cpu_between(0.6, 1.1) == pytest.approx(0.8)
    assert LINE.bytes_at(0.3) == (14, 7)


def test_sound_is_counted_in_windows() -> None:
    waveform = torch.cat([torch.zeros(960), torch.full((1000,), 0.1)])
    assert sound_seconds(waveform, 24_000) == pytest.approx(0.04)
    assert sound_seconds(waveform[:100], 24_000) == 0.0


def test_verdicts() -> None:
    verdicts = [Row("", value, "", 2.0, 1.0).verdict for value in (1.0, 1.5, 2.1)]
    assert verdicts == ["aim", "floor", "missed"]
    assert Row("", 2.0, "", 1.5, 2.5, higher_is_better=True).verdict == "floor"
    assert Row("", 2.0).verdict == ""


def test_intervals() -> None:
    assert bootstrap_interval(5, lambda indices: float(len(indices))) == (5.0, 5.0)
    low, high = bootstrap_interval(100, lambda indices: sum(i < 50 for i in indices) / 100)
    # A share of 0.5 in 100: 1.96 deviations are 0.098.
    assert 0.37 <= low <= 0.43 and 0.57 <= high <= 0.63


def tiny_configs(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, config in TINY.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "QUICK_SECONDS", 1.5)


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(command.benchmark)
    return CliRunner().invoke(app, arguments)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_random_weights_are_measured(tmp_path: Path) -> None:
    folder = tiny_configs(tmp_path)
    arguments = ["--config", str(folder), "--quick", "--output", str(tmp_path / "out")]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    names = {row["name"] for row in data["rows"]}
    assert {
        "time to first audio",
        "real-time factor",
        "real-time factor of the long session",
        "real-time factor of a whole rendering",
        "streamed over whole",
        "cost at the end over cost at the start",
        "state at the end over state at the start",
        "throughput of 4 sessions over one",
    } <= names
    assert all(row["value"] > 0 for row in data["rows"])
    table = (tmp_path / "out" / "report.md").read_text()
    assert "random weights" in table and "≤ 150" in table
    assert (tmp_path / "out" / "report.png").stat().st_size > 1000
    assert "report.md" in result.output


def test_parts_are_chosen_and_kept_as_they_are_found(tmp_path: Path) -> None:
    subject = config_subject(tiny_configs(tmp_path), 3.0)
    config = BenchmarkConfig(num_runs=1, long_seconds=1.5, parts=("factor", "shares"))
    kept: list[list[str]] = []
    told: list[str] = []
    measure(subject, config, told.append, lambda found: kept.append([r.name for r in found.rows]))
    assert told == ["real-time factor", "shares of the stages"]
    assert kept[0] == ["real-time factor"]
    assert kept[1][0] == "real-time factor" and "share of vocoder" in kept[1]
    with pytest.raises(ValueError, match="parts are cold, first"):
        BenchmarkConfig(parts=("speed",))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_bundle_is_judged(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgement, "SENTENCES", ("Is it so?", "It is."))
    out = tmp_path / "out"
    arguments = ["--bundle", str(tiny_bundle), "--quick", "--parts", "first"]
    assert run(*arguments, "--output", str(out)).exit_code == 0
    rows = {row["name"]: row for row in json.loads((out / "report.json").read_text())["rows"]}
    for mode in ("full context, one-shot", "default context, interleaved"):
        assert f"word error rate, {mode}" in rows
        note = rows[f"similarity, default context, one-shot minus {mode}"]["note"]
        assert "95 % interval" in note and "paired" in note


def test_mistakes(tmp_path: Path) -> None:
    for arguments in (
        ["--bundle", str(tmp_path / "gone"), "--quick"],
        ["--config", str(tmp_path), "--quick"],
        ["--parts", "speed"],
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and result.output.count("error: ") == 1
        assert "Traceback" not in result.output


@pytest.mark.slow
def test_cold_starts(tiny_bundle: Path) -> None:
    subject = bundle_subject(str(tiny_bundle), 5)
    found = measure(subject, BenchmarkConfig(num_runs=1, parts=("cold",)), lambda what: None)
    rows = {row.name.rpartition(": ")[2]: row for row in found.rows}
    assert {"a sentence in a file", "help", "an unknown voice", "an empty text"} <= set(rows)
    for row in found.rows[:-1]:
        assert row.value > 0 and row.unit == "s" and "of the processor" in row.note
    assert rows["a sentence in a file"].aim == 2.8 and rows["help"].floor == 0.5


def test_a_command_that_ends_otherwise_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ended with status 2, not 0: error: .* neither a folder"):
        measure_cold_starts(tmp_path / "no bundle", 1)
