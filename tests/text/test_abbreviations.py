from __future__ import annotations

import pytest

from tokenlm.text.abbreviations import expand_abbreviations


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Ask Dr. Lee on Oak Dr. at noon", "Ask doctor Lee on Oak drive at noon"),
        ("St. Ives, 5 High St.", "saint Ives, 5 High street."),
        ("On Wall St. He fell.", "On Wall street. He fell."),
        ("tea, etc. Then home", "tea, et cetera. Then home"),
        ("tea, etc., at home", "tea, et cetera, at home"),
        ("a U.S. Army base", "a u s Army base"),
        ("in the U.S. They left", "in the u s. They left"),
        ("Foo Co. Ltd. sells", "Foo company limited sells"),
        ("at 5 p.m. Call me", "at 5 p m. Call me"),
        ("see the Prof.", "see the professor."),
        ("the end", "the end"),
    ],
)
def test_expand(text: str, spoken: str) -> None:
    assert expand_abbreviations(text) == spoken
