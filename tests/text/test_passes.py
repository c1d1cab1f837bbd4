"""What every pass of normalisation and both readers promise, tested on generated texts."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenlm.text.normalize import (
    LOOKAHEAD_WORDS,
    PASSES,
    NormalizerName,
    Pass,
    frontend,
)
from tokenlm.text.segmentation import PARAGRAPH_END
from tokenlm.text.symbols import fold_characters, settle

TABLES = [Path(__file__).with_name(f"normalize_{name}.tsv") for name in ("pairs", "kinds")]
LINES = [line for table in TABLES for line in table.read_text("utf-8").splitlines()]
WRITTEN = [line.split("\t")[0] for line in LINES if "\t" in line and not line.startswith("#")]
FRAGMENTS = (
    "Dr. St. etc. U.S. 10 1,000 3.5 $5 10% 1/2 3-4 VIII FBI NASA DVDs a.m. 5pm 12:30 May 2024 km "
    "10kg http://a.b/c a@b.co #x @y I'm - -- ... ! ? ( ) \" ' No. 1st 90s x^2 = + v2.0 ° é iPhone "
    "192.168.1.1 C++ War II – — £ ½ ² < > \\ / _ ~ * & ; : , I jR. 5'11\" Fig. sec. Vol. Sat. "
    "Sept. B.C. AD c. ft. in. lbs. of x 2x 2–3x 30m 20s 1h ago 1.234,56 1'000 12,34,567 234 567 "
    "(020) 7946 5551234567 1-800-FLOWERS 72F -5C 3B 10k people Ⅷ ① ¹ ¾ don`t <5 <a@b.c> >= Elm "
    "Ave. N. Main I-95 Rt. 66 hmm Wi-Fi 2-in-1 4-g- Gen. 1:2 Mon-Fri Henry snake_case"
).split()
PROSE = "we saw Mary and her brother walk to London while it rained and then went home".split()

expressions = st.sampled_from(WRITTEN) | st.lists(st.sampled_from(FRAGMENTS), max_size=6).map(
    " ".join
)
prose = st.lists(st.sampled_from(PROSE), max_size=6).map(" ".join)
texts = st.lists(st.tuples(expressions, prose), min_size=1, max_size=4).map(
    lambda parts: " ".join(part for both in parts for part in both)
)
spoken_texts = st.lists(
    st.sampled_from([*PROSE, "FBI", "twenty-one", "don't"]).flatmap(
        lambda word: st.sampled_from(["", "", "", ",", ".", " ...", "?!", ";", "-", "'"]).map(
            lambda mark: word + mark
        )
    ),
    max_size=20,
).map(" ".join)
pieces_of = st.lists(st.integers(1, 9), min_size=1, max_size=6)

by_property = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
each_pass = pytest.mark.parametrize("rule", PASSES, ids=lambda rule: rule.rewrite.__name__)


def a_line(text: str) -> str:
    """A text as a pass is given it: one folded line."""
    return " ".join(fold_characters(text).split())


@each_pass
def test_examples(rule: Pass) -> None:
    assert rule(rule.written) == rule.result != rule.written


@each_pass
@by_property
@given(data=st.data())
def test_a_line_without_the_trigger_stays(rule: Pass, data: st.DataObject) -> None:
    text = a_line(data.draw(texts))
    if rule.trigger is not None and not rule.trigger.search(text):
        assert rule.rewrite(text) == text


@each_pass
@by_property
@given(data=st.data())
def test_what_a_pass_has_settled_stays(rule: Pass, data: st.DataObject) -> None:
    """The start that `LOOKAHEAD_WORDS` further words have not changed is that of the whole text."""
    # The last pass drops what the ones above it have not read.
    text = a_line(data.draw(spoken_texts if rule.rewrite is settle else texts))
    words = text.split(" ")
    starts = [rule(" ".join(words[:end])).split() for end in range(1, len(words) + 1)]
    for end in range(len(words) - LOOKAHEAD_WORDS):
        settled = 0
        for same in zip(*starts[end : end + LOOKAHEAD_WORDS + 1], strict=False):
            if len(set(same)) > 1:
                break
            settled += 1
        assert starts[-1][:settled] == starts[end][:settled]


@pytest.mark.parametrize("name", ["english", "none"])
@by_property
@given(text=texts, sizes=pieces_of, gap=st.sampled_from([" ", "\n", "\n\n", PARAGRAPH_END]))
def test_how_a_text_is_cut_does_not_matter(
    name: NormalizerName, text: str, sizes: list[int], gap: str
) -> None:
    text = f"{text}{gap}你好。 {text}"
    pieces: list[str] = []
    for size in cycle(sizes):
        pieces.append(text[:size])
        text = text[size:]
        if not text:
            break
    words = read(name, pieces)
    assert words == read(name, ["".join(pieces)])
    if gap != PARAGRAPH_END:  # that one ends a paragraph even where nothing is said
        assert words == frontend(name).words("".join(pieces))


def read(name: NormalizerName, pieces: list[str]) -> list[str]:
    reader = frontend(name).reader()
    return [word for piece in pieces for word in reader.feed(piece)] + reader.finish()
