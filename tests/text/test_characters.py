from __future__ import annotations

import pytest

from tokenlm.text.characters import KEPT, fold_characters


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
        ("a\u00a0b\u2003c\td", "a b c d"),
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
