"""Markup in what is spoken: pauses to the sample, voices, rate and volume, whole and streamed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inference.engine import StreamEngine
from tokenlm.audio.level import amplify, rms_dbfs
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.text import SegmentedText
from tokenlm.text.markup import MarkupError, MarkupReader
from tokenlm.text.tokenizers import PhonemeTokenizer

TEXT = (
    "[pause 0.31s]The quick brown fox. [pause 700ms] <voice name='bob'>Is it so? <prosody "
    'rate="80%" volume="-6dB">Yes, it is</prosody> one!</voice> <s>Well</s> Two.[pause 1.23s]'
)
RATE = 24_000


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def zeros_at_start(waveform: Tensor) -> int:
    return int(torch.nonzero(waveform)[0])


@pytest.mark.parametrize(("layout", "speed"), [("one_shot", 1.3), ("interleaved", 1.0)])
def test_streamed_equals_whole(synthesizer: Synthesizer, layout: Any, speed: float) -> None:
    options: dict[str, Any] = {"voice": "ann", "seed": 2, "layout": layout, "speed": speed}
    whole = synthesizer.generate(TEXT, **options)
    stream = synthesizer.stream(TEXT, **options)
    torch.testing.assert_close(torch.cat(list(stream)), whole, atol=1e-4, rtol=0)
    facts = stream.speech_tokens, stream.pauses, stream.styles
    assert [style.voice for style in stream.styles] == ["", "bob", "bob", "bob", "", ""]
    for size in (1, 11):
        stream = synthesizer.stream(iter(pieces(TEXT, size)), **options)
        torch.testing.assert_close(torch.cat(list(stream)), whole, atol=1e-4, rtol=0)
        assert (stream.speech_tokens, stream.pauses, stream.styles) == facts
    del options["layout"]
    again = synthesizer.render(facts[0], pauses=facts[1], styles=facts[2], **options)
    torch.testing.assert_close(again, whole, atol=1e-4, rtol=0)


def test_the_engine_speaks_the_same(synthesizer: Synthesizer) -> None:
    whole = synthesizer.generate(TEXT, voice="ann", seed=2)

    async def speak() -> list[Tensor]:
        engine = StreamEngine(synthesizer)
        try:
            streams = [await engine.open(TEXT, voice="ann", seed=2) for _ in range(2)]
            return [torch.cat([chunk async for chunk in stream]) for stream in streams]
        finally:
            await engine.close()

    for heard in asyncio.run(speak()):
        torch.testing.assert_close(heard, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("speed", [0.7, 1.0, 1.1])
def test_silence_is_exact_to_the_sample(synthesizer: Synthesizer, speed: float) -> None:
    def length(text: str) -> int:
        whole = synthesizer.generate(text, speed=speed)
        stream = synthesizer.stream(text, speed=speed)
        assert sum(chunk.shape[0] for chunk in stream) == whole.shape[0]
        return whole.shape[0]

    plain = synthesizer.generate("Is it so?", speed=speed)
    for seconds in (0.001, 0.29, 1.1):
        count = round(seconds * RATE)
        spoken = synthesizer.generate(f"[pause {seconds}s]Is it so?", speed=speed)
        torch.testing.assert_close(spoken[count:], plain, atol=0, rtol=0)
        assert not spoken[:count].any()
    between = "The quick brown fox. [pause {}] Yes, it is one."
    assert length(between.format("2s")) - length(between.format("1500ms")) == RATE // 2
    after = length("Is it so?[pause 3s]") - length("Is it so?[pause 2.9s]")
    assert after == RATE // 10
    # Several in a row are one.
    assert length("It is.[pause 1s] <break time='1s'/>") == length("It is. [pause 2s]")


def test_a_stream_ends_with_the_silence_after_its_text(synthesizer: Synthesizer) -> None:
    whole = synthesizer.generate("Is it so? [pause 2s]")
    assert not whole[-int(1.5 * RATE) :].any()
    stream = synthesizer.stream(iter(["Is it so?", " [pause 1s]", "[pause", " 1s]"]))
    heard = torch.cat(list(stream))
    assert heard.shape == synthesizer.generate("Is it so? [pause 2s]", layout="interleaved").shape
    assert len(stream.pauses) == len(stream.speech_tokens) + 1


def test_gaps(synthesizer: Synthesizer) -> None:
    text = "It is one. Two.\n\nThree, four."

    def segments(**options: Any) -> list[tuple[str, float]]:
        session = synthesizer.open_session(text, **options)
        found = [(part.text, round(part.pause_seconds, 3)) for part in session.text.segments]
        session.close()
        return found

    assert segments() == [("it is one. two.", 0.6), ("three, four.", 0.0)]
    assert segments(sentence_gap=1.0) == [("it is one.", 1.0), ("two.", 0.6), ("three, four.", 0.0)]
    assert segments(paragraph_gap=2.0) == [("it is one. two.", 2.0), ("three, four.", 0.0)]
    assert segments(paragraph_gap=0.0) == [("it is one. two.", 0.0), ("three, four.", 0.0)]
    lengths = [
        synthesizer.generate(text, sentence_gap=gap, speed=1.3).shape[0] for gap in (1.0, 1.25)
    ]
    assert lengths[1] - lengths[0] == RATE // 4
    options: dict[str, Any] = {"sentence_gap": 0.9, "paragraph_gap": 1.4}
    for layout in ("one_shot", "interleaved"):
        whole = synthesizer.generate(text, layout=layout, **options)  # type: ignore[arg-type]
        stream = synthesizer.stream(iter(pieces(text, 4)), layout=layout, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(torch.cat(list(stream)), whole, atol=1e-4, rtol=0)
    for name in ("sentence_gap", "paragraph_gap"):
        with pytest.raises(ValueError, match=f"{name} must be from 0 to 60 seconds"):
            synthesizer.generate(text, **{name: -1.0})  # type: ignore[arg-type]


def test_paragraphs_go_on_behind_an_element(synthesizer: Synthesizer) -> None:
    for text in (
        "<voice name='bob'>It is one.</voice>\n\nTwo, three.",
        "<voice name='bob'><p>It is one.</p></voice><p>Two, three.</p>",
        "It is one.\n\n<voice name='bob'>Two, three.</voice>",
    ):
        for size in (1, 4, 100):
            session = synthesizer.open_session(None, layout="one_shot")
            for piece in pieces(text + "\n\nFour.", size):
                session.text.feed(piece)
            session.text.finish()
            pauses = [part.pause_seconds for part in session.text.segments]
            assert pauses == [0.6, 0.6, 0.0], (text, size)
            session.close()


def test_marks_between_elements_are_no_segment(synthesizer: Synthesizer) -> None:
    text = "<voice name='bob'>It is one</voice>. <voice name='ann'>Two, three</voice> …"
    for layout in ("one_shot", "interleaved"):
        session = synthesizer.open_session(text, layout=layout)  # type: ignore[arg-type]
        assert [part.text for part in session.text.segments] == ["it is one.", "two, three."]
        session.close()


def test_a_volume_changes_the_level_alone(synthesizer: Synthesizer) -> None:
    plain = synthesizer.generate("Is it so?", seed=5)
    for volume, decibels in (("-6dB", -6.0), ("loud", 4.0)):
        text = f'<prosody volume="{volume}">Is it so?</prosody>'
        torch.testing.assert_close(
            synthesizer.generate(text, seed=5), amplify(plain, decibels), atol=1e-6, rtol=0
        )
    assert not synthesizer.generate('<prosody volume="silent">Is it so?</prosody>').any()


def test_amplify() -> None:
    wave = 0.2 * torch.sin(torch.arange(4800) / 10)
    assert amplify(wave, 0.0) is wave
    assert rms_dbfs(amplify(wave, -6.0)) == pytest.approx(rms_dbfs(wave) - 6.0)
    assert rms_dbfs(amplify(wave, 6.0)) == pytest.approx(rms_dbfs(wave) + 6.0)
    loud = amplify(wave, 20.0)
    assert 0.8 < loud.abs().max() <= 1.0
    torch.testing.assert_close(
        torch.cat([amplify(wave[:99], 20.0), amplify(wave[99:], 20.0)]), loud
    )


def test_a_rate_is_a_speed(synthesizer: Synthesizer) -> None:
    plain = synthesizer.generate("Is it so?", seed=5, speed=1.2)
    text = '<prosody rate="120%">Is it so?</prosody>'
    torch.testing.assert_close(synthesizer.generate(text, seed=5), plain, atol=1e-6, rtol=0)


def test_mistakes(synthesizer: Synthesizer) -> None:
    with pytest.raises(MarkupError, match="line 1, column 7: .*nobody"):
        synthesizer.generate("It is <voice name='nobody'>one.</voice>")
    with pytest.raises(MarkupError, match="line 1, column 1: speed must be from 0.25 to 4"):
        synthesizer.generate("<prosody rate='300%'>It is one.</prosody>", speed=2.0)
    with pytest.raises(MarkupError, match="takes no pronunciations"):
        synthesizer.generate("<phoneme ph='ə'>a</phoneme>")
    with pytest.raises(ValueError, match="nothing that can be said"):
        synthesizer.generate("[pause 1s]")
    stream = synthesizer.stream(iter(["It is one. ", "<fo", "o> Two."]))
    with pytest.raises(MarkupError, match="line 1, column 12: the element <foo> is not known"):
        list(stream)
    for text, message in (
        ('It is one. <break time="500ms"', "line 1, column 12: the tag <break is not finished"),
        ("It is. <prosody rate='slow'>Two.", "line 1, column 8: <prosody> is not closed"),
        ("<s>It is. Two.", "line 1, column 1: <s> is not closed"),
        ("It is.</p> Two.", "line 1, column 7: </p> closes nothing"),
    ):
        with pytest.raises(MarkupError, match=message):
            synthesizer.generate(text)
        with pytest.raises(MarkupError, match=message):
            list(synthesizer.stream(iter(pieces(text, 3))))
    for text in ("Is 1 <b or a < b, x<y", "I <3 it", "It ends <brea"):  # so far only text
        assert synthesizer.generate(text).shape[0]


def test_without_markup_brackets_are_text(synthesizer: Synthesizer) -> None:
    session = synthesizer.open_session("a [pause 1s] <foo> b.", markup=False)
    assert [part.text for part in session.text.segments] == ["a, pause one second, b."]
    session.close()


def test_pronunciations_in_a_text() -> None:
    folder = Path(__file__).resolve().parents[2] / "checkpoints" / "mini-en" / "text_tokenizer"
    tokenizer = PhonemeTokenizer.from_folder(folder)
    for layout in ("one_shot", "interleaved"):
        for size in (1, 7, 1000):
            text = SegmentedText(
                tokenizer.encode,
                max_length=160,
                layout=layout,  # type: ignore[arg-type]
                encode_prefix=tokenizer.encode_prefix,
                markup=MarkupReader(spell=tokenizer.spell),
            )
            for piece in pieces(
                'A <phoneme alphabet="x-cmu" ph="P IH0 K AE1 N">pecan</phoneme>\'s shell, '
                '<phoneme ph="pɪˈkɑːn">pecan</phoneme>, <phoneme ph="ˈzɔrp">x</phoneme>.',
                size,
            ):
                text.feed(piece)
            text.finish()
            ids = [index for part in text.segments for index in part.tokens]
            assert tokenizer.decode(ids) == (
                "ey | p ih k ae1 n z | sh eh1 l , | p ih k aa1 n , | z ao1 r p ."
            )
    with pytest.raises(ValueError, match="no phone of the CMU dictionary"):
        tokenizer.spell("Q Q", "x-cmu")
