from __future__ import annotations

import pytest

from tokenlm.text.markup import split_paragraphs, strip_markup


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<b>bold</b> a < b", "bold a < b"),
        ('<a href="x">link</a>', "link"),
        ("if a<b and c>d", "if a<b and c>d"),
        ("[text](https://x.y/z) end", "text end"),
        ("## Title", "Title"),
        ("**so** 2*3 *it*", "so 2*3 it"),
        ("* one\n* two!", "one.\ntwo!"),
        ("fine :-) and ;)", "fine and"),
        ("a\n-----\nb", "a\n\nb"),
    ],
)
def test_strip(text: str, plain: str) -> None:
    assert strip_markup(text).split() == plain.split()


def test_paragraphs() -> None:
    assert split_paragraphs(" a\nb\n\n\n c \n \n") == ["a b", "c"]
    assert split_paragraphs("\n\n") == []
