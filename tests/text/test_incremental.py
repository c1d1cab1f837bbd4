"""Text in pieces gives the words of the whole text, however it is cut."""

from __future__ import annotations

import random
import re
import textwrap
from pathlib import Path

import pytest

from tokenlm.text import normalize as normalize_module
from tokenlm.text.normalize import (
    LOOKAHEAD_WORDS,
    IncrementalNormalizer,
    frontend,
    normalize_paragraphs,
)
from tokenlm.text.segmentation import PARAGRAPH

TABLES = [Path(__file__).parent / f"normalize_{name}.tsv" for name in ("pairs", "kinds")]
LAYOUTS = Path(__file__).parent / "layout_pairs.tsv"


def fed(pieces: list[str]) -> list[str]:
    normalizer = IncrementalNormalizer()
    words = [word for piece in pieces for word in normalizer.feed(piece)]
    return words + normalizer.finish()


whole = frontend("english").words


def laid_out() -> list[str]:
    """Lists, headings, tables, verse, wrapped prose."""
    lines = LAYOUTS.read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t")[0] for line in lines if "\t" in line and not line.startswith("#")]
    return [re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), t) for t in texts]


def written() -> list[str]:
    lines = [line for table in TABLES for line in table.read_text("utf-8").splitlines()]
    return [line.split("\t")[0] for line in lines if "\t" in line and not line.startswith("#")]


def test_every_known_text() -> None:
    texts = written()
    assert len(texts) > 700
    for text in texts[::2]:
        assert fed([text]) == whole(text), text


def test_every_kind_amid_a_sentence() -> None:
    """What stands before and behind an expression may not settle it too early."""
    texts = written()[-520::5]
    assert len(texts) > 100
    for text in texts:
        amid = f"We know that {text} It was so. He left at last in the end."
        assert fed([amid]) == whole(amid), text
        followed = f"{text} Anna came by 3 of them."
        assert fed([followed]) == whole(followed), text


def test_every_layout() -> None:
    texts = laid_out()
    assert len(texts) > 90
    for text in texts:
        assert fed([text]) == whole(text), text


def test_layouts_in_a_row_and_any_cut() -> None:
    """Long enough that what has been said is forgotten, in the middle of lines."""
    draw = random.Random(5)
    texts = laid_out()
    words = "we saw Mary and her brother walk to London with Dr. Brown while it rained".split()

    def sentence() -> str:
        said = " ".join(draw.choice(words) for _ in range(draw.randrange(3, 14)))
        return said[0].upper() + said[1:] + draw.choice(".?!")

    for number in range(8):
        parts = []
        for _ in range(5):
            prose = draw.choice(["", "", "- ", "1. ", "> ", "# "])
            prose += " ".join(sentence() for _ in range(draw.randrange(1, 12)))
            parts += [textwrap.fill(prose, draw.choice([40, 66, 76, 2000])), draw.choice(texts)]
        text = "".join(part + draw.choice(["\n", "\n", "\r\n", "\n\n"]) for part in parts)
        expected = whole(text)
        cuts = sorted(draw.randrange(len(text) + 1) for _ in range(9))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert fed([text]) == expected, text
        if number == 0:
            assert fed(pieces) == fed(list(text)) == expected


def test_only_what_may_change_is_held() -> None:
    """A word comes out when four more have been written; a paragraph at once."""
    normalizer = IncrementalNormalizer()
    given = [normalizer.feed(f"{word} ") for word in "one two three four five six".split()]
    assert LOOKAHEAD_WORDS == 4
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


KINDS = ["1 ", "a.", "<", "((", "1-", "$1,", "A.A.", "x", "12", "[a ", "_", "http://a", "1. a ",
         "\n", " ", "\t \r", "the ", "THE ", "é", "你好。", "\u0301", "3 million ", "no end so ",
         "Dr. Smith paid $3, on May 5, 2024; ", "- an item\n", "# Heading\n\nText. "]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_work_is_linear_and_what_is_held_is_bounded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is characters that are normalised, whatever the text is and however it comes."""
    read: list[int] = []

    def counted(text: str, *, line_start: str = "") -> list[str]:
        read.append(len(text))
        return normalize_paragraphs(text, line_start=line_start)

    monkeypatch.setattr(normalize_module, "normalize_paragraphs", counted)
    found = []
    for size in (1, 997):
        text = (kind * 1200)[:1200]
        read.clear()
        found.append(fed([text[at : at + size] for at in range(0, len(text), size)]))
        assert max(read) <= 1024
        assert sum(read) <= 30 * len(text)
    assert found[0] == found[1]


def test_sentences_without_end_are_read_as_they_are_whole() -> None:
    for kind in ("1 ", "12", "3 million ", "the old man and the sea and ", "$1,", "你好 "):
        text = (kind * 1200)[:1200]
        assert fed([text]) == whole(text), kind


def test_words_without_end_lose_nothing() -> None:
    text = "so " + "abcdefghij" * 300 + " it is."
    assert "".join(fed([text])) == "".join(whole(text))


def test_breaks_between_paragraphs_survive_cuts() -> None:
    sentence = "The quick brown fox jumps over the lazy dog, and it is gone. "
    text = "\n\n".join(f"{number}. {sentence * 8}" for number in range(6))
    assert fed([text]) == fed(list(text)) == whole(text)
    assert fed([text]).count(PARAGRAPH) == whole(text).count(PARAGRAPH) >= 5


def test_nothing() -> None:
    assert fed([]) == fed(["", " \n\n ", "🙂"]) == []


def test_a_paragraph_that_is_ended_waits_for_nothing() -> None:
    normalizer = IncrementalNormalizer()
    assert normalizer.feed("I saw Dr. Lee.\u2029") == ["i", "saw", "doctor", "lee.", PARAGRAPH]
    assert normalizer.feed(" \u2029And he saw me.") == [PARAGRAPH]
    assert normalizer.finish() == ["and", "he", "saw", "me."]
    assert IncrementalNormalizer().feed("\u2029\u2029") == [PARAGRAPH, PARAGRAPH]
