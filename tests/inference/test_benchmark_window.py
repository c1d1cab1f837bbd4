"""What a bounded window changes is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from script_module import load_script

from inference.benchmark.subject import config_subject
from tests.distributed.toy import toy_model

WINDOW = load_script("benchmark_window")
Deviation, main, measure_window, table = (
    WINDOW.Deviation, WINDOW.main, WINDOW.measure_window, WINDOW.table,
)  # fmt: skip

CONFIGS = {
    "speech_lm": toy_model("speech_lm", backbone={"vocab_size": 4096}, codebook_size=27),
    "flow": toy_model("flow.cosyvoice", codebook_size=27, chunk_tokens=10),
    "hift": toy_model("hift"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, config in CONFIGS.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_a_smaller_window_is_further_off(folder: Path) -> None:
    subject = config_subject(folder, 2.4)
    none, some, everything = measure_window(subject, 60, (0, 20, 200))
    # What holds the whole past changes nothing but what the prompt sees of itself.
    assert none.mean_db > some.mean_db > 0
    assert none.last_second_db > 0
    assert (none.cached_share, everything.cached_share) == (125 / 185, 1.0)
    assert some.cached_share == 145 / 185
    with pytest.raises(ValueError, match="left_frames must not be negative"):
        measure_window(subject, 60, (-1,))


def test_the_command_prints_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(folder), "--seconds", "1", "--left", "5", "--left", "10"]) == 0
    printed = capsys.readouterr().out
    assert "random weights, 1 s" in printed
    assert [line.split()[1] for line in printed.splitlines()[-2:]] == ["5", "10"]
    assert main(["--config", str(folder / "none")]) == 2
    assert "error:" in capsys.readouterr().err


def test_table_by_hand() -> None:
    assert table([Deviation(25, 0.5, 0.25, 0.755)]).endswith("| 25 | 0.500 | 0.250 | 76% |")
