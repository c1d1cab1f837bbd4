"""Which written word each spoken word stands for."""

from __future__ import annotations

import pytest

from tokenlm.text.markup import MarkupReader
from tokenlm.text.normalize import NormalizerName, WrittenWords, frontend
from tokenlm.text.segmentation import PARAGRAPH

CASES = {
    "Dr. Smith paid $3 million on May 5, 2024, it's true.": [
        "Dr.=doctor", "Smith=smith", "paid=paid", "$3=three million", "million=dollars", "on=on",
        "May=may", "5,=fifth,", "2024,=twenty twenty four,", "it's=it's", "true.=true.",
    ],
    "1,250 people—all of them—saw": [
        "1,250=one thousand two hundred fifty", "people—=people,", "all=all", "of=of",
        "them—=them,", "saw=saw",
    ],
    "It is 5 km, at 10:30 a.m. or 3-4 p.m.": [
        "It=it", "is=is", "5=five", "km,=kilometers,", "at=at", "10:30=ten thirty", "a.m.=a m",
        "or=or", "3-4=three to four", "p.m.=p m.",
    ],
    "LOOK OUT BELOW! Henry VIII had 1 1/2 cups (FBI).": [
        "LOOK=look", "OUT=out", "BELOW!=below!", "Henry=henry", "VIII=the eighth", "had=had",
        "1=one", "1/2=and a half", "cups=cups,", "(FBI).=f b i.",
    ],
    "see <b>more</b> – Привет – there": ["see=see", "<b>more</b>=more,", "there=there"],
    "# Title\n\n- one\n- 2 items\n\n| a | 1 |": [
        "Title=title", "one=one.", "2=two", "items=items.", "a=a,", "1=one.",
    ],
}  # fmt: skip
"""Texts, and the written words of each that are said, as they are said."""


def pairs(text: str, size: int | None = None, name: NormalizerName = "english") -> list[str]:
    """The words of a text that is given in pieces of a size, None for the whole."""
    front = frontend(name)
    words, spoken = WrittenWords(front), []
    if size is None:
        words.feed(text)
        spoken = front.words(text)
        words.add(spoken)
    else:
        reader = front.reader()
        for start in range(0, len(text), size):
            words.feed(text[start : start + size])
            new = reader.feed(text[start : start + size])
            words.add(new)
            spoken += new
        new = reader.finish()
        words.add(new)
        spoken += new
    words.finish()
    spoken = [word.strip() for word in spoken if word != PARAGRAPH]
    assert words.spoken == spoken and len(words.owners) == len(spoken)
    assert words.owners == sorted(words.owners)
    assert all(text[word.start : word.end] == word.text for word in words.written)
    said: dict[int, list[str]] = {}
    for word, owner in zip(spoken, words.owners, strict=True):
        said.setdefault(owner, []).append(word)
    return [f"{words.written[owner].text}={' '.join(own)}" for owner, own in said.items()]


@pytest.mark.parametrize("text", CASES)
def test_written_words_by_hand(text: str) -> None:
    assert pairs(text) == CASES[text]


@pytest.mark.parametrize("text", CASES)
def test_text_in_pieces_has_the_same_words(text: str) -> None:
    assert pairs(text, 1) == CASES[text]


def test_a_long_text_stays_aligned() -> None:
    """An error in one place does not go on to the next."""
    text = " ".join([*CASES] * 5)
    assert pairs(text, 1)[-6:] == pairs(text)[-6:]
    # The last table stands in the same line as what is before it here.
    assert [word.split("=")[0] for word in pairs(text)[-4:]] == ["2", "items", "a", "1"]
    number = "7" * 60
    assert pairs(f"before {number} after it all.")[-3:] == ["after=after", "it=it", "all.=all."]


def test_scripts_without_spaces() -> None:
    """Characters are words, with the marks behind them."""
    text = "你好，世界。 ok then"
    expected = ["你=你", "好，=好，", "世=世", "界。=界。", "ok=ok", "then=then"]
    assert pairs(text, None, "none") == pairs(text, 1, "none") == expected


def test_settled_words_never_change() -> None:
    text = "We paid $3 million on May 5, 2024, and 1,250 people saw it. It is 5 km away."
    front = frontend("english")
    words, reader, before = WrittenWords(front), front.reader(), list[int]()
    num_early = 0
    for character in text:
        words.feed(character)
        words.add(reader.feed(character))
        assert words.owners[: len(before)] == before
        before = list(words.owners)
        num_early = len(before)
    assert num_early >= 8  # before the text is complete


def test_words_of_a_lexicon_are_spoken_as_they_are_written() -> None:
    """What they are respelled as is no word."""
    front = frontend("english")

    def respell(text: str) -> str:
        return text.replace("GIF", "gifq")

    words = WrittenWords(front, respell=respell, unspell=lambda text: text.replace("two", "deux"))
    words.feed("Send GIF, please: 2 GIFs.")
    words.add(front.words(respell("Send GIF, please: 2 GIFs.")))
    words.finish()
    assert words.owners == [0, 1, 2, 3, 4] and words.spoken[1] == "gifq,"
    assert words.spoken_text(1, 2) == "GIF," and words.spoken_text(3, 4) == "deux"


def read_words(text: str, size: int, *, tags: tuple[str, ...] = ()) -> list[str]:
    """The written words of a text with markup that is given in pieces of a size."""
    words, reader = WrittenWords(frontend("english")), MarkupReader(tags=tags)
    for start in range(0, len(text), size):
        reader.feed(text[start : start + size])
        words.feed(reader.take_words())
        words.add([])
    reader.finish()
    words.feed(reader.take_words())
    words.finish()
    assert all(text[word.start : word.end] == word.text for word in words.written)
    return [word.text for word in words.written]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'Is <break time="1s"/>it [pause 2s] so? a < b [sic]',
            "Is it so? a < b [sic]",
        ),
        ("<b>Bold</b> <!-- <b>not</b> --><a href='x y'>link</a>.", "Bold link ."),
        ("<img src='x' alt='a red door'/> <sub alias='x y'>XY</sub>", "a red door XY"),
        ("[breath] <laughter>ha</laughter>", "[breath] <laughter>ha</laughter>"),
        ("if a < b and c > d then", "if a < b and c > d then"),
        ("<you there> <https://a.com>", "<you there> <https://a.com>"),
        ("Hi [ pause 1s ] [pause for effect]", "Hi [ pause 1s ] [pause for effect]"),
    ],
)
def test_markup_is_no_word(text: str, expected: str) -> None:
    for size in (1, 5, len(text)):
        found = read_words(text, size, tags=("<laughter>", "</laughter>"))
        assert found == expected.split(), size


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d then",
        "5 < 6 or 7 > 3",
        "Hi [ pause 1s ] there",
        "Wait [pause for effect] now",
    ],
)
def test_what_only_looks_like_markup_is_words(text: str) -> None:
    front = frontend("english")
    words, reader = WrittenWords(front), MarkupReader()
    reader.feed(text)
    reader.finish()
    words.feed(reader.take_words())
    words.add(front.normalize(text).split())
    words.finish()
    assert len(words.owners) == len(words.spoken)
    owned = {words.written[owner].text for owner in words.owners}
    assert {word for word in text.split() if word.isalnum()} <= owned


def test_words_that_are_not_written_end_with_the_last() -> None:
    """Where much more is spoken than was written, every spoken word still has an owner."""
    words = WrittenWords(frontend("english"))
    words.feed("One two.")
    words.add([f"word{number}" for number in range(200)])
    words.finish()
    assert len(words.owners) == 200 and words.owners == sorted(words.owners)
