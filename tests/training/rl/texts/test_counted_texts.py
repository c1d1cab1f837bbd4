"""Counts, letters, short answers and the like, as engines are to say them for training."""

from __future__ import annotations

import re
from random import Random

import pytest

from training.data.exclusion import Exclusion, evaluation_exclusion, spoken_key
from training.rl.texts import counted_texts
from training.rl.texts.counted_texts import DAYS, KINDS, LETTERS, MONTHS, draw
from training.rl.texts.spoken_numbers import cardinal


def drawn(kind: str, count: int = 300) -> list[str]:
    rng = Random(kind)
    return [KINDS[kind](rng) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_speakable_varied_and_a_function_of_the_generator(kind: str) -> None:
    texts = drawn(kind)
    assert texts == drawn(kind)
    assert len(set(texts)) > 120, kind
    for text in texts:
        assert re.fullmatch(r"[A-Za-z' ,.;:!?\"-]+", text), text
        assert spoken_key(text) and "{" not in text and "  " not in text, text
        assert len(text.split()) <= 60, text


def test_counts_go_on_without_a_gap() -> None:
    spoken = [cardinal(number) for number in range(0, 120)]
    for kind, step in (("count_up", 1), ("count_down", -1)):
        found = 0
        for text in drawn(kind):
            items = [item.strip(" .;!") for item in re.split(r"[,;.]+ ?", text.lower())]
            numbers = [spoken.index(item) for item in items if item in spoken]
            found += len(numbers) > 2 and numbers[1] - numbers[0] == step
            if len(numbers) > 3:
                steps = {b - a for a, b in zip(numbers[:-1], numbers[1:-1], strict=False)}
                assert len(steps) == 1 and steps.pop() * step > 0, text
        assert found > 60, kind


def test_series_are_those_of_the_calendar_and_letters_those_of_the_alphabet() -> None:
    for kind, names in (("months", MONTHS), ("weekdays", DAYS)):
        lengths = [sum(name in text for name in names) for text in drawn(kind)]
        assert min(lengths) >= 2 and max(lengths) == len(names)
    singles = [re.findall(r"\b[A-Z]\b", text) for text in drawn("letters")]
    assert min(map(len, singles)) >= 2
    assert {letter for found in singles for letter in found} == set(LETTERS)


def test_digits_come_in_numbers_of_several_lengths() -> None:
    digit = re.compile(r"\b(?:zero|oh|one|two|three|four|five|six|seven|eight|nine)\b", re.I)
    lengths = [len(digit.findall(text)) for text in drawn("digits")]
    assert min(lengths) >= 4 and len(set(lengths)) > 6
    assert any("double" in text for text in drawn("digits"))


def test_short_kinds_are_short_and_run_on_has_no_marks() -> None:
    assert {len(text.split()) for text in drawn("short")} == {1, 2, 3}
    assert not any(set(text) & set(',.;:!?"') for text in drawn("run_on"))
    answers = [re.findall(r'" "([^"]+)"', text) for text in drawn("quoted_answer")]
    words = [len(answer.split()) for found in answers for answer in found]
    assert len(words) > 150 and max(words) <= 5 and sum(length == 1 for length in words) > 100


def test_draws_take_kinds_by_weight_and_never_what_is_excluded() -> None:
    only = {name: 0.0 for name in KINDS} | {"months": 1.0}
    rng = Random(1)
    assert all(re.search("|".join(MONTHS), draw(rng, only)) for _ in range(50))
    with pytest.raises(ValueError, match="no kind of text 'count'"):
        draw(rng, {"count": 1.0})
    exclusion = evaluation_exclusion()
    plain = [draw(rng) for _ in range(4000)]
    assert any(exclusion.excludes(text) for text in plain)
    kept = [draw(rng, exclusion=exclusion) for _ in range(4000)]
    assert not any(exclusion.excludes(text) for text in kept)
    # What is asked for in the sets is what is taught: in other words.
    assert any("six, seven, eight, nine" in text.lower() for text in kept)


def test_nothing_left_to_draw_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted_texts, "KINDS", {"short": lambda rng: "Yes."})
    with pytest.raises(ValueError, match="1000 counted texts in a row are excluded"):
        draw(Random(0), exclusion=Exclusion(["yes"]))
