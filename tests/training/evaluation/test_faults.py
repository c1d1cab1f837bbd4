"""Kinds of failure, each on what a judge would write of it."""

from __future__ import annotations

import pytest

from training.evaluation.error_rate import find_faults

TEXT = "The old man walked slowly to the river and sat down."
PROMPT = "Please leave your wet shoes by the front door."


@pytest.mark.parametrize(
    ("heard", "kinds"),
    [
        ("the old man walked slowly to the river and sat down", []),
        # Single words are the judge's: another one, one missing, one too many.
        ("the bold man walked slowly to the river and sat down", []),
        ("the old man walked to the river and sat down", []),
        ("the old man walked slowly to uh the river and sat down", []),
        ("", ["early_stop"]),
        ("the old man walked slowly to", ["early_stop"]),
        ("the old man to the river and sat down", ["skip"]),
        ("the old man walked slowly walked slowly to the river and sat down", ["repeat"]),
        ("the the old man walked slowly to the river and sat down", ["repeat"]),
        ("the old man walked slowly to the river and sat down down down", ["repeat"]),
        (
            "the old man walked slowly to the river and sat down he never came home",
            ["late_stop"],
        ),
        (
            "the old man walked by many green trees slowly to the river and sat down",
            ["insertion"],
        ),
        (
            "by the front door the old man walked slowly to the river and sat down",
            ["prompt_leak"],
        ),
        (
            "the old man walked slowly to the river and sat down please leave your wet shoes",
            ["late_stop", "prompt_leak"],
        ),
        (
            "the old man walked slowly walked slowly walked slowly to the",
            ["repeat", "early_stop"],
        ),
    ],
)
def test_kinds(heard: str, kinds: list[str]) -> None:
    assert find_faults(TEXT, heard, PROMPT) == kinds


def test_words_that_text_and_prompt_share_are_no_leak() -> None:
    text = "He came in by the front door."
    assert find_faults(text, "he came in by the front door", PROMPT) == []


def test_repetition_that_was_asked_for_is_none() -> None:
    text = "No, no, no, no, he said."
    assert find_faults(text, "no no no no he said") == []
    assert find_faults(text, "no no no no no no no he said") == ["repeat"]
    assert find_faults(text, "no no he said") == ["skip"]
