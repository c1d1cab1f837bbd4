"""Model cards: readable by the hub, every figure with its command."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from tokenlm.checkpoint import BundleManifest, Metric, write_model_card
from tokenlm.config import load_config
from training.bundle import BundleConfig, note_choices

MANIFEST = BundleManifest(
    name="tiny",
    description="A small English voice.",
    language="en",
    licence="Apache-2.0",
    sample_rate=24000,
    components={"flow": "flow_decoder"},
    generation={"num_steps": 4},
    provenance={"data": "synthetic speech", "commands": ["make it", "train it"], "n": {"a": 1}},
)


def test_card(tmp_path: Path) -> None:
    metrics = {
        "word_error_rate": Metric(
            value=0.12345, command="tokenlm evaluate | tee", note="100 texts"
        ),
        "real_time_factor": {"value": 2, "unit": "x", "command": "tokenlm bench"},
    }
    path = write_model_card(tmp_path, MANIFEST, metrics, limits=["It speaks English only."])
    text = path.read_text()
    assert path.name == "README.md"
    _, header, body = text.split("---\n", 2)
    facts = yaml.safe_load(header)
    assert facts["license"] == "apache-2.0" and facts["language"] == "en"
    for part in (
        "# tiny",
        "A small English voice.",
        "24,000 Hz",
        "`num_steps` = 4",
        "| `flow` | `flow_decoder` |",
        "| figure | value |  |\n",
        "| word_error_rate | 0.123 | 100 texts |",
        "| real_time_factor | 2 x |  |",
        "Measured by\n\n- word_error_rate: `tokenlm evaluate \\| tee`\n"
        "- real_time_factor: `tokenlm bench`",
        "- It speaks English only.",
        "- data: synthetic speech",
        "- commands:\n  - make it\n  - train it",
        "  - a: 1",
        "under Apache-2.0",
    ):
        assert part in body


def test_a_person_can_read_the_table_of_figures(tmp_path: Path) -> None:
    chosen, command = "chosen on these sentences", "tokenlm evaluate --sections cloned,originals"
    similarity = Metric(value=0.8766, command=command, original=0.91, remarks=(chosen,))
    metrics = {
        "heldout/cloned/word_error_rate": Metric(
            value=5.0, unit="%", low=2.5, high=7.51, original=0.5, num_items=252, command=command,
            note="of words", remarks=(chosen, "by ears"),
        ),
        "heldout/cloned/speaker_similarity": similarity,
        "heldout/tokenizer/codebook_perplexity": Metric(value=1234.5, command=command),
    }  # fmt: skip
    text = write_model_card(tmp_path, MANIFEST, metrics).read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| figure | value | 95 % interval | recordings | n |  |" in rows
    for row in (
        "| heldout/cloned/word_error_rate | 5 % | 2.5 to 7.51 | 0.5 % | 252 | of words [1] [2] |",
        "| heldout/cloned/speaker_similarity | 0.877 |  | 0.91 |  | [1] |",
        "| heldout/tokenizer/codebook_perplexity | 1,234 |  |  |  |  |",
    ):
        assert row in rows
    # What is said of many figures, and the command, are said once.
    assert text.count(chosen) == text.count(command) == 1
    assert f"[1] {chosen}\n\n[2] by ears\n\nMeasured by `{command}`." in text


def test_card_without_figures_says_so(tmp_path: Path) -> None:
    bare = BundleManifest(name="a", description="b", language="en", licence="MIT", sample_rate=1)
    text = write_model_card(tmp_path, bare, {}).read_text()
    assert "Nothing has been measured." in text
    assert "## Components" not in text
    assert "## Limits" not in text


@pytest.mark.parametrize(
    "metric",
    [
        {"value": 0.1},
        {"value": 0.1, "command": " "},
        {"value": float("nan"), "command": "x"},
        {"value": 0.1, "command": "x", "colour": "red"},
    ],
)
def test_figure_without_a_command_is_refused(tmp_path: Path, metric: dict) -> None:
    with pytest.raises(ValueError, match="The figure wer of a model card"):
        write_model_card(tmp_path, MANIFEST, {"wer": metric})
    assert list(tmp_path.iterdir()) == []


def test_rows_say_what_was_chosen_on_what_they_were_measured_on() -> None:
    metrics = {
        "unheard/cloned/similarity": Metric(value=1.0, command="c", note="100 utterances"),
        "heldout/cloned/similarity": Metric(value=1.0, command="c"),
        "heldout/tokenizer/errors": Metric(value=1.0, command="c", note="of all"),
    }
    told = note_choices(metrics, {"*/cloned/*": "not unseen", "unheard/*": "by ears"})
    assert [metric.note for metric in told.values()] == ["100 utterances", "", "of all"]
    remarks = [metric.remarks for metric in told.values()]
    assert remarks == [("not unseen", "by ears"), ("not unseen",), ()]
    assert [metric.value for metric in told.values()] == [1.0] * 3


def test_the_card_of_the_embedded_bundle_says_it() -> None:
    root = Path(__file__).parents[2]
    config = load_config(BundleConfig, root / "configs" / "bundle" / "mini_en.yaml")
    card = (root / "checkpoints" / config.name / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z]+/\S+) \| \S+ \| (.*) \| `.*` \|$", card, re.MULTILINE)
    assert len(rows) > 80 and config.chosen_on
    for name, note in rows:
        told = [t for pattern, t in config.chosen_on.items() if fnmatchcase(name, pattern)]
        assert all(text in note for text in told), name
        assert bool(told) == ("not unseen" in note), name
    cloned = [note for name, note in rows if name.startswith("unheard/cloned/")]
    assert len(cloned) == 6 and all("awb included" in note for note in cloned)
    assert all(limit in card for limit in config.limits)
