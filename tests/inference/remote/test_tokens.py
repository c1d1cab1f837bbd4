"""Speech tokens by an LLM server: what the LM here says, whatever befalls the server."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_llm_server import FakeLLMServer
from torch import Tensor

from inference.engine import EngineStream, StreamEngine
from inference.remote.draws import DrawOptions, SpeechRows
from inference.remote.settings import Local, Remote, RemoteError
from tokenlm.checkpoint import finalize_bundle, read_manifest, save_component
from tokenlm.checkpoint.llm_folder import export_llm
from tokenlm.models.lm import GuardConfig, SamplingConfig, SpeechLM
from tokenlm.synthesis import Synthesizer

TEXTS = ["Is it so?", "Yes, it is! The quick brown fox.", "well; one: two, three."]
PLAIN = SamplingConfig(repetition_window=0)


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    made = Synthesizer.from_pretrained(tiny_bundle)
    made.components.generation = replace(
        made.components.generation,
        guards=GuardConfig(loop_tokens=6, max_loops=50, silent_tokens=(1, 2, 3, 4, 5, 6, 7, 8),
                           max_silent_tokens=2),
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def exported(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "llm"
    export_llm(tiny_bundle, folder, dtype=torch.float32)
    return folder


@pytest.fixture(scope="module")
def shared_server(exported: Path) -> Iterator[FakeLLMServer]:
    with FakeLLMServer(exported) as server:
        yield server


@pytest.fixture
def server(shared_server: FakeLLMServer) -> FakeLLMServer:
    shared_server.faults.clear()
    shared_server.bodies.clear()
    shared_server.num_left, shared_server.seconds_a_token = 0, 0.0
    return shared_server


async def listen(stream: EngineStream) -> Tensor:
    return torch.cat([chunk async for chunk in stream])


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def with_engine(
    synthesizer: Synthesizer, tokens: Local | Remote, work: Callable[[StreamEngine], Any]
) -> Any:
    """What a coroutine gives with an engine, of which nothing is left."""

    async def main() -> Any:
        engine = StreamEngine(synthesizer, tokens=tokens, max_streams=3)
        try:
            return await asyncio.wait_for(work(engine), 120)
        finally:
            await engine.close(0)
            assert engine.num_live == 0 and not engine._worker.is_alive()

    before = set(threading.enumerate())
    done = asyncio.run(main())
    left = [t for t in set(threading.enumerate()) - before if t.name.startswith("tokenlm-llm")]
    assert not left
    return done


async def in_pieces(text: str) -> AsyncIterator[str]:
    for start in range(0, len(text), 3):
        await asyncio.sleep(0)
        yield text[start : start + 3]


def speak(
    synthesizer: Synthesizer, tokens: Local | Remote, text: str = TEXTS[1], **options: Any
) -> tuple[list[list[int]], Tensor]:
    async def work(engine: StreamEngine) -> tuple[list[list[int]], Tensor]:
        stream = await engine.open(text, **options)
        waveform = await listen(stream)
        return stream.speech_tokens, waveform

    return with_engine(synthesizer, tokens, work)


def test_the_same_speech_as_with_the_lm_here(
    synthesizer: Synthesizer, server: FakeLLMServer
) -> None:
    async def work(engine: StreamEngine) -> list[tuple[list[list[int]], Tensor]]:
        streams = [
            await engine.open(text, voice=voice, seed=seed)
            for text, voice, seed in zip(TEXTS[::2], ("ann", "bob"), (9, 1 << 40), strict=True)
        ]
        waveforms = await asyncio.gather(*map(listen, streams))
        pieces = await engine.open(in_pieces(TEXTS[1]), seed=4)
        waveforms.append(await listen(pieces))
        return [
            (stream.speech_tokens, waveform)
            for stream, waveform in zip([*streams, pieces], waveforms, strict=True)
        ]

    here = with_engine(synthesizer, Local(), work)
    there = with_engine(synthesizer, Remote(server.url), work)
    assert sum(len(row) for rows, _ in here for row in rows) > 60
    for (rows, waveform), (other_rows, other) in zip(here, there, strict=True):
        assert other_rows == rows
        torch.testing.assert_close(other, waveform, atol=1e-4, rtol=0)
    assert server.num_open == 0


def test_a_request_goes_on_where_the_one_before_has_ended(
    synthesizer: Synthesizer, server: FakeLLMServer, caplog: pytest.LogCaptureFixture
) -> None:
    """So that the server has all but the new positions in its prefix cache."""

    async def work(engine: StreamEngine) -> int:
        stream = await engine.open(in_pieces("the quick brown fox jumps over the lazy dog"), seed=2)
        await listen(stream)
        return len(stream.speech_tokens)

    with caplog.at_level(logging.WARNING):
        assert with_engine(synthesizer, Remote(server.url + "/v1/"), work) == 1
    assert not caplog.records  # no request was made in vain
    prompts = [body["prompt"] for body in server.bodies]
    assert len(prompts) > 2
    for before, after in zip(prompts, prompts[1:], strict=False):
        assert after[: len(before)] == before


@pytest.fixture(scope="module")
def expected(synthesizer: Synthesizer) -> tuple[list[list[int]], Tensor]:
    """What is said here."""
    return speak(synthesizer, Local(), TEXTS[0], seed=3)


@pytest.mark.parametrize(
    "fault", ["die", "end", "stall", "alien", "wrong", "garbage", 429, 500, 503]
)
def test_a_fault_is_not_heard(
    fault: str | int,
    synthesizer: Synthesizer,
    server: FakeLLMServer,
    expected: tuple[list[list[int]], Tensor],
) -> None:
    server.faults.extend([fault, fault])
    tokens, waveform = speak(synthesizer, Remote(server.url, stall_seconds=0.5), TEXTS[0], seed=3)
    assert tokens == expected[0] and not server.faults
    torch.testing.assert_close(waveform, expected[1], atol=1e-4, rtol=0)


def test_the_server_restarts(synthesizer: Synthesizer, exported: Path) -> None:
    expected, _ = speak(synthesizer, Local(), seed=5)

    async def work(engine: StreamEngine) -> list[list[int]]:
        stream = await engine.open(TEXTS[1], seed=5)
        await until(lambda: sum(map(len, stream.speech_tokens)) > 5)
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(0.3)
        server.seconds_a_token = 0.0
        await asyncio.to_thread(server.start)
        await listen(stream)
        return stream.speech_tokens

    with FakeLLMServer(exported) as server:
        server.seconds_a_token = 0.02
        assert with_engine(synthesizer, Remote(server.url), work) == expected
        assert len(server.bodies) >= 2


def test_a_server_that_stays_away_ends_the_stream(synthesizer: Synthesizer) -> None:
    remote = Remote("http://127.0.0.1:9", give_up_seconds=0.3)
    started = time.monotonic()
    with pytest.raises(RemoteError, match=r"has failed for 0\.3 s, the last time"):
        speak(synthesizer, remote)
    assert time.monotonic() - started < 60

    async def work(engine: StreamEngine) -> tuple[int, int]:
        """Forced tokens need no server, and one stream's error is no other's."""
        failing = await engine.open(TEXTS[0])
        forced = await engine.open("so.", forced_tokens=[[3, 5, 7] * 20])
        waveform = await listen(forced)
        with pytest.raises(RemoteError):
            await listen(failing)
        return waveform.shape[0], engine.num_live

    assert with_engine(synthesizer, remote, work) == (60 * 960, 0)


def test_closing_a_stream_ends_the_work_of_the_server(
    synthesizer: Synthesizer, server: FakeLLMServer
) -> None:
    server.seconds_a_token = 0.05

    async def work(engine: StreamEngine) -> None:
        stream = await engine.open(TEXTS[1])
        await until(lambda: sum(map(len, stream.speech_tokens)) > 2)
        assert server.num_open == 1
        await stream.aclose()
        await until(lambda: server.num_open == 0)
        assert server.num_left == 1

    with_engine(synthesizer, Remote(server.url), work)


def test_a_refusal_is_told_at_once(synthesizer: Synthesizer, server: FakeLLMServer) -> None:
    with pytest.raises(RemoteError, match="answered 404: .*no such model"):
        speak(synthesizer, Remote(server.url, model="chat"))
    server.faults.append(400)
    with pytest.raises(RemoteError, match="answered 400"):
        speak(synthesizer, Remote(server.url))
    assert len(server.bodies) == 1
    for url in ("127.0.0.1:80", "ftp://x"):
        with pytest.raises(ValueError, match="begins with http"):
            Remote(url)


def test_guidance_of_the_lm_is_refused(synthesizer: Synthesizer, server: FakeLLMServer) -> None:
    generation = synthesizer.components.generation
    try:
        guards = replace(generation.guards, guidance_scale=0.5)
        synthesizer.components.generation = replace(generation, guards=guards)
        with pytest.raises(ValueError, match="guidance of the LM is not for LLM servers"):
            speak(synthesizer, Remote(server.url))
    finally:
        synthesizer.components.generation = generation


def other_bundle(tiny_bundle: Path, folder: Path, **changes: Any) -> Path:
    """The tiny bundle with another speech LM."""
    shutil.copytree(tiny_bundle, folder)
    config = Synthesizer.from_pretrained(folder).components.speech_lm.config
    torch.manual_seed(5)
    model = SpeechLM(replace(config, **changes))
    facts = read_manifest(folder)
    mark = Synthesizer.from_pretrained(folder).components.fingerprint
    save_component(
        folder / "speech_lm",
        kind="speech_lm",
        config=model.config,
        state_dict=model.state_dict(),
        extra={"tokenizer": mark},
    )
    finalize_bundle(folder, facts)
    return folder


def test_another_model_is_refused(tiny_bundle: Path, server: FakeLLMServer, tmp_path: Path) -> None:
    other = Synthesizer.from_pretrained(other_bundle(tiny_bundle, tmp_path / "other"))
    with pytest.raises(RemoteError, match="another speech LM .* than this bundle"):
        speak(other, Remote(server.url))
    assert not server.bodies


@pytest.mark.slow
def test_an_engine_that_draws_by_itself(
    tiny_bundle: Path, synthesizer: Synthesizer, exported: Path, tmp_path: Path
) -> None:
    """Without a bias it will do, as long as nobody asks for more than engines have."""
    with FakeLLMServer(exported, draws_as_we_do=False) as server:
        with pytest.raises(RemoteError, match="has a bias, which .* does not add"):
            speak(synthesizer, Remote(server.url))
    folder = other_bundle(tiny_bundle, tmp_path / "plain", head_bias=False)
    plain = Synthesizer.from_pretrained(folder)
    export_llm(folder, tmp_path / "llm")
    with FakeLLMServer(tmp_path / "llm", draws_as_we_do=False, answers_ids=False) as server:
        remote = Remote(server.url)
        with pytest.raises(RemoteError, match="without an eye on repetition"):
            speak(plain, remote)
        tokens, _ = speak(plain, remote, TEXTS[0], seed=1, sampling=PLAIN)
        assert speak(plain, remote, TEXTS[0], seed=1, sampling=PLAIN)[0] == tokens
        assert speak(plain, remote, TEXTS[0], seed=2, sampling=PLAIN)[0] != tokens
        server.faults.extend(["alien", "wrong"])
        faulty, _ = speak(plain, remote, TEXTS[0], seed=1, sampling=PLAIN)
        codes = plain.components.speech_lm.config.codebook_size
        assert all(0 <= token < codes for row in faulty for token in row) and not server.faults
        # Greedy, where draws play no part, is what ours says.
        greedy = replace(PLAIN, temperature=0.0)
        ours = speak(plain, Local(), TEXTS[2], sampling=greedy)[0]
        assert speak(plain, remote, TEXTS[2], sampling=greedy)[0] == ours


def test_rows_of_other_requests_have_speech_alone(exported: Path) -> None:
    rows = SpeechRows(exported)
    vocabulary = rows.vocabulary
    row = torch.randn(vocabulary.size)
    restricted = rows.restrict(row)
    left = restricted.isfinite().nonzero()[:, 0].tolist()
    first, eos = vocabulary.speech_offset, vocabulary.codebook_size
    assert left == [*range(first, first + eos + 1)]
    assert rows.bias is not None
    expected = row[first : first + eos] + rows.bias[:eos]
    torch.testing.assert_close(restricted[first : first + eos], expected)
    # What no class is does not harm an engine that others use, too.
    options = DrawOptions(forbidden=(-1, 10_000, 3), history=(-1, -1))
    assert rows.draw(row, [], options).isfinite().sum() == 1
    with pytest.raises(ValueError, match="no exported speech LM"):
        SpeechRows(exported.parent)
    with pytest.raises(ValueError):
        DrawOptions.from_json('{"seed": "x"}')
