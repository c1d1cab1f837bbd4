"""Test sets of texts: ours, and the lists of seed-tts-eval."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from training.evaluation.error_rate import spoken_words
from training.evaluation.sets import Line, TextSetError, read_text_set
from training.evaluation.snapshot import read_snapshot

CONFIGS = Path(__file__).parents[3] / "configs" / "eval"
CATEGORIES = {
    "one_word",
    "long",
    "repetition",
    "tongue_twister",
    "numbers_letters",
    "rare_foreign",
    "list",
    "no_punctuation",
    "punctuation",
    "long_prompt",
}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_the_hard_set_is_large_and_of_every_kind() -> None:
    texts = read_text_set(CONFIGS / "hard.jsonl")
    counts = Counter(line.category for line in texts.lines)
    assert set(counts) == CATEGORIES and min(counts.values()) >= 30
    assert len(texts.lines) >= 330
    for line in texts.lines:
        words = line.spoken.split()
        if line.category == "one_word":
            assert len(words) == 1
        if line.category == "long":
            assert len(words) >= 60
        if line.category == "no_punctuation":
            assert line.text.lower() == line.text and not set(line.text) & set(".,;:!?")
        if line.category == "repetition":
            assert max(Counter(words).values()) >= 3
        if line.category == "long_prompt":
            assert len(words) <= 5


@pytest.mark.parametrize("name", ["plain", "hard"])
def test_spoken_forms_are_words_and_what_the_system_is_meant_to_say(name: str) -> None:
    texts = read_text_set(CONFIGS / f"{name}.jsonl")
    assert len({line.text for line in texts.lines}) == len(texts.lines)
    for line in texts.lines:
        assert line.spoken == spoken_words(line.spoken)
        # Written apart from the normaliser, and the same words.
        assert spoken_words(line.text) == line.spoken, line.id


@pytest.mark.parametrize("name", ["plain", "hard"])
def test_a_shipped_snapshot_is_of_its_texts_and_leaves_enough(name: str) -> None:
    texts = read_text_set(CONFIGS / f"{name}.jsonl")
    assert len(texts.lines) >= 330
    snapshot = read_snapshot(texts)  # raises where it was made of other texts
    if snapshot is not None:
        assert snapshot.judge.startswith("pocketsphinx ")
        assert snapshot.readings.keys() == {line.id for line in texts.lines}
        assert snapshot.num_remaining >= 300


def test_lines_of_seed_tts_eval(tmp_path: Path) -> None:
    path = tmp_path / "meta.lst"
    path.write_text("a-1|Who is there?|prompts/a.wav|It's me.\nb-2|x|p/b.wav|Go!|wavs/b.wav\n\n")
    texts = read_text_set(path)
    assert texts.name == "meta"
    assert texts.lines[0] == Line(
        id="a-1",
        text="It's me.",
        spoken="it's me",
        prompt_text="Who is there?",
        prompt_audio=tmp_path / "prompts/a.wav",
    )
    assert texts.lines[1].reference_audio == tmp_path / "wavs/b.wav"


def test_the_spoken_form_is_that_of_the_file_or_of_the_normaliser(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        {"id": "a", "text": "5 km", "spoken": "Five K M"},
        {"id": "b", "text": "5 cats", "category": "n", "prompt_audio": "p.wav"},
    )
    lines = read_text_set(path).lines
    assert [line.spoken for line in lines] == ["five k m", "five cats"]
    assert lines[1].prompt_audio == tmp_path / "p.wav" and lines[1].category == "n"


def test_the_digest_is_that_of_texts_and_spoken_forms(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "Go."}, {"id": "b", "text": "Stop."}]
    first = read_text_set(write(tmp_path / "x.jsonl", *rows)).digest
    assert read_text_set(write(tmp_path / "y.jsonl", *rows)).digest == first
    assert read_text_set(write(tmp_path / "y.jsonl", *rows[::-1])).digest != first
    rows[1]["spoken"] = "halt"
    assert read_text_set(write(tmp_path / "y.jsonl", *rows)).digest != first


def test_bad_lines_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [
        '{"id": "a", "text": "Go."}',
        "{",
        "[]",
        '{"id": "b"}',
        '{"id": "c", "text": "..."}',
        '{"id": "a", "text": "Stop."}',
        '{"id": "d", "text": "Stop.", "txt": "x"}',
        '{"id": "e", "text": 5}',
    ]
    path.write_text("\n".join(rows))
    with pytest.raises(TextSetError) as caught:
        read_text_set(path)
    told = str(caught.value)
    for part in (
        "7 bad lines",
        "line 2: not JSON",
        "line 3: not a JSON object",
        "line 4: 'text' is missing",
        "line 5: the text '...' holds no words",
        "line 6: the id 'a' is there twice",
        "line 7: unknown key 'txt'; valid: category",
        "line 8: 'text' is not a string",
    ):
        assert part in told
    (tmp_path / "meta.lst").write_text("a|b|c\na||c.wav|\n")
    with pytest.raises(TextSetError, match="line 1: 3 columns .* line 2: an empty column"):
        read_text_set(tmp_path / "meta.lst")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(TextSetError, match="no lines"):
        read_text_set(tmp_path / "empty.jsonl")
    with pytest.raises(TextSetError, match="cannot be read"):
        read_text_set(tmp_path / "nothing.jsonl")
