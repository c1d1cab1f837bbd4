"""Characters and layout."""

from __future__ import annotations

import logging

import pytest

from tokenlm.text.normalize import normalize
from tokenlm.text.symbols import KEPT, ForeignWords, Line, fold_characters, read_layout


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("plain ASCII, 100%\n", "plain ASCII, 100%\n"),
        ("Ångström Łódź señor", "Angstrom Lodz senor"),
        ("e\u0301", "e"),
        ("ﬁ ﬄ ß Æ œ", "fi ffl ss Ae oe"),
        ("“a” ‘b’ «c»", '"a" \'b\' "c"'),
        ("１２ Ａ ①", "12 A 1 "),
        ("½ 3¼ ⅚", "1/2 3 1/4 5/6"),
        ("m² 10⁻³ (a)⁴ word ¹", "m^2 10^-3 (a)^4 word  "),
        ("a\u200bb\u00adc\ufeff", "abc"),
        ("a\u00a0b\u2003c\td", "a b c | d"),
        ("1\u2009000\u2009000", "1000000"),
        ("12\u202f345 km", "12345 km"),
        ("a\r\nb\rc\u2028d\u2029e", "a\nb\nc\nd\n\ne"),
        ("&amp; &lt; &eacute; &#65; &bogus;", "& < e A &bogus;"),
        ("5 µm, 3 kΩ, α-helix", "5 um, 3 kohm, alpha-helix"),
        ("٣ ५", "3 5"),
        ("\ud800x\x07", "x"),
        ("wait… – —", "wait... – —"),
    ],
)
def test_fold(text: str, folded: str) -> None:
    # How many blanks stand where nothing can be said is nobody's concern: later steps close them.
    assert fold_characters(text).split() == folded.split()


def test_alphabet() -> None:
    everything = "".join(map(chr, range(0x11000)))
    allowed = {*map(chr, range(32, 127)), "\n", *KEPT}
    assert set(fold_characters(everything)) <= allowed


FOREIGN = [
    ("Say Привет to 你好世界 now.", ["Привет", "你好世界"]),
    ("мир, Мир и мир", ["мир", "Мир", "и"]),
    ("नमस्ते דוד مرحبا 안녕하세요 สวัสดี", ["नमस्ते", "דוד", "مرحبا", "안녕하세요", "สวัสดี"]),
    ("Καλημέρα κόσμε", ["Καλημέρα", "κόσμε"]),
    ("こんにちは、Tokyo！東京です。", ["こんにちは", "東京です"]),
    ("caféмир", ["caféмир"]),
]


@pytest.mark.parametrize(("text", "words"), FOREIGN)
def test_foreign_words_are_named_once(
    text: str, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    normalize(text)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(": " + ", ".join(words))
    foreign = ForeignWords()
    for character in text:
        foreign.feed(character)
    foreign.finish()
    assert foreign.words == words


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "café Łódź ﬁne ½ ² ① Ａ",
        "α-helix, 5 µm, 3 kΩ, Δt, β",
        "😀 👍🏽 → ✓ €5",
        "٣ ५ — “ï”…",
    ],
)
def test_what_is_read_is_not_named(text: str, caplog: pytest.LogCaptureFixture) -> None:
    normalize(text)
    assert not caplog.records


def test_very_many_foreign_words_stay_few() -> None:
    foreign = ForeignWords()
    for number in range(500):
        foreign.feed("мир" * (number % 100 + 1) + " " + "界" * 300)
    foreign.finish()
    assert 20 < len(foreign.words) < 50


def lines_of(text: str, line_start: str = "") -> list[list[str]]:
    return [[line.text for line in lines] for lines in read_layout(text, line_start)]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<b>bold</b> a < b", "bold a < b"),
        ('<a href="x">link</a>', "link"),
        ("if a<b and c>d", "if a<b and c>d"),
        ("[text](https://x.y/z) end", "text end"),
        ("## Title", "Title"),
        ("**so** 2*3 *it*", "so 2*3 it"),
        ("fine :-) and ;)", "fine and"),
    ],
)
def test_marks_inside_a_line(text: str, plain: str) -> None:
    ((found,),) = lines_of(text)
    assert found.split() == plain.split()


def test_paragraphs_of_a_layout() -> None:
    assert lines_of(" a\nb\n\n\n c \n \n") == [["a", "b"], ["c"]]
    assert lines_of("a\n-----\nb") == [["a"], ["b"]]
    assert lines_of("\n\n") == []


def test_what_closes_a_line() -> None:
    assert read_layout("Things\n1. one\n2) two,\n- three") == [
        [Line("Things", ""), Line("1", "."), Line("one", "."), Line("2", ","), Line("two,", ","),
         Line("three", ".")]
    ]  # fmt: skip
    assert read_layout("| a | b |\n|---|---|\n| c | d |\ne") == [
        [Line("a", ","), Line("b", "."), Line("c", ","), Line("d", "."), Line("e", "")]
    ]


def test_the_rest_of_a_line() -> None:
    """It is as long, and of the kind, that the whole line is."""
    start = "The quick brown fox jumped right over the dog. "
    assert lines_of(f"{start}Then it met\nAnn there") == [[f"{start}Then it met Ann there"]]
    assert lines_of("Then it met\nAnn there") == [["Then it met", "Ann there"]]
    assert lines_of("Then it met\nAnn there", start) == [["Then it met Ann there"]]
    assert read_layout("Two more.\nB", "- One. ") == [[Line("Two more.", "."), Line("B", "")]]
    assert read_layout("Two\nB", "# One. ") == [[Line("Two", "")], [Line("B", "")]]


@pytest.mark.parametrize("unit", ["a-", "a", "- a\n", "1. a\n", "| a ", "[a](", "> ", "a\n", "`",
                                  "_a", "![", "#", "A: ", "---\n", "</li>", "|-"])  # fmt: skip
def test_time_is_linear(unit: str) -> None:
    assert lines_of(unit * 20_000) is not None
