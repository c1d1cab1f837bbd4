from __future__ import annotations

import json
import math
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from training.evaluation.report import card_metrics, print_table, write_report
from training.evaluation.statistics import Figure, mean_figure, ratio_figure


def figure(section: str, value: float, **more: object) -> Figure:
    facts = {"group": "heldout", "name": "word_error_rate", "num_items": 4, **more}
    return Figure(section=section, value=value, **facts)  # type: ignore[arg-type]


def test_figures_have_their_value_and_interval() -> None:
    found = ratio_figure("cloned", "heldout", "word_error_rate", [1.0, 2.0], [10.0, 10.0])
    assert found.value == pytest.approx(0.15)
    assert found.low is not None and found.high is not None
    assert 0.1 <= found.low <= 0.15 <= found.high <= 0.2
    assert found.key == "heldout/cloned/word_error_rate"
    assert mean_figure("cloned", "heldout", "nearest", [1.0, 0.0]).value == 0.5
    assert math.isnan(ratio_figure("cloned", "heldout", "over", [1.0], [0.0]).value)


def test_the_report_says_how_to_measure_again(tmp_path: Path) -> None:
    rows = [{"section": "cloned", "group": "heldout", "heard": "naïve"}]
    path = write_report(
        tmp_path / "report",
        [figure("cloned", 0.25, low=0.1, high=0.4, original=0.05, note="all words")],
        rows,
        commands={"cloned": "tokenlm evaluate --sections cloned"},
        facts={"config": {"seed": 0}},
    )
    report = json.loads(path.read_text())
    assert report["config"] == {"seed": 0}
    assert report["figures"][0]["command"] == "tokenlm evaluate --sections cloned"
    assert (report["figures"][0]["value"], report["figures"][0]["low"]) == (0.25, 0.1)
    assert json.loads((path.parent / "utterances.jsonl").read_text()) == rows[0]
    metric = card_metrics(path)["heldout/cloned/word_error_rate"]
    assert metric.command == "tokenlm evaluate --sections cloned" and metric.note == "all words"
    assert (metric.value, metric.low, metric.high, metric.original) == (25.0, 10.0, 40.0, 5.0)
    assert metric.unit == "%" and metric.num_items == 4


def test_commands_of_the_card_that_differ_by_their_section_are_one(tmp_path: Path) -> None:
    commands = {
        "cloned": "tokenlm evaluate --bundle b --sections cloned",
        "formants": "tokenlm evaluate --bundle b --sections formants",
        "script": "tokenlm evaluate --bundle b --set hard",
    }
    figures = [figure(name, 0.5) for name in commands]
    figures.append(figure("cloned", 0.5, name="speaker_similarity"))
    path = write_report(tmp_path, figures, [], commands=commands, facts={})
    found = card_metrics(path)
    both = "tokenlm evaluate --bundle b --sections cloned,formants"
    assert [metric.command for metric in found.values()] == [both, both, commands["script"], both]
    assert [metric.unit for metric in found.values()] == ["%", "%", "%", ""]


def test_another_section_is_added_and_the_same_one_replaced(tmp_path: Path) -> None:
    def write(section: str, value: float) -> Path:
        rows = [{"section": section, "group": "heldout", "value": value}]
        commands = {section: "x"}
        return write_report(tmp_path, [figure(section, value)], rows, commands=commands, facts={})

    write("cloned", 1.0)
    write("resynthesis", 2.0)
    path = write("cloned", 3.0)
    figures = json.loads(path.read_text())["figures"]
    assert [(row["section"], row["value"]) for row in figures] == [
        ("resynthesis", 2.0),
        ("cloned", 3.0),
    ]
    lines = (tmp_path / "utterances.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in lines] == [2.0, 3.0]


def test_what_is_not_a_number_is_null_and_no_figure_of_the_card(tmp_path: Path) -> None:
    path = write_report(
        tmp_path, [figure("cloned", float("nan"))], [], commands={"cloned": "x"}, facts={}
    )
    assert json.loads(path.read_text())["figures"][0]["value"] is None
    assert card_metrics(path) == {}


def test_another_file_in_the_place_of_the_report_is_told(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a report"):
        card_metrics(tmp_path / "metrics.json")


def test_the_table_shows_rates_in_percent_and_intervals() -> None:
    console = Console(file=StringIO(), width=160)
    figures = [
        figure("cloned", 0.25, low=0.1, high=0.4, original=0.0321),
        figure("cloned", 0.8123, name="speaker_similarity"),
        figure("script", 14.25, name="speaking_rate"),
        figure("resynthesis", float("nan"), name="word_errors_over_original"),
    ]
    print_table(figures, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "25.0 %" in shown and "10.0 % – 40.0 %" in shown and "3.2 %" in shown
    assert "0.812" in shown and "nan" not in shown
    assert "14.250" in shown and "1425" not in shown
