"""Descriptions of voices as attributes."""

from __future__ import annotations

import pytest

from tokenlm.synthesis.voice_space import (
    ATTRIBUTES,
    DESCRIPTIVE_WORDS,
    DescriptionError,
    read_description,
)


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("a calm older man", {"liveliness": -1.4, "age": 1.5, "sex": -1.0}),
        ("A young woman with a bright, lively voice.",
         {"age": -1.3, "sex": 1.0, "brightness": 1.4, "liveliness": 1.4}),
        ("very deep", {"pitch": -2.25}),
        ("slightly high-pitched", {"pitch": 0.75}),
        ("a bit low", {"pitch": -0.75}),
        ("not calm", {"liveliness": 1.12}),
        ("a middle-aged, warm-sounding baritone", {"age": 0.6, "brightness": -1.4, "pitch": -1.5}),
        ("an elderly lady, a grandmother", {"age": 2.0, "sex": 1.0}),
    ],
)  # fmt: skip
def test_words_move_attributes(text: str, attributes: dict[str, float]) -> None:
    assert read_description(text).attributes == pytest.approx(attributes)


def test_what_is_not_understood_is_named() -> None:
    told = read_description("a very purple man of Mars")
    assert told.ignored == ["purple", "mars"] and told.attributes == {"sex": -1.0}
    for text in ("purple", "", "very"):
        with pytest.raises(DescriptionError, match="nothing of the description"):
            read_description(text)


def test_every_word_moves_what_there_is() -> None:
    assert {name for moves in DESCRIPTIVE_WORDS.values() for name in moves} == set(ATTRIBUTES)
