from __future__ import annotations

from pathlib import Path

import pytest

from training.data.manifest import ManifestError, Utterance, write_manifest
from training.evaluation.sets import choose_items, read_recording_set


def row(speaker: str, number: int, duration: float = 2.0, text: str | None = None) -> Utterance:
    return Utterance(
        id=f"{speaker}-{number}",
        audio=Path(f"{speaker}-{number}.wav"),
        text=text or f"This is the sentence {speaker} {number}.",
        speaker=speaker,
        duration=duration,
    )


def rows(speakers: str, num: int) -> list[Utterance]:
    return [
        row(speaker, number, duration=1.0 + number) for speaker in speakers for number in range(num)
    ]


def test_sentences_are_dealt_to_the_voices_in_turn() -> None:
    chosen = choose_items("x", rows("abc", 4), num_items=7, num_voices=3, prompt_seconds=3.0)
    assert [item.original.speaker for item in chosen.items] == list("abcabca")
    assert [item.index for item in chosen.items] == list(range(7))
    # Row 2 is 3 s long: it is the prompt, and is not asked for.
    assert {name: prompt.id for name, prompt in chosen.prompts.items()} == {
        "a": "a-2",
        "b": "b-2",
        "c": "c-2",
    }
    assert [item.original.id for item in chosen.items] == [
        "a-0", "b-0", "c-0", "a-1", "b-1", "c-1", "a-3",
    ]  # fmt: skip
    assert all(item.prompt.speaker == item.original.speaker for item in chosen.items)


def test_fewer_items_are_the_first_of_more() -> None:
    recordings = rows("ab", 6)
    few = choose_items("x", recordings, num_items=3, num_voices=2, prompt_seconds=2.0)
    many = choose_items("x", recordings, num_items=8, num_voices=2, prompt_seconds=2.0)
    assert many.items[:3] == few.items


def test_a_sentence_is_asked_for_once_and_never_that_of_a_prompt() -> None:
    recordings = [
        row("a", 0, 4.0, "Prompt one."),
        row("a", 1, 1.0, "Shared words."),
        row("a", 2, 1.0, "Only here."),
        row("b", 0, 4.0, "Prompt two."),
        row("b", 1, 1.0, "shared words"),
        row("b", 2, 1.0, "Prompt one!"),
    ]
    chosen = choose_items("x", recordings, num_items=9, num_voices=2, prompt_seconds=4.0)
    assert [item.original.id for item in chosen.items] == ["a-1", "a-2"]


def test_voices_that_run_out_leave_the_others_going() -> None:
    recordings = rows("a", 2) + rows("b", 4)
    chosen = choose_items("x", recordings, num_items=9, num_voices=2, prompt_seconds=1.0)
    assert [item.original.speaker for item in chosen.items] == ["a", "b", "b", "b"]


def test_only_the_first_voices_are_used() -> None:
    chosen = choose_items("x", rows("cab", 3), num_items=4, num_voices=2, prompt_seconds=1.0)
    assert sorted(chosen.prompts) == ["a", "b"]
    assert len(chosen.recordings) == 9


def test_one_sentence_for_each_voice_is_too_little() -> None:
    with pytest.raises(ManifestError, match="at least two sentences"):
        choose_items("x", rows("abc", 1), num_items=3, num_voices=3, prompt_seconds=1.0)


def test_an_empty_manifest_and_a_missing_one_are_told(tmp_path: Path) -> None:
    write_manifest(tmp_path / "empty.jsonl", [])
    sizes = {"num_items": 3, "num_voices": 3}
    with pytest.raises(ManifestError, match="has no rows"):
        read_recording_set("x", tmp_path / "empty.jsonl", **sizes, prompt_seconds=3.0)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_recording_set("x", tmp_path / "none.jsonl", **sizes, prompt_seconds=3.0)
