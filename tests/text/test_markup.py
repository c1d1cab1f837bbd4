"""Markup of a text: what it is made of, in whole and in pieces, and what is wrong with it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlm.text.markup import (
    MarkupError,
    MarkupReader,
    Pause,
    SentenceEnd,
    Span,
    Style,
    Text,
    joined_spans,
    parse_seconds,
)
from tokenlm.text.normalize import WrittenWords, english_say_as, frontend, normalize
from tokenlm.text.pronunciation import Respeller

TAGS = ("[breath]", "<laughter>", "</laughter>")


def read(text: str, size: int | None = None) -> list[Span]:
    reader = MarkupReader(tags=TAGS, spell=lambda phones, _: f"({phones})", say_as=english_say_as)
    spans: list[Span] = []
    for start in range(0, len(text), size or max(len(text), 1)):
        spans += reader.feed(text[start : start + (size or len(text))])
    return joined_spans([*spans, *reader.finish()])


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("no markup", [Text("no markup")]),
        ("a [pause 0.8s]b", [Text("a "), Pause(0.8), Text("b")]),
        ("[PAUSE 500 ms]", [Pause(0.5)]),
        ("[pause]", [Pause(0.5)]),
        ("a<break time='1.5s'/>b", [Text("a"), Pause(1.5), Text("b")]),
        ('<break strength="weak"></break>', [Pause(0.25)]),
        ("<break/>", [Pause(0.5)]),
        ("<s>One</s>two", [SentenceEnd(), Text("One"), SentenceEnd(), Text("two")]),
        ("<p>One</p>", [Text("\n\nOne\n\n")]),
        (
            '<?xml version="1.0"?><speak version="1.1" xml:lang="en">a</speak>',
            [Text("a")],
        ),
        ("<voice name=' ann '>a</voice>b", [Style(voice="ann"), Text("a"), Style(), Text("b")]),
        (
            '<prosody rate="slow">a<prosody rate="+50%" volume="-6dB">b</prosody></prosody>',
            [
                Style(rate=0.8),
                Text("a"),
                Style(rate=0.8 * 1.5, volume=-6.0),
                Text("b"),
                Style(rate=0.8),
                Style(),
            ],
        ),
        ('<prosody volume="silent">a</prosody>', [Style(volume=-100.0), Text("a"), Style()]),
        ('<sub alias="A&amp;B">x</sub>', [Text("A&B")]),
        ('the<sub alias="net">x</sub>works', [Text("the net works")]),
        ("H<sub>2</sub>O", [Text("H<sub>2</sub>O")]),
        ("<a href='x' title='y'>z</a> <B class=x>!</B>", [Text("<a>z</a> <b>!</b>")]),
        ('see <img src="a.png" alt="a door"/>.', [Text("see  a door .")]),
        ("a<!-- <foo> [pause 1s] -->b<!---->", [Text("a b ")]),
        ("<!-- " + "long " * 500 + "-->a", [Text(" a")]),
        ("<!DOCTYPE speak PUBLIC '-//W3C//DTD'><speak>a</speak>", [Text("a")]),
        ("<p class='x' hidden>One<p>Two", [Text("\n\nOne\n\nTwo")]),
        ("<s xml:lang='en'>One</s>", [SentenceEnd(), Text("One"), SentenceEnd()]),
        ('<phoneme alphabet="x-cmu" ph="P IY1">pea</phoneme>', [Text("(P IY1)")]),
        ('<say-as interpret-as="characters">aB-1</say-as>', [Text("a b dash one")]),
        (
            '<say-as interpret-as="date" format="dmy">1/2/99</say-as>',
            [Text("february first, nineteen ninety nine")],
        ),
    ],
)
def test_what_a_text_is_made_of(text: str, spans: list[Span]) -> None:
    for size in (None, 1, 2, 5):
        assert read(text, size) == spans, size


@pytest.mark.parametrize(
    "text",
    [
        "a < b, <3 and 5<6",
        "<b>bold</b><br><a>y</a> <em>z</em>",
        "[breath] <laughter>ha</laughter>",
        "[pause for effect] [sic] [1] list[str] [pauses]",
        "<you there> <https://example.com> <jane@example.com>",
        "x<y, x <y and z> <p",
        "a <brea",
        "it ends </",
        "[pause",
        "[pause and so on",
        "0 <s",
    ],
)
def test_what_is_text(text: str) -> None:
    for size in (None, 1, 3):
        assert read(text, size) == [Text(text)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\ntwo <foo>", "line 2, column 5: the element <foo> is not known; there are break"),
        ("<emphasis>a</emphasis>", "line 1, column 1: the element <emphasis> is not known"),
        ("<prosody pitch='high'>a", "<prosody> has no attribute 'pitch'; it has rate and volume."),
        ("<prosody rate='quick'>a", "rate is one of x-slow, slow"),
        ("<prosody volume='6'>a", "volume is one of silent"),
        ("<prosody volume='+30dB'>a", "the volume is at most"),
        ("<prosody>a", "needs a rate or a volume"),
        ("<voice>a", "<voice> needs a name"),
        ("<break time='soon'/>", "a pause has a length such as 0.8s or 500ms, not 'soon'."),
        ("<break time=1s/>", 'the attributes of <break> are written as name="value".'),
        ("<break time='1s' time='2s'/>", "has the attribute 'time' twice"),
        ("<break strength='huge'/>", "strength is one of none"),
        ("a [pause 61s]", "line 1, column 3: a pause lasts at most 60 s, not 61 s."),
        ("[pause 40s] [pause 30s]", "line 1, column 13: pauses in a row last at most 60 s."),
        ("[pause 2 bars]", "a pause has a length"),
        ("a</voice>", "line 1, column 2: </voice> closes nothing"),
        (
            "<voice name='a'><prosody rate='1'>b</voice>",
            "column 36: </voice> stands where <prosody",
        ),
        ("\n <voice name='a'>b", "line 2, column 2: <voice> is not closed."),
        ("<sub alias='x'>[pause 1s]</sub>", "a pause cannot stand inside <sub>."),
        ("<sub nick='x'>y</sub>", "<sub> has no attribute 'nick'"),
        ("<sub alias='x'>" + "y" * 1001, "holds more than 1000 characters"),
        ("<phoneme alphabet='klingon' ph='x'>y", "the alphabet of <phoneme> is ipa or x-cmu"),
        ("<phoneme>y</phoneme>", "needs a pronunciation"),
        ("<say-as interpret-as='money'>1</say-as>", "characters, date, telephone, not 'money'"),
        ("<say-as interpret-as='date'>2024-13-01</say-as>", "'2024-13-01' is no date"),
        ("<say-as interpret-as='date' format='xyz'>1</say-as>", "the format of a date is one of"),
        ("<say-as interpret-as='telephone'>***</say-as>", "nothing of '***' can be said"),
        ('ok\n <break time="500ms"', "line 2, column 2: the tag <break is not finished: > is"),
        ("a <break", "line 1, column 3: the tag <break is not finished"),
        ("<break time='1s' <b>so</b>", "line 1, column 1: the tag <break is not finished"),
        ("<voice name='a", "the tag <voice is not finished"),
        ("<a href='x' and so on", "line 1, column 1: the tag <a is not finished"),
        ("so </b", "line 1, column 4: the tag </b is not finished"),
        ("<break " + "x" * 1200, "the tag <break is not finished"),
        ("<break 500ms/>", 'the attributes of <break> are written as name="value".'),
        ('<prosody "slow">a', 'the attributes of <prosody> are written as name="value".'),
        ("a [pause 0.5s", "line 1, column 3: the pause is not finished: ] is missing."),
        ("a [pause 5s [breath]", "line 1, column 3: the pause is not finished: ] is missing."),
        ("a <!-- b", "line 1, column 3: the comment is not closed: --> is missing."),
        ("<s>One", "line 1, column 1: <s> is not closed."),
        ("<speak><p>One", "line 1, column 1: <speak> is not closed."),
        ("One</p>", "line 1, column 4: </p> closes nothing: <p> is not open."),
        ("One</s>", "line 1, column 4: </s> closes nothing: <s> is not open."),
        ("<p><voice name='a'>One</p>", "column 23: </p> stands where <voice> is open"),
        ("<speak><s>One</speak>", "</speak> stands where <s> is open, from line 1, column 8 on."),
        ("<s rate='x'>a</s>", "<s> has no attribute 'rate'; it has none."),
        ("<speak rate='x'>a</speak>", "<speak> has no attribute 'rate'; it has version."),
        ("<voice name='a'>b</voice name='a'>", "</voice> takes no attributes."),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, message: str) -> None:
    for size in (None, 1, 4):
        with pytest.raises(MarkupError) as error:
            read(text, size)
        assert message in str(error.value) and str(error.value).startswith("line ")


def test_mistakes_of_what_a_bundle_cannot_do() -> None:
    reader = MarkupReader()
    with pytest.raises(MarkupError, match="takes no pronunciations"):
        reader.feed("<phoneme ph='a'>b</phoneme>")
    with pytest.raises(MarkupError, match="is for English"):
        MarkupReader().feed("<say-as interpret-as='date'>1</say-as>")

    def refuse(style: Style) -> None:
        raise ValueError(f"there is no voice {style.voice!r}")

    with pytest.raises(MarkupError, match="line 1, column 3: there is no voice 'x'"):
        MarkupReader(check_style=refuse).feed("a <voice name='x'>b</voice>")


def test_what_is_said_as_something() -> None:
    for content, kind, form, said in [
        ("FBI 7", "characters", "", "f b i, seven"),
        ("a@b.c", "characters", "", "a at b dot c"),
        ("+1 (800) 555-0199", "telephone", "", "plus one, eight zero zero, five five five, "
         "zero one nine nine"),
        ("555-HELP ext 9", "telephone", "", "five five five, help, extension, nine"),
        ("2024-05-03", "date", "", "may third, twenty twenty four"),
        ("5/3/2024", "date", "", "may third, twenty twenty four"),
        ("3.5.2024", "date", "dmy", "may third, twenty twenty four"),
        ("3rd May", "date", "dm", "may third"),
        ("5/3", "date", "", "may third"),
        ("2024/5", "date", "ym", "may twenty twenty four"),
        ("1066", "date", "", "ten sixty six"),
    ]:  # fmt: skip
        assert normalize(english_say_as(content, kind, form)) == said
    with pytest.raises(ValueError, match="no date"):
        english_say_as("", "date", "")


def test_lengths() -> None:
    assert parse_seconds(" 250ms ") == 0.25 and parse_seconds(".5s") == 0.5
    for wrong in ("", "s", "1", "1m", "-1s", "1e3s", "nans"):
        with pytest.raises(ValueError, match="a pause has a length"):
            parse_seconds(wrong)


PARTS = st.sampled_from(
    ["Hello", " ", "<", ">", "[", "]", "[pause 1s]", "[pause", "<break time='1s'/>", "<b>", "</b>",
     "<voice name='a'>", "</voice>", "<sub alias='x y'>", "</sub>", "/", "'", "=", "\n", "\u2029",
     "<p>", "<s>", "é", "."]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, max_size=12).map("".join), st.integers(1, 9))
def test_how_a_text_is_cut_does_not_matter(text: str, size: int) -> None:
    text = text.replace("\u2029", "")  # dropped inside a tag only where a piece ends before it

    def outcome(cut: int | None) -> object:
        try:
            return read(text, cut)
        except MarkupError as error:
            return str(error)

    assert outcome(size) == outcome(None)


WORDS = ("alpha", "bravo", "delta")
AGREED = st.sampled_from(
    ["alpha", "bravo", "delta", " ", " ", "\n", ". ", "<", ">", "[", "] ", "=", "/", "'",
     "[pause 1s]", "[pause alpha] ", "<break time='1s'/>", "<break/>", "<b>", "</b>", "<br>",
     "<br/>", "<a href='alpha'>", "</a>", "<p class='bravo'>", "<p hidden>", "</p>", "<li>",
     "</li>", "<td align='delta'>", "<img src='alpha' alt='bravo'>", "<img src='delta'>", "<s>",
     "</s>", "<voice name='alpha'>", "</voice>", "<prosody rate='slow'>", "</prosody>",
     "<!-- alpha <b> [pause 9s] -->", "<alpha bravo>", "a < b", "x<y", "<3 ", "alpha</b>delta",
     "<o:p>", "</o:p>", "<sub>2</sub>", "<laughter>", "<br alpha>"]
)  # fmt: skip


def found_words(text: str) -> list[str]:
    return re.findall("|".join(WORDS), text.lower())


@settings(max_examples=200, deadline=None)
@given(st.lists(AGREED, max_size=12).map("".join), st.integers(1, 9), st.booleans())
def test_all_agree_on_what_is_text(text: str, size: int, is_english: bool) -> None:
    """The words that stand in a text are those that are said, and those that a lexicon sees."""
    front = frontend("english" if is_english else "none")
    reader = MarkupReader(keeps_html=front.reads_html)
    spans: list[Span] = []
    try:
        for start in range(0, len(text), size):
            spans += reader.feed(text[start : start + size])
        spans = joined_spans([*spans, *reader.finish()])
    except MarkupError:
        return
    words = reader.take_words()
    assert len(words) == len(text)
    stretches = [span.text for span in spans if isinstance(span, Text)]
    said = [word for stretch in stretches for word in front.words(stretch)]
    assert found_words(" ".join(said)) == found_words(words)
    written = WrittenWords(front)
    written.feed(words)
    written.finish()
    assert found_words(" ".join(word.text for word in written.written)) == found_words(words)
    # Names of elements and values of attributes are no words of a lexicon.
    names = {"b", "br", "a", "p", "li", "td", "voice", "alpha"}
    respeller = Respeller(names, lambda word, key: "bravo" if key == "alpha" else word)
    respelled = [word for stretch in stretches for word in front.words(respeller(stretch))]
    expected = found_words(re.sub("(?<![a-z])(?<![a-z]')alpha(?!'?[a-z])", "bravo", words))
    assert found_words(" ".join(respelled)) == expected
    if is_english:  # a front-end without a reader drops the same tags
        without = re.sub(r"\[pause 1s\]", " ", text)
        assert found_words(" ".join(front.words(without))) == found_words(words)
