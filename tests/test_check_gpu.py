"""scripts/check_gpu, rehearsed on the CPU."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from script_module import load_script
from torch import nn

from inference.benchmark.measurements import Row
from tokenlm.config import to_dict


@pytest.fixture
def model_folder(tmp_path: Path, tiny_models: dict[str, nn.Module]) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("speech_lm", "flow", "vocoder"):
        text = yaml.safe_dump(to_dict(tiny_models[name].config))
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_the_longest_wait_of_a_player() -> None:
    longest_wait = load_script("check_gpu").longest_wait
    steady = [(0.1, 1.0), (0.5, 1.0), (1.0, 1.0)]
    assert longest_wait(steady) == 0.0
    # Played out at 2.1 s; the last chunk comes half a second later.
    assert longest_wait([(0.1, 1.0), (0.5, 1.0), (2.6, 1.0), (2.7, 1.0)]) == pytest.approx(0.5)
    # Too little to begin with: a player waits before it plays, which is no underrun.
    assert longest_wait([(0.1, 0.001), (3.0, 1.0)]) == 0.0


def test_what_is_no_number_passes_no_bound() -> None:
    script = load_script("check_gpu")
    assert script.largest([0.001, math.nan, 0.002]) == math.inf
    assert script.bounded("x", script.largest([0.0, math.nan]), 0.1).verdict == "missed"


def test_mistakes_are_told_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main = load_script("check_gpu").main
    for words, sentence in (
        (["speed", "--device", "cpu"], "there is no part 'speed'; there are parity, stages"),
        (["--device", "cpu", "--streams", "1,many"], "--streams must be numbers"),
        (["--device", "cuda"], "torch sees no GPU here"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert sentence in capsys.readouterr().err


def test_a_part_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script("check_gpu")

    def good(options: object) -> list[Row]:
        return [script.bounded("fine", 1.0, 2.0)]

    def bad(options: object) -> list[Row]:
        raise RuntimeError("no more memory\nwith a long tail")

    def mute(options: object) -> list[Row]:
        raise AssertionError

    def slow(options: object) -> list[Row]:
        return [script.bounded("late", 3.0, 2.0, "s")]

    monkeypatch.setattr(script, "PARTS", {"good": good, "bad": bad, "slow": slow})
    words = ["--device", "cpu", "--output", str(tmp_path)]
    assert script.main(["good", *words]) == 0
    assert script.main(["slow", *words]) == 1
    assert script.main(["bad", "good", *words]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["fine"]
    assert "bad: failed: RuntimeError: no more memory" in report["notes"]
    assert "| good | fine | 1 | ≤ 2 | yes |" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(script, "PARTS", {"good": good, "mute": mute})
    assert script.main(["mute", "good", *words]) == 1
    notes = json.loads((tmp_path / "report.json").read_text())["notes"]
    assert "mute: failed: AssertionError: no message" in notes
    assert script.main([*words, "--minutes", "0"]) == 1
    assert (
        "good: not run, 0 minutes were over"
        in json.loads((tmp_path / "report.json").read_text())["notes"]
    )


@pytest.mark.slow
def test_the_parts_run(
    tiny_bundle: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["parity", "audio", "streams", "--device", "cpu", "--bundle", str(tiny_bundle),
             "--model", str(model_folder), "--streams", "1,3", "--seconds", "1",
             "--output", str(tmp_path / "out")]  # fmt: skip
    assert load_script("check_gpu").main(words) == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    values = {row["name"]: row["value"] for row in rows}
    assert values["mel of the flow, float32"] == 0.0
    assert 0.0 < values["logits of the language model, bfloat16"] < 0.1
    assert values["throughput, 3 streams"] > 0.0
    assert values["audio_ttfp, 1 stream, median"] > 0.0
