"""Many streams at once, on tiny random models."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inference import engine as engine_module
from inference.engine import EngineError, EngineStream, StreamEngine
from tokenlm.models.lm import decoding as decoding_module
from tokenlm.models.lm.decoding import KeyValueCache, decode_step
from tokenlm.synthesis import Speech, Synthesizer
from tokenlm.synthesis import session as session_module
from tokenlm.synthesis import voice as voice_module
from tokenlm.synthesis.session import Session
from tokenlm.text import normalize as normalize_module

TEXTS = ["Is it so?", "Yes, it is! The quick brown fox.", "well; one: two, three."]
LONG = [[3, 5, 7] * 100]


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


@pytest.fixture(scope="module")
def guided(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    """Speaks with guidance of the LM, and several candidates where speech is whole."""
    folder = tmp_path_factory.mktemp("guided") / "bundle"
    shutil.copytree(tiny_bundle, folder)
    path = folder / "bundle.yaml"
    guards = "generation:\n  guards: {guidance_scale: 0.5, num_candidates: 3}\n"
    path.write_text(path.read_text().replace("generation:\n", guards))
    return Synthesizer.from_pretrained(folder)


@pytest.fixture
def with_engine(
    synthesizer: Synthesizer,
) -> Iterator[Callable[..., None]]:
    """Runs a coroutine with an engine of three streams, and checks that nothing is left."""

    def run(
        work: Callable[[StreamEngine], Awaitable[None]], speaks_with: Synthesizer | None = None
    ) -> None:
        async def main() -> None:
            engine = StreamEngine(speaks_with or synthesizer, max_streams=3)
            try:
                await asyncio.wait_for(work(engine), 120)
            finally:
                await engine.close(0)
            assert engine.num_live == 0 and engine._cache.num_bytes == 0
            assert engine._cache.rows == []
            assert not engine._worker.is_alive()

        asyncio.run(main())

    yield run


async def listen(stream: EngineStream) -> Tensor:
    return torch.cat([chunk async for chunk in stream])


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def test_streams_are_what_render_gives(synthesizer: Synthesizer, with_engine) -> None:
    async def work(engine: StreamEngine) -> None:
        assert engine.sample_rate == 24_000
        options = [{"voice": "ann"}, {"voice": "bob", "speed": 1.3}, {"seed": 9}]
        streams = [
            await engine.open(text, **option) for text, option in zip(TEXTS, options, strict=True)
        ]
        heard = await asyncio.gather(*map(listen, streams))
        for waveform, stream, option in zip(heard, streams, options, strict=True):
            assert waveform.dtype == torch.float32 and stream.num_text_tokens > 0
            again = synthesizer.render(stream.speech_tokens, pauses=stream.pauses, **option)
            torch.testing.assert_close(waveform, again, atol=1e-4, rtol=0)
        assert engine.num_live == 0

    with_engine(work)


def test_text_in_pieces(synthesizer: Synthesizer, with_engine) -> None:
    async def pieces(text: str) -> AsyncIterator[str]:
        for sign in text:
            await asyncio.sleep(0)
            yield sign

    async def work(engine: StreamEngine) -> None:
        stream = await engine.open(pieces(TEXTS[1]), seed=4)
        waveform = await listen(stream)
        expected = torch.cat(list(synthesizer.stream(iter([TEXTS[1]]), seed=4)))
        torch.testing.assert_close(waveform, expected, atol=1e-4, rtol=0)

    with_engine(work)


def test_a_slow_reader_pauses_its_own_stream(with_engine) -> None:
    async def work(engine: StreamEngine) -> None:
        slow = await engine.open("so.", max_buffer_seconds=1.0, forced_tokens=LONG)
        await until(lambda: slow.buffered_seconds >= 1.0)
        held = slow.buffered_seconds
        fast = await engine.open("so.", seed=1, forced_tokens=[LONG[0][:100]])
        assert (await listen(fast)).shape[0] == 100 * 960
        assert slow.buffered_seconds == held < 3.0 and engine.num_live == 1
        rest = await listen(slow)
        assert rest.shape[0] == 300 * 960

    with_engine(work)


def test_who_leaves_is_freed(with_engine) -> None:
    async def work(engine: StreamEngine) -> None:
        first = await engine.open("so.", forced_tokens=LONG)
        other = await engine.open("so.", seed=1, forced_tokens=[LONG[0][:150]])
        await anext(first)
        await first.aclose()
        assert first._request.session.is_closed and engine.num_live <= 1
        assert [chunk async for chunk in first] == []
        await first.aclose()
        cancelled = await engine.open("so.", seed=2, max_buffer_seconds=0.1, forced_tokens=LONG)
        reader = asyncio.create_task(listen(cancelled))
        await until(lambda: cancelled._request.started_at is not None)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await until(lambda: cancelled._request.session.is_closed)
        dropped = await engine.open("so.", seed=3, max_buffer_seconds=0.1, forced_tokens=LONG)
        session = dropped._request.session
        del dropped
        gc.collect()
        await until(lambda: session.is_closed)
        assert (await listen(other)).shape[0] == 150 * 960

    with_engine(work)


def test_errors_concern_their_own_stream(with_engine) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "the quick brown fox "
        raise OSError("the line went dead")

    async def nothing() -> AsyncIterator[str]:
        yield "  "

    async def work(engine: StreamEngine) -> None:
        for text, options in (("", {}), ("so.", {"speed": 9.0}), ("so.", {"voice": "eve"})):
            with pytest.raises(ValueError):
                await engine.open(text, **options)
        with pytest.raises(ValueError, match="max_buffer_seconds must be positive"):
            await engine.open("so.", max_buffer_seconds=0)
        good = await engine.open(TEXTS[1])
        bad, silent = await engine.open(broken()), await engine.open(nothing())
        with pytest.raises(OSError, match="went dead"):
            await listen(bad)
        with pytest.raises(ValueError, match="nothing that can be said"):
            await listen(silent)
        assert (await listen(good)).shape[0] > 0

    with_engine(work)


def test_there_are_no_more_streams_than_allowed(with_engine) -> None:
    async def work(engine: StreamEngine) -> None:
        options = {"max_buffer_seconds": 0.1, "forced_tokens": LONG}
        streams = [await engine.open("so.", **options) for _ in range(3)]
        assert engine.num_live == 3
        with pytest.raises(EngineError, match="3 streams already"):
            await engine.open("so.")
        await streams[0].aclose()
        streams.append(await engine.open("so.", **options))
        assert engine.num_live == 3

    with_engine(work)


def test_closing_lets_streams_end(synthesizer: Synthesizer) -> None:
    async def work() -> None:
        engine = StreamEngine(synthesizer)
        stream = await engine.open("so.", forced_tokens=[LONG[0][:100]])
        reader = asyncio.create_task(listen(stream))
        closing = asyncio.create_task(engine.close(None))
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match="closing"):
            await engine.open("so.")
        assert (await reader).shape[0] == 100 * 960
        await closing
        engine = StreamEngine(synthesizer)
        stuck = await engine.open("so.", max_buffer_seconds=0.1, forced_tokens=LONG)
        await engine.close(0.05)
        with pytest.raises(EngineError, match="was closed"):
            await listen(stuck)
        assert stuck._request.session.is_closed

    asyncio.run(work())


def test_impossible_sizes(synthesizer: Synthesizer) -> None:
    with pytest.raises(ValueError, match="max_streams must be at least 1"):
        StreamEngine(synthesizer, max_streams=0)


SAYS = "The quick brown fox jumps over it. Is it so? Well; yes, it is one!"


def pieces_of(text: str, error: Exception | None = None) -> AsyncIterator[str]:
    async def pieces() -> AsyncIterator[str]:
        for word in text.split(" "):
            await asyncio.sleep(0)
            yield word + " "
        if error is not None:
            raise error

    return pieces()


def moved(session: Session, until_: str) -> None:
    """Moves a session on its own to a place where it may be left."""
    model = session._components.speech_lm
    if until_ == "opened":
        return
    for _ in range(2000):
        if session.can_render:
            session.render()
        if not session.can_step():
            if session.is_done:
                return
            continue
        decoding = session.decoding
        assert decoding is not None
        if until_ == "begun":
            return
        decode_step(model, [decoding], max_positions=1)
        session.collect()
        begun = len(session.speech_tokens)
        if until_ == "start half read" and not decoding.is_prefilled:
            return
        if until_ == "in the middle" and sum(map(len, session.speech_tokens)) == 5:
            return
        if until_ == "after a segment" and begun > 1:
            return
    raise AssertionError(f"never {until_}")


@pytest.mark.parametrize(
    ("is_guided", "layout"), [(False, "one_shot"), (True, "one_shot"), (True, "interleaved")]
)
@pytest.mark.parametrize(
    "place", ["opened", "begun", "start half read", "in the middle", "after a segment"]
)
def test_a_session_that_is_left_leaves_no_row(
    synthesizer: Synthesizer, guided: Synthesizer, is_guided: bool, layout: Any, place: str
) -> None:
    speaks_with = guided if is_guided else synthesizer
    cache = KeyValueCache(speaks_with.components.speech_lm)
    other = speaks_with.open_session(SAYS, cache=cache)
    moved(other, "in the middle")
    rows = list(cache.rows)
    assert len(rows) == 1 + is_guided
    session = speaks_with.open_session(SAYS, seed=1, layout=layout, cache=cache)
    moved(session, place)
    session.close()
    session.close()
    assert cache.rows == rows
    other.close()
    assert cache.rows == []


@pytest.mark.parametrize("is_guided", [False, True])
def test_rows_after_every_way_to_leave(
    synthesizer: Synthesizer, guided: Synthesizer, is_guided: bool, with_engine
) -> None:
    speaks_with = guided if is_guided else synthesizer

    async def work(engine: StreamEngine) -> None:
        stays = await engine.open("so.", max_buffer_seconds=0.1, forced_tokens=LONG)
        await anext(stays)

        async def only_one() -> None:
            await until(lambda: engine.num_live == 1)
            assert len(engine._cache.rows) == 1 + is_guided

        for whole in (True, False):

            async def opened(error: Exception | None = None, whole: bool = whole) -> EngineStream:
                text = SAYS if whole and error is None else pieces_of(SAYS, error)
                return await engine.open(text, seed=1, max_buffer_seconds=0.1)

            await (await opened()).aclose()  # before its first token
            await only_one()
            stream = await opened()
            await anext(stream)
            await stream.aclose()  # in the middle
            await only_one()
            request = (stream := await opened())._request
            reader = asyncio.create_task(listen(stream))
            del stream
            await until(lambda request=request: bool(request.session.speech_tokens))
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            await only_one()
            stream = await opened()
            await anext(stream)
            del stream
            gc.collect()
            await only_one()
            with pytest.raises(OSError, match="went dead"):
                await listen(await opened(OSError("the line went dead")))
            await only_one()
            opening = asyncio.create_task(opened())
            await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait([opening])
            await only_one()
            await listen(await opened())  # to its end
            await only_one()
        await stays.aclose()

    with_engine(work, speaks_with)


def test_whole_speech_with_candidates_leaves_no_cache(
    guided: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and the cache that they are in go together, after an error too."""
    caches: list[weakref.ref[KeyValueCache]] = []
    original = KeyValueCache.__init__

    def noted(self: KeyValueCache, *arguments: Any) -> None:
        original(self, *arguments)
        caches.append(weakref.ref(self))

    monkeypatch.setattr(KeyValueCache, "__init__", noted)
    guided.generate("is it so?", seed=1)

    def stop(share: float) -> None:
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        guided.generate("is it so?", seed=1, on_progress=stop)
    gc.collect()
    assert len(caches) >= 2 and all(cache() is None for cache in caches)


def test_text_and_prompts_are_read_off_the_worker(
    synthesizer: Synthesizer, with_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In threads of the requests: a text or prompt that takes for ever is waited for by nobody."""
    blocked, threads = threading.Event(), set()
    original, read = normalize_module.normalize_paragraphs, voice_module.prefill

    def slow(text: str, **settings: Any) -> list[str]:
        threads.add(threading.current_thread().name)
        if "dog" in text:
            assert blocked.wait(60)
        return original(text, **settings)

    def slow_prefix(model: Any, sequence: Any, *additions: Any) -> Any:
        threads.add(threading.current_thread().name)
        if not sequence.prompt_tokens:
            assert blocked.wait(60)
        return read(model, sequence, *additions)

    async def work(engine: StreamEngine) -> None:
        synthesizer.prompts.clear()
        monkeypatch.setattr(normalize_module, "normalize_paragraphs", slow)
        monkeypatch.setattr(voice_module, "prefill", slow_prefix)
        text = await engine.open(pieces_of("one dog, two dogs, three dogs it is, four dogs."))
        wordless = replace(synthesizer.voice("bob"), prompt_text="")
        prompt = asyncio.create_task(engine.open("so.", voice=wordless))
        await asyncio.sleep(0.05)
        assert (await listen(await engine.open("so.", seed=1))).shape[0] > 0
        assert not prompt.done() and text.speech_tokens == []
        blocked.set()
        assert (await listen(text)).shape[0] > 0
        assert (await listen(await prompt)).shape[0] > 0
        assert threads and all(name.startswith("tokenlm-reader") for name in threads)

    with_engine(work)


def test_a_long_text_is_read_a_little_at_a_time(
    with_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = normalize_module.IncrementalNormalizer.feed

    def counted(self: normalize_module.IncrementalNormalizer, piece: str) -> list[str]:
        sizes.append(len(piece))
        return original(self, piece)

    async def work(engine: StreamEngine) -> None:
        async def whole() -> AsyncIterator[str]:
            yield "one two " * 100

        monkeypatch.setattr(normalize_module.IncrementalNormalizer, "feed", counted)
        stream = await engine.open(whole())
        await until(lambda: stream._request.session.text.is_finished)
        assert sum(sizes) == 800 and max(sizes) <= engine_module.FEED_CHARACTERS
        await stream.aclose()

    with_engine(work)


def test_a_text_that_nobody_listens_to_is_let_go(with_engine) -> None:
    let_go = threading.Event()

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "one two three. "
                await asyncio.sleep(0.01)
        finally:
            let_go.set()

    async def work(engine: StreamEngine) -> None:
        stream = await engine.open(endless(), max_buffer_seconds=0.1)
        await anext(stream)
        del stream
        gc.collect()
        await until(let_go.is_set)

    with_engine(work)


PLACES = ["batch of the LM", "before the LM", "behind the LM", "draws", "sound", "behind the sound",
          "joining"]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "is_guided"), [*((place, True) for place in PLACES), ("behind the LM", False)]
)
def test_who_fails_fails_alone(
    synthesizer: Synthesizer,
    guided: Synthesizer,
    place: str,
    is_guided: bool,
    with_engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches fail wherever they may; of three streams one has the fault, the others say the same
    as without it."""
    speaks_with = guided if is_guided else synthesizer
    options = [{"seed": 1, "voice": "ann"}, {"seed": 2, "voice": "bob"}]
    expected = []
    for text, option in zip(TEXTS[1:], options, strict=True):
        alone = speaks_with.stream(text, **option)  # type: ignore[arg-type]
        expected.append((torch.cat(list(alone)), alone.speech_tokens))
    bad: list[Session] = []
    num_failed = 0

    def fail_if(condition: bool) -> None:
        nonlocal num_failed
        if condition:
            num_failed += 1
            raise RuntimeError("the fault")

    def is_ripe() -> bool:
        return bool(bad) and bool(bad[0].speech_tokens) and len(bad[0].speech_tokens[0]) >= 12

    def has_bad(parts: Sequence[Any]) -> bool:
        owned = [bad[0].decoding, *bad[0]._renderers] if bad else []
        rows = [part.row for part in (bad[0].decoding.branches if bad and bad[0].decoding else [])]
        return is_ripe() and any(part is own for part in parts for own in [*owned, *rows])

    step, read, choose = (
        engine_module.decode_step, decoding_module._read, decoding_module._choose
    )  # fmt: skip
    render, join = session_module.render_chunks, Session.join

    def steps(model: Any, decodings: Any, **options: Any) -> None:
        fail_if(place == "batch of the LM" and has_bad(decodings))
        step(model, decodings, **options)
        fail_if(place == "behind the LM" and has_bad(decodings))

    def reads(model: Any, rows: Any, *arguments: Any) -> Any:
        fail_if(place == "before the LM" and has_bad(rows))
        return read(model, rows, *arguments)

    def chooses(decodings: Any) -> None:
        fail_if(place == "draws" and has_bad(decodings))
        choose(decodings)

    def renders(renderers: Any) -> Any:
        fail_if(place == "sound" and has_bad(renderers))
        sounds = render(renderers)
        fail_if(place == "behind the sound" and has_bad(renderers))
        return sounds

    def joins(self: Session, *arguments: Any) -> Tensor:
        fail_if(place == "joining" and is_ripe() and self is bad[0])
        return join(self, *arguments)

    async def work(engine: StreamEngine) -> None:
        monkeypatch.setattr(engine_module, "decode_step", steps)
        monkeypatch.setattr(decoding_module, "_read", reads)
        monkeypatch.setattr(decoding_module, "_choose", chooses)
        monkeypatch.setattr(session_module, "render_chunks", renders)
        monkeypatch.setattr(Session, "join", joins)
        faulty = await engine.open("so.", forced_tokens=LONG)
        bad.append(faulty._request.session)
        good = [
            await engine.open(text, **option)
            for text, option in zip(TEXTS[1:], options, strict=True)
        ]
        heard = await asyncio.gather(listen(faulty), *map(listen, good), return_exceptions=True)
        assert isinstance(heard[0], RuntimeError) and str(heard[0]) == "the fault"
        for waveform, stream, (whole, tokens) in zip(heard[1:], good, expected, strict=True):
            assert isinstance(waveform, Tensor), waveform
            assert stream.speech_tokens == tokens
            torch.testing.assert_close(waveform, whole, atol=1e-4, rtol=0)
        assert num_failed >= 1

    with_engine(work, speaks_with)


def test_a_fault_of_the_batch_alone_ends_nobody(
    synthesizer: Synthesizer, with_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little memory for all at once, say: nothing is heard of it, to the last bit."""
    texts = {1: TEXTS[1], 2: TEXTS[2], 3: SAYS}
    apart = {
        seed: torch.cat(list(synthesizer.stream(text, seed=seed))) for seed, text in texts.items()
    }
    step, render = engine_module.decode_step, session_module.render_chunks
    num_failed = 0

    def fail_if(condition: bool) -> None:
        nonlocal num_failed
        if condition:
            num_failed += 1
            raise MemoryError("no room for all")

    def steps(model: Any, decodings: Any, **options: Any) -> None:
        fail_if(len(decodings) > 1)
        step(model, decodings, **options)

    def renders(renderers: Any) -> Any:
        sounds = render(renderers)
        fail_if(len(renderers) > 1)
        return sounds

    async def work(engine: StreamEngine) -> None:
        monkeypatch.setattr(engine_module, "decode_step", steps)
        monkeypatch.setattr(session_module, "render_chunks", renders)
        streams = {
            seed: await engine.open(text, seed=seed, max_buffer_seconds=0.01)
            for seed, text in texts.items()
        }
        heard = await asyncio.gather(*map(listen, streams.values()))
        for waveform, seed in zip(heard, streams, strict=True):
            assert torch.equal(waveform, apart[seed])
        assert num_failed > 3

    with_engine(work)


def test_words_have_times_as_in_whole_speech(
    synthesizer: Synthesizer, with_engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several streams at once, also where a batch of chunks fails when it is done."""
    texts = ["Is it so? Yes, 21 times. " * 4, "The lazy dog. The quick brown fox. " * 4]
    render, num_failed = session_module._render_sessions, 0

    def fail(sessions: Sequence[Session]) -> list[Tensor]:
        nonlocal num_failed
        chunks = render(sessions)
        if len(sessions) > 1:
            num_failed += 1
            raise RuntimeError("too late")
        return chunks

    async def work(engine: StreamEngine) -> None:
        # Held up until all are listened to, so that they are moved in one batch.
        plain = await engine.open(texts[0], max_buffer_seconds=0.01)
        streams = [
            await engine.open(text, word_times=True, max_buffer_seconds=0.01) for text in texts
        ]
        await asyncio.gather(*(listen(stream) for stream in [plain, *streams]))
        assert plain.words == []
        for text, stream in zip(texts, streams, strict=True):
            whole = synthesizer.generate(text, word_times=True)
            assert isinstance(whole, Speech) and stream.words == list(whole.words)
            assert [word.text for word in stream.words] == text.split()

    with_engine(work)
    monkeypatch.setattr(session_module, "_render_sessions", fail)
    with_engine(work)
    assert num_failed > 0
