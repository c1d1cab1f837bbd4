from __future__ import annotations

import pytest

from tokenlm.text.markup import Line, read_layout


def texts(text: str, line_start: str = "") -> list[list[str]]:
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
    ((found,),) = texts(text)
    assert found.split() == plain.split()


def test_paragraphs() -> None:
    assert texts(" a\nb\n\n\n c \n \n") == [["a", "b"], ["c"]]
    assert texts("a\n-----\nb") == [["a"], ["b"]]
    assert texts("\n\n") == []


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
    assert texts(f"{start}Then it met\nAnn there") == [[f"{start}Then it met Ann there"]]
    assert texts("Then it met\nAnn there") == [["Then it met", "Ann there"]]
    assert texts("Then it met\nAnn there", start) == [["Then it met Ann there"]]
    assert read_layout("Two more.\nB", "- One. ") == [[Line("Two more.", "."), Line("B", "")]]
    assert read_layout("Two\nB", "# One. ") == [[Line("Two", "")], [Line("B", "")]]


@pytest.mark.parametrize("unit", ["a-", "a", "- a\n", "1. a\n", "| a ", "[a](", "> ", "a\n", "`",
                                  "_a", "![", "#", "A: ", "---\n", "</li>", "|-"])  # fmt: skip
def test_time_is_linear(unit: str) -> None:
    assert texts(unit * 20_000) is not None
