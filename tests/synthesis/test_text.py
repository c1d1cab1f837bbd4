"""Text as it comes in, to segments of text tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenlm.synthesis.text import SegmentedText, add_final_mark
from tokenlm.text.normalize import frontend
from tokenlm.text.tokenizers import PhonemeTokenizer

TEXT = "This is the first sentence. And here comes the second one!\n\nThen an end."


def encode(text: str) -> list[int]:
    """A word is its length; the last one before a mark that may still come is not settled."""
    return [len(word) for word in text.split()]


def facts(segmented: SegmentedText) -> list[tuple[list[int], bool, float]]:
    return [(part.tokens, part.is_complete, part.pause_seconds) for part in segmented.segments]


@pytest.mark.parametrize("layout", ["one_shot", "interleaved"])
def test_whole_and_in_pieces(layout: str) -> None:
    whole = SegmentedText(encode, max_length=100, layout=layout)  # type: ignore[arg-type]
    whole.read(TEXT)
    expected = [
        ([4, 2, 3, 5, 9], True, 0.35),
        ([3, 4, 5, 3, 6, 4], True, 0.6),
        ([4, 2, 4], True, 0.0),
    ]
    assert facts(whole) == expected and whole.is_finished
    assert whole.num_text_tokens == 14
    for size in (1, 6, 33):
        segmented = SegmentedText(encode, max_length=100, layout=layout)  # type: ignore[arg-type]
        for start in range(0, len(TEXT), size):
            segmented.feed(TEXT[start : start + size])
        assert not segmented.is_finished
        segmented.finish()
        segmented.finish()
        assert facts(segmented) == expected


def test_words_that_are_left_out_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    text = "Say Привет to 你好, please. Привет!"
    for size in (100, 1):
        caplog.clear()
        segmented = SegmentedText(encode, max_length=100, layout="one_shot")
        if size == 100:
            segmented.read(text)
        else:
            for character in text:
                segmented.feed(character)
            segmented.finish()
        assert segmented.foreign_words == ["Привет", "你好"]
        (record,) = caplog.records
        assert record.getMessage().endswith("Привет, 你好")
        assert segmented.segments[0].text == "say to, please!"
    caplog.clear()
    segmented = SegmentedText(encode, max_length=100, layout="one_shot")
    with pytest.raises(ValueError, match="nothing that can be said"):
        segmented.read("Привет")
    assert len(caplog.records) == 1
    segmented = SegmentedText(
        encode, max_length=100, layout="one_shot", text_frontend=frontend("none")
    )
    segmented.read(text)
    assert segmented.foreign_words == [] and len(caplog.records) == 1


def test_interleaved_text_comes_word_by_word() -> None:
    open_text = SegmentedText(encode, max_length=100, layout="interleaved")
    whole_text = SegmentedText(encode, max_length=100, layout="one_shot")
    for segmented in (open_text, whole_text):
        segmented.feed("one two three four five six seven ")
    # A full stop may still follow the third word.
    assert facts(open_text) == [([3, 3], False, 0.0)]
    assert facts(whole_text) == []


def test_tokens_that_a_next_word_would_change_are_held() -> None:
    def pairs(text: str) -> list[int]:
        letters = text.replace(" ", "_")
        return [hash(letters[at : at + 2]) for at in range(0, len(letters), 2)]

    segmented = SegmentedText(pairs, max_length=100, layout="interleaved")
    segmented.feed("one two three four five ")
    # "one" is two tokens, of which the second would become "e_".
    assert segmented.segments[0].tokens == pairs("on")
    segmented.finish()
    assert segmented.segments[0].tokens == pairs("one two three four five.")


@pytest.mark.parametrize(
    ("text", "whole", "spoken"),
    [
        ("hello there", "hello there.", "hello there."),
        ("is it so?", "is it so?", "is it so?"),
        ("one, two,", "one, two,", "one, two,"),
        ("wait;", "wait.", "wait;"),
        ("dog -", "dog.", "dog -"),
        ('he said "no"', 'he said "no".', 'he said "no".'),
        ('he said "no."', 'he said "no."', 'he said "no."'),
        ("你好", "你好。", "你好。"),
        (";", ";", ";"),
    ],
)
def test_a_segment_ends_with_a_mark(text: str, whole: str, spoken: str) -> None:
    assert add_final_mark(text) == whole
    assert add_final_mark(text, may_replace=False) == spoken


def test_marks_at_the_end_do_not_depend_on_the_layout() -> None:
    for layout in ("one_shot", "interleaved"):
        segmented = SegmentedText(encode, max_length=100, layout=layout)  # type: ignore[arg-type]
        segmented.read("Come in and sit down")
        assert [part.text for part in segmented.segments] == ["come in and sit down."]
        assert segmented.segments[0].tokens == encode("come in and sit down.")


def test_nothing_to_say() -> None:
    segmented = SegmentedText(encode, max_length=100, layout="interleaved")
    segmented.feed(" … ")
    with pytest.raises(ValueError, match="nothing that can be said"):
        segmented.finish()
    with pytest.raises(ValueError, match="nothing that can be said"):
        SegmentedText(encode, max_length=100, layout="one_shot").read("")


@pytest.mark.parametrize("layout", ["one_shot", "interleaved"])
def test_the_end_of_a_paragraph_completes_what_is_there(layout: str) -> None:
    segmented = SegmentedText(encode, max_length=100, layout=layout)  # type: ignore[arg-type]
    segmented.feed("Yes, it is.\u2029")
    assert facts(segmented) == [([4, 2, 3], True, 0.6)]
    segmented.feed("\u2029 No.\u2029")
    assert facts(segmented) == [([4, 2, 3], True, 0.6), ([3], True, 0.6)]
    segmented.finish()
    assert facts(segmented) == [([4, 2, 3], True, 0.6), ([3], True, 0.0)]
    whole = SegmentedText(encode, max_length=100, layout=layout)  # type: ignore[arg-type]
    whole.read("Yes, it is.\u2029\u2029 No.")
    assert facts(whole) == facts(segmented)


HOMOGRAPHS = (
    "They live, and I read, in the lead house. The wind blew. Wind the clock, and close the door "
    "close to the record that they record. He wound the scarf around the wound, used it, and used "
    "to tear up with a tear in his eye when the band went live on air. Does anyone object to that "
    "object\n\nHer excuses for their lives excuse nothing, but she lives here and presents gifts"
)


@pytest.mark.parametrize("layout", ["one_shot", "interleaved"])
@pytest.mark.parametrize("max_length", [40, 200])
def test_homographs_are_said_alike_whole_and_in_pieces(layout: str, max_length: int) -> None:
    folder = Path(__file__).resolve().parents[2] / "checkpoints" / "mini-en" / "text_tokenizer"
    tokenizer = PhonemeTokenizer.from_folder(folder)

    def segmented() -> SegmentedText:
        return SegmentedText(
            tokenizer.encode,
            max_length=max_length,
            layout=layout,  # type: ignore[arg-type]
            encode_prefix=tokenizer.encode_prefix,
        )

    whole = segmented()
    whole.read(HOMOGRAPHS)
    assert all(part.tokens == tokenizer.encode(part.text) for part in whole.segments)
    for size in (1, 7, 50):
        pieces = segmented()
        for start in range(0, len(HOMOGRAPHS), size):
            before = [list(part.tokens) for part in pieces.segments]
            pieces.feed(HOMOGRAPHS[start : start + size])
            for old, part in zip(before, pieces.segments, strict=False):
                assert part.tokens[: len(old)] == old, "tokens that were given out changed"
        pieces.finish()
        assert facts(pieces) == facts(whole)
