"""Text in pieces gives the words of the whole text, however it is cut."""

from __future__ import annotations

import random
from pathlib import Path

from tokenlm.text.incremental import HELD_WORDS, PARAGRAPH, IncrementalNormalizer
from tokenlm.text.normalize import normalize_paragraphs

PAIRS = Path(__file__).parent / "normalize_pairs.tsv"


def fed(pieces: list[str]) -> list[str]:
    normalizer = IncrementalNormalizer()
    words = [word for piece in pieces for word in normalizer.feed(piece)]
    return words + normalizer.finish()


def whole(text: str) -> list[str]:
    words: list[str] = []
    for paragraph in normalize_paragraphs(text):
        words += [PARAGRAPH, *paragraph.split()] if words else paragraph.split()
    return words


def written() -> list[str]:
    lines = PAIRS.read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[0] for line in lines if "\t" in line and not line.startswith("#")]


def test_every_known_text() -> None:
    texts = written()
    assert len(texts) > 300
    for text in texts[::2]:
        assert fed([text]) == whole(text), text


def test_texts_in_a_row_and_any_cut() -> None:
    draw = random.Random(3)
    texts = written()
    for _ in range(12):
        ends = ["", ".", " ", "\n", ".\n\n", "\r\n\r\n"]
        text = " ".join(draw.choice(texts) + draw.choice(ends) for _ in range(5))
        expected = whole(text)
        cuts = sorted(draw.randrange(len(text) + 1) for _ in range(9))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert fed([text]) == fed(pieces) == fed(list(text)) == expected


def test_only_what_may_change_is_held() -> None:
    """A word comes out when four more have been written; a paragraph at once."""
    normalizer = IncrementalNormalizer()
    given = [normalizer.feed(f"{word} ") for word in "one two three four five six".split()]
    assert HELD_WORDS == 4
    assert given == [[], [], [], [], ["one"], ["two"]]
    assert normalizer.feed("\n\nseven ") == ["three", "four", "five", "six"]
    assert normalizer.finish() == [PARAGRAPH, "seven"]


def test_numbers_wait_for_what_belongs_to_them() -> None:
    normalizer = IncrementalNormalizer()
    early = normalizer.feed("It costs $3.50 and the meeting is on May 5, ")
    late = normalizer.feed("2024 at ten. ") + normalizer.finish()
    assert " ".join(early + late) == " ".join(
        whole("It costs $3.50 and the meeting is on May 5, 2024 at ten.")
    )
    assert "may" not in early


def test_open_brackets_are_waited_for() -> None:
    text = "Please [click here to see all of it now](https://example.com/a) today."
    assert fed(list(text)) == whole(text)


def test_long_paragraphs_stay_cheap() -> None:
    normalizer = IncrementalNormalizer()
    sentence = "the quick brown fox jumps over the lazy dog near the river bank. "
    words = [word for _ in range(40) for word in normalizer.feed(sentence)]
    assert len(normalizer._text) < 600
    assert words + normalizer.finish() == whole(sentence * 40)


def test_nothing() -> None:
    assert fed([]) == fed(["", " \n\n ", "🙂"]) == []


def test_a_paragraph_that_is_ended_waits_for_nothing() -> None:
    normalizer = IncrementalNormalizer()
    assert normalizer.feed("I saw Dr. Lee.\u2029") == ["i", "saw", "doctor", "lee.", PARAGRAPH]
    assert normalizer.feed(" \u2029And he saw me.") == [PARAGRAPH]
    assert normalizer.finish() == ["and", "he", "saw", "me."]
    assert IncrementalNormalizer().feed("\u2029\u2029") == [PARAGRAPH, PARAGRAPH]
