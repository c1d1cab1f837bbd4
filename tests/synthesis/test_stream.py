"""Streams of tiny random models: equal to whole speech, apart from one another, freed at once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.models.lm.decoding import KeyValueCache, decode_step
from tokenlm.modules.streaming import Context
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.rendering import render_chunks
from tokenlm.synthesis.session import Session, render_sessions
from tokenlm.synthesis.stream import SynthesisStream
from tokenlm.text.markup import Style

TEXT = "The quick brown fox jumps over it. Is it so? Well; yes, it is one!"


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


def heard(stream: SynthesisStream) -> Tensor:
    return torch.cat(list(stream))


@pytest.mark.parametrize(
    "context",
    [
        "default",
        Context(chunk_frames=3, left_frames=5),
        Context(chunk_frames=7, chunk_step_frames=(1, 4)),
        Context(chunk_frames=200, left_frames=0),
    ],
)
def test_streamed_equals_generate(synthesizer: Synthesizer, context: Any) -> None:
    check_equal(synthesizer, seed=3, context=context)


@pytest.mark.parametrize("speed", [0.6, 1.7])
def test_streamed_equals_generate_at_any_speed(synthesizer: Synthesizer, speed: float) -> None:
    check_equal(synthesizer, seed=4, speed=speed, context=Context(chunk_frames=5))
    duration = synthesizer.render([[3] * 100], speed=speed).shape[0] / 24_000
    assert duration == pytest.approx(4.0 / speed, abs=0.05)


def check_equal(synthesizer: Synthesizer, **options: Any) -> None:
    """A stream, whole speech, and speech that is rendered again are the same."""
    whole = synthesizer.generate(TEXT, **options)
    stream = synthesizer.stream(TEXT, **options)
    assert stream.sample_rate == 24_000
    chunks = list(stream)
    assert all(chunk.ndim == 1 and chunk.dtype == torch.float32 for chunk in chunks)
    assert not any(chunk.is_inference() or chunk.shape[0] == 0 for chunk in chunks)
    torch.testing.assert_close(torch.cat(chunks), whole, atol=1e-4, rtol=0)
    again = synthesizer.render(stream.speech_tokens, pauses=stream.pauses, **options)
    torch.testing.assert_close(again, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", ["one_shot", "interleaved"])
def test_layouts_and_voices_without_words(synthesizer: Synthesizer, layout: Any) -> None:
    for voice in (synthesizer.voice("bob"), replace(synthesizer.voice("bob"), prompt_text="")):
        options: dict[str, Any] = {"seed": 1, "voice": voice, "layout": layout}
        whole = synthesizer.generate("is it one?", **options)
        streamed = heard(synthesizer.stream("is it one?", **options))
        torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", ["one_shot", "interleaved"])
def test_how_the_text_is_cut_does_not_matter(synthesizer: Synthesizer, layout: Any) -> None:
    whole = synthesizer.stream(TEXT, seed=5, layout=layout)
    expected = heard(whole)
    for size in (1, 17):
        pieces = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
        stream = synthesizer.stream(iter(pieces), seed=5, layout=layout)
        assert torch.equal(heard(stream), expected), size
        assert stream.speech_tokens == whole.speech_tokens
        assert stream.num_text_tokens == whole.num_text_tokens > 50


def test_speech_begins_before_the_text_ends(synthesizer: Synthesizer) -> None:
    """Pieces are interleaved unless told otherwise, and no more is read than is needed."""
    num_read = 0

    def words() -> Iterator[str]:
        nonlocal num_read
        for number in range(40):
            num_read = number
            yield "the quick brown fox "

    with synthesizer.stream(words(), voice=wordless(synthesizer)) as stream:
        next(stream)
        assert num_read < 10


def wordless(synthesizer: Synthesizer) -> Any:
    """A voice that the LM has not to go on from."""
    return replace(synthesizer.voice("ann"), prompt_text="")


def forced(synthesizer: Synthesizer, count: int, **options: Any) -> Session:
    """A session that says `count` given tokens in one segment."""
    generator = torch.Generator().manual_seed(count)
    tokens = torch.randint(27, (count,), generator=generator).tolist()
    return synthesizer.open_session("Is it so?", forced_tokens=[tokens], **options)


def test_a_long_sentence_is_heard_as_soon_as_a_short_one(synthesizer: Synthesizer) -> None:
    """The first chunk of 25 s comes after the tokens that it needs, 6 and a look-ahead of 3."""
    for count in (75, 625):
        session = forced(synthesizer, count)
        stream = SynthesisStream(session, 24_000)
        next(stream)
        assert sum(map(len, stream.speech_tokens)) == 9
        stream.close()


def test_chunks_grow_and_nothing_else_is_held_back(synthesizer: Synthesizer) -> None:
    """After each chunk all but look-ahead has been heard, of the vocoder 2 frames."""
    stream = SynthesisStream(forced(synthesizer, 100), 24_000)
    boundaries = [6, 18, 43, 68, 93]
    total = 0
    for boundary, chunk in zip(boundaries, stream, strict=False):
        total += chunk.shape[0]
        assert len(stream.speech_tokens[0]) == boundary + 3
        assert total == boundary * 960 - 2 * 480
    total += sum(chunk.shape[0] for chunk in stream)
    assert total == 100 * 960


@pytest.mark.parametrize("count", [43, 44, 46, 60])
def test_the_last_chunk_is_like_the_others(synthesizer: Synthesizer, count: int) -> None:
    """At its end a stream is what whole speech with the same masks is, to the last sample."""
    session = forced(synthesizer, count)
    assert session._forced is not None
    whole = synthesizer.render(session._forced)
    streamed = heard(SynthesisStream(session, 24_000))
    assert whole.shape[0] == count * 960
    torch.testing.assert_close(streamed, whole, atol=1e-5, rtol=0)
    full = synthesizer.render(session._forced, context="full")
    assert not torch.allclose(full[-960:], whole[-960:], atol=5e-5)


@pytest.mark.slow
def test_state_is_constant(synthesizer: Synthesizer) -> None:
    """A minute of speech in one segment: 1,500 tokens."""
    stream = SynthesisStream(forced(synthesizer, 1500), 24_000)
    sizes, seconds = [], 0.0
    for chunk in stream:
        seconds += chunk.shape[0] / 24_000
        if seconds > 10 and stream.num_state_bytes:
            sizes.append(stream.num_state_bytes)
    assert seconds == pytest.approx(60)
    assert len(sizes) >= 48 and len(set(sizes[:-1])) == 1


def test_interleaved_streams_do_not_touch_each_other(synthesizer: Synthesizer) -> None:
    options = [{"seed": 1, "voice": "ann"}, {"seed": 2, "voice": "bob", "num_steps": 3}]
    texts = [TEXT, "one fox, two dogs; three of each."]
    apart = [
        list(synthesizer.stream(text, **option))
        for text, option in zip(texts, options, strict=True)
    ]
    first, second = (
        synthesizer.stream(text, **option) for text, option in zip(texts, options, strict=True)
    )
    together: list[list[Tensor]] = [[], []]
    for index, stream in [(0, first), (1, second)] * 100:
        chunk = next(stream, None)
        if chunk is not None:
            together[index].append(chunk)
    for alone, chunks in zip(apart, together, strict=True):
        assert len(alone) == len(chunks)
        assert all(torch.equal(a, b) for a, b in zip(alone, chunks, strict=True))


def test_batched_sessions_equal_single_ones(synthesizer: Synthesizer) -> None:
    """With forced tokens: logits and waveform; sessions join and leave at any step."""
    counts = (40, 75, 10)
    options: list[dict[str, Any]] = [
        {"voice": "ann", "seed": 1},
        {"voice": "bob", "seed": 2},
        {"voice": wordless(synthesizer), "seed": 3},
    ]
    expected, expected_logits = [], []
    for count, option in zip(counts, options, strict=True):
        session, waveforms, logits = forced(synthesizer, count, **option), [], []
        while not session.is_done:
            if session.can_render:
                waveforms.append(session.render())
            elif session.can_step():
                decoding = session.decoding
                assert decoding is not None
                decode_step(decoding.model, [decoding])
                logits.append(decoding.logits)
                session.collect()
        expected.append(torch.cat(waveforms))
        expected_logits.append(logits)
    cache = KeyValueCache(synthesizer.components.speech_lm)
    sessions = [
        forced(synthesizer, count, cache=cache, **option)
        for count, option in zip(counts, options, strict=True)
    ]
    waveforms = [[] for _ in sessions]
    seen: list[list[Tensor]] = [[] for _ in sessions]
    for round_number in range(200):
        live = [i for i in range(3) if round_number >= 7 * i and not sessions[i].is_done]
        ready = [i for i in live if sessions[i].can_render]
        if ready and round_number % 4 == 0:
            chunks = render_sessions([sessions[i] for i in ready])
            for index, chunk in zip(ready, chunks, strict=True):
                waveforms[index].append(chunk)
        stepping = [i for i in live if sessions[i].can_step()]
        decodings = [sessions[i].decoding for i in stepping]
        decode_step(synthesizer.components.speech_lm, [d for d in decodings if d is not None])
        for index, decoding in zip(stepping, decodings, strict=True):
            assert decoding is not None and decoding.logits is not None
            seen[index].append(decoding.logits)
            sessions[index].collect()
    assert all(session.is_done for session in sessions)
    assert cache.num_bytes == 0
    for index in range(3):
        joined = torch.cat(waveforms[index])
        torch.testing.assert_close(joined, expected[index], atol=1e-4, rtol=0)
        assert len(seen[index]) == len(expected_logits[index]) == counts[index]
        torch.testing.assert_close(
            torch.stack(seen[index]), torch.stack(expected_logits[index]), atol=1e-4, rtol=0
        )


def test_closing_early_frees_everything(synthesizer: Synthesizer) -> None:
    stream = synthesizer.stream(TEXT)
    next(stream)
    assert stream.num_state_bytes > 0 and stream.num_cache_bytes > 0
    stream.close()
    assert stream.num_state_bytes == stream.num_cache_bytes == 0
    assert list(stream) == []
    stream.close()
    assert stream.speech_tokens and stream.num_text_tokens > 0


def test_an_error_of_the_text_frees_everything(synthesizer: Synthesizer) -> None:
    def pieces() -> Iterator[str]:
        yield "the quick brown fox jumps over the lazy dog and " * 5
        raise OSError("the line went dead")

    stream = synthesizer.stream(pieces(), voice=wordless(synthesizer))
    with pytest.raises(OSError, match="went dead"):
        list(stream)
    assert stream.num_state_bytes == stream.num_cache_bytes == 0
    assert list(stream) == []


def test_a_dropped_stream_is_freed_at_once(synthesizer: Synthesizer) -> None:
    stream = synthesizer.stream(TEXT)
    next(stream)
    session = stream._session
    flow = weakref.ref(session.renderer.flow)
    gc.disable()
    try:
        del stream
        assert session.is_closed and flow() is None
    finally:
        gc.enable()


def test_leaving_the_block_closes(synthesizer: Synthesizer) -> None:
    with synthesizer.stream(TEXT) as stream:
        next(stream)
    assert stream.num_state_bytes == 0


def test_mistakes(synthesizer: Synthesizer) -> None:
    for text in ("", "🙂"):
        with pytest.raises(ValueError, match="nothing that can be said"):
            synthesizer.stream(text)
        with pytest.raises(ValueError, match="nothing that can be said"):
            list(synthesizer.stream(iter([text, " "])))
    with pytest.raises(ValueError, match="full context cannot be streamed"):
        synthesizer.stream("so.", context="full")
    for speed in (0.2, 4.5):
        with pytest.raises(ValueError, match="speed must be from 0.25 to 4"):
            synthesizer.stream("so.", speed=speed)
        with pytest.raises(ValueError, match="speed must be from 0.25 to 4"):
            synthesizer.generate("so.", speed=speed)
    with pytest.raises(ValueError, match="layout must be"):
        synthesizer.stream("so.", layout="spiral")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="numbers from 0 to 26"):
        synthesizer.render([[27]])
    with pytest.raises(ValueError, match="3 pauses for 1 segments"):
        synthesizer.render([[1]], pauses=[0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="2 styles for 1 segments"):
        synthesizer.render([[1]], styles=[Style(), Style()])


def test_render_needs_no_text(synthesizer: Synthesizer) -> None:
    assert synthesizer.render([]).shape == (0,)
    assert synthesizer.render([[], [3] * 20]).shape[0] == 20 * 960


def test_nothing_to_render_chunks(synthesizer: Synthesizer) -> None:
    assert render_chunks([]) == []
