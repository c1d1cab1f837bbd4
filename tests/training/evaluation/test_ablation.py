"""The ablation of the guards: what is on in each row, and the numbers of the table."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from script_module import load_script

from tokenlm.models.lm import NO_GUARDS, GuardConfig, SamplingConfig
from tokenlm.synthesis.components import GenerationConfig
from training.evaluation.judges import WordJudge

ABLATE = load_script("ablate_guards")
ablation_rows, print_ablation, variants = (
    ABLATE.ablation_rows, ABLATE.print_ablation, ABLATE.variants,
)  # fmt: skip


def test_each_guard_is_on_alone() -> None:
    given = GenerationConfig(
        sampling=SamplingConfig(temperature=0.7, repetition_window=0),
        guards=GuardConfig(silent_tokens=(3,), max_attempts=4, loop_tokens=30),
    )
    found = variants(given)
    assert list(found) == [
        "none",
        "repetition_aware",
        "length_bounds",
        "loop_detector",
        "guidance",
        "retry",
        "best_of",
        "silent_cap",
        "all",
    ]
    plain = found["none"]
    assert plain.sampling == given.sampling
    assert plain.guards.max_silent_tokens == 0 and not plain.guards.needs_recognizer
    for name, generation in found.items():
        assert name == "none" or generation != plain
    assert found["loop_detector"].guards.loop_tokens == 30
    assert found["retry"].guards.max_attempts == 4
    everything = found["all"]
    assert everything.sampling.repetition_window == 10
    assert everything.guards.length_bounds and everything.guards.max_silent_tokens == 25
    assert everything.guards.num_candidates == 2 and everything.guards.guidance_scale == 0.5
    assert everything.guards.max_read_error == given.guards.max_read_error
    # Without codes of silence there is nothing to cap.
    assert "silent_cap" not in variants(GenerationConfig())
    assert variants(GenerationConfig())["none"].guards == NO_GUARDS


def rows(failed: list[bool], seconds: float) -> list[dict[str, Any]]:
    return [
        {
            "item": str(n),
            "prompt": "ann",
            "catastrophic": lost,
            "errors": lost,
            "words": 2,
            "work_seconds": seconds,
        }
        for n, lost in enumerate(failed)
    ]


def test_the_table_by_hand() -> None:
    judged = {"none": rows([True] * 8, 1.0), "retry": rows([True] * 2 + [False] * 6, 1.5)}
    table = ablation_rows(judged)
    assert table[0]["catastrophic_failure_rate"] == 1.0 and "cost" not in table[0]
    assert table[1]["catastrophic_failure_rate"] == 0.25
    assert table[1]["word_error_rate"] == 2 / 16
    assert table[1]["cost"] == 1.5
    assert table[1]["beside_none"]["difference"] == -0.75
    # Six signs that all agree: 2 of 64 patterns.
    assert table[1]["beside_none"]["p_value"] == 2 / 64
    console = Console(file=StringIO(), width=160)
    print_ablation("hard", table, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "25.0 %" in shown and "+75.0" in shown and "1.50 ×" in shown and "8 s" in shown


def test_the_cost_is_processor_time_where_it_is_known() -> None:
    judged = {"none": rows([True] * 4, 9.0), "retry": rows([False] * 4, 1.0)}
    for name, seconds in (("none", 0.5), ("retry", 1.0)):
        for row in judged[name]:
            row["processor_seconds"] = seconds
    table = ablation_rows(judged)
    assert table[1]["cost"] == 2.0 and "work_seconds" not in table[0]
    console = Console(file=StringIO(), width=160)
    print_ablation("hard", table, console)
    assert "2 s of a core" in console.file.getvalue()  # type: ignore[attr-defined]
    del judged["retry"][0]["processor_seconds"]
    assert ablation_rows(judged)[1]["cost"] == 1.0 / 9.0


@pytest.mark.slow
def test_guards_of_a_bundle_are_judged(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "a", "text": "Is it so?"}\n{"id": "b", "text": "Yes."}\n')
    options = ["--bundle", str(tiny_bundle), "--set", str(path), "--output", str(tmp_path / "out")]
    monkeypatch.setattr("tokenlm.models.lm.decoding.MAX_TOKENS", 40)
    judges = {
        "word_judge": WordJudge(transcribe=lambda pcm: "is it so"),
        "voice_judge": lambda samples: np.array([1.0, 0.0]),
    }
    assert ABLATE.main([*options, "--memory", str(tmp_path / "memory.jsonl")], **judges) == 0
    written = json.loads((tmp_path / "out/ablation.json").read_text())
    assert written["command"].startswith("scripts/ablate_guards --bundle ")
    assert [row["guard"] for row in written["mine"]] == list(variants(GenerationConfig()))
    assert all(row["num_items"] == 2 for row in written["mine"])
    assert ABLATE.main(["--bundle", str(tiny_bundle), "--set", "sealed"], **judges) == 2
    assert "is sealed" in capsys.readouterr().err
