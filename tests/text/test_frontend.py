"""Text that is left as it was written: nothing is lost, and it is cut where sentences end."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from tokenlm.text import normalize as normalize_module
from tokenlm.text.normalize import RawReader, frontend
from tokenlm.text.segmentation import (
    PARAGRAPH,
    RAW,
    GreedySegmenter,
    IncrementalSegmenter,
    segment,
)

MIXED = (
    "今天是2024年5月3日，气温是23.5度。你好吗？[breath]他说：“我很好！”\n"
    "iPhone 15 Pro 卖 $999。 Dr. Smith isn’t here, e.g. today. "
    "Grüße aus Köln! 東京タワーへ行きましょう。안녕하세요 여러분. "
    "<strong>真的</strong>吗……（也许）"
)
LONG = "我们今天早上一起去了公园，" * 12 + "然后回家了。" + "后来下雨了。"


def read(pieces: list[str]) -> list[str]:
    reader = RawReader()
    return [unit for piece in pieces for unit in reader.feed(piece)] + reader.finish()


@pytest.mark.parametrize(
    "text", [MIXED, LONG, "  你 好 \r\n 吗 ", "。。。", "plain words, yes. ", ""]
)
def test_nothing_is_lost(text: str) -> None:
    units = read([text])
    assert "".join("".join(units).split()) == "".join(text.split())
    assert read(list(text)) == units
    draw = random.Random(1)
    for _ in range(10):
        cuts = sorted(draw.randrange(len(text) + 1) for _ in range(4))
        bounds = [0, *cuts, len(text)]
        assert read([text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]) == units


@pytest.mark.parametrize(
    "kind", ["a", "（", "好", "。", "a，", "，a", "好！", " ", " \t", "\n a", "“a"]
)
def test_work_is_linear(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is characters that are looked at, also in a word without end that comes by letters."""
    seen: list[int] = []
    pattern = normalize_module.RAW_WORD

    class Counted:
        def finditer(self, text: str) -> Iterator[re.Match[str]]:
            seen.append(len(text))
            return pattern.finditer(text)

    monkeypatch.setattr(normalize_module, "RAW_WORD", Counted())
    text = "so " + (kind * 1500)[:1500] + " it is"
    words = read(list(text))
    assert max(seen) <= 12
    assert sum(seen) <= 8 * len(text)
    assert words == read([text])


def test_spaces_and_line_ends() -> None:
    assert read(["好 吗\n你们\nhello\n world  了\x00\ufeff啊"]) == [
        "好", " 吗", "你", "们", " hello", " world", " 了", "啊"
    ]  # fmt: skip
    assert read(["一。\n \n二"]) == ["一。", PARAGRAPH, "二"]
    assert RAW.split("one two，三") == ["one", " two，", "三"]


def test_a_unit_is_given_when_its_marks_are_known() -> None:
    reader = RawReader()
    assert reader.feed("你好") == ["你"]
    assert reader.feed("！”") == []
    assert reader.feed(" 3.") == ["好！”"]
    assert reader.feed("5 元") == [" 3.5"]


def test_sentences_and_their_pauses() -> None:
    text = "今天天气很好。你要去哪里吃饭？我们走吧，快一点！“他不来了。”他说；就这样"
    found = segment(text, rules=RAW, min_length=5)
    assert [(part.text, part.pause_seconds) for part in found] == [
        ("今天天气很好。", 0.35),
        ("你要去哪里吃饭？", 0.4),
        ("我们走吧，快一点！", 0.4),
        ("“他不来了。”", 0.35),
        ("他说；", 0.25),
        ("就这样", 0.0),
    ]
    # Three letters' worth a character: these two are short and go together.
    assert [part.text for part in segment("好的。谢谢。再见了朋友们。", rules=RAW)] == [
        "好的。谢谢。再见了朋友们。"
    ]


def test_full_stops_that_end_nothing() -> None:
    text = "We met Dr. Smith and J. R. Jones at 3.30 in the U.S. yesterday. Then we left for home."
    found = segment(text, rules=RAW)
    assert [part.text.strip() for part in found] == [text[:63], text[64:]]


def test_long_sentences_are_cut_at_their_commas() -> None:
    found = segment(LONG, rules=RAW, max_length=120)
    assert "".join(part.text for part in found) == LONG
    assert all(RAW.measure(part.text) <= 120 for part in found)
    assert all(part.text[-1] in "，。" for part in found)


@pytest.mark.parametrize("text", [MIXED, LONG, LONG + "\n\n" + MIXED])
def test_growing_segments(text: str) -> None:
    words = frontend("none").words(text)
    for kind in (IncrementalSegmenter, GreedySegmenter):
        segmenter = kind(max_length=100, rules=RAW)
        for word in words:
            segmenter.add(word)
        segmenter.finish()
        said = "".join(part.text for part in segmenter.segments)
        assert "".join(said.split()) == "".join(text.split())
        for part in segmenter.segments:
            assert part.is_complete and RAW.measure(part.text) <= 100
    closed = IncrementalSegmenter(max_length=100, rules=RAW)
    for word in words:
        closed.add(word)
    closed.finish()
    paragraphs = "".join(words).split(PARAGRAPH)
    whole = segment("\n".join(paragraphs), max_length=100, rules=RAW)
    assert [part.text for part in closed.segments] == [part.text.strip() for part in whole]
    assert [part.pause_seconds for part in closed.segments] == [p.pause_seconds for p in whole]


def test_front_ends() -> None:
    plain, english = frontend("none"), frontend("english")
    assert plain.normalize("第3章：\n\n“开始” ") == "第3章： “开始”"
    assert plain.normalize("……！") == ""
    assert english.normalize("It costs $3.") == "it costs three dollars."
    assert english.words("One.\n\nTwo.") == ["one.", PARAGRAPH, "two."]


def test_a_paragraph_that_is_ended_waits_for_nothing() -> None:
    reader = RawReader()
    assert reader.feed("\u2029") == []
    assert reader.feed("你好。\u2029") == ["你", "好。", PARAGRAPH]
    assert reader.feed(" 再见。one\u2029\u2029two") == ["再", "见。", "one", PARAGRAPH]
    assert reader.finish() == ["two"]
