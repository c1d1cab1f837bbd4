"""Text that is still being written: whole sentences are spoken after a pause."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer
from websockets.sync.client import ClientConnection, connect

from inference.engine import StreamEngine
from inference.server.settings import ServeConfig
from inference.server.text_feed import TextFeed, ends_sentence
from tokenlm.synthesis import Synthesizer
from tokenlm.text.normalize import frontend
from tokenlm.text.segmentation import PARAGRAPH_END

WORDS = frontend("english").words


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ("Hello there.", True), ("Really?! ", True), ('He said "yes." ', True), ("Yes.", True),
        ("It was 1999.", True), ("Wait…", True), ("No.", True), ("It costs $3.\n", True),
        ("Hello there", False), ("Hello there,", False), ("I saw Dr.", False), ("Mr. J.", False),
        ("He said e.g.", False), ("in the U.S.", False), ("1.", False), ("First. 2.", False),
        ("at St.", False), ("...", False), ("", False), ("?", False), ("Hello. How", False),
    ],
)  # fmt: skip
def test_which_sentences_are_whole(text: str, is_whole: bool) -> None:
    assert ends_sentence(text, WORDS) is is_whole


def test_sentences_of_other_scripts_are_whole() -> None:
    words = frontend("none").words
    assert ends_sentence("你好。", words) and not ends_sentence("你好，", words)


def run(
    write: Callable[[TextFeed], Awaitable[None]],
    pause: float | None,
    words: Callable[[str], list[str]] = WORDS,
) -> list[str]:
    """What is taken out of a feed while something is written into it."""

    async def both() -> list[str]:
        feed = TextFeed(pause, words)
        writer = asyncio.create_task(write(feed))
        found = [piece async for piece in feed]
        await writer
        assert [piece async for piece in feed] == [], "whoever asks again hears the same"
        return found

    return asyncio.run(asyncio.wait_for(both(), 20))


@pytest.mark.slow
def test_a_pause_ends_a_whole_sentence() -> None:
    async def write(feed: TextFeed) -> None:
        for piece in ("Hello", " there.", " How are"):
            feed.put(piece)
            await asyncio.sleep(0.3)
        feed.put(" you? ")
        await asyncio.sleep(0.3)
        feed.complete()

    assert run(write, 0.02) == [
        "Hello", " there.", PARAGRAPH_END, " How are", " you? ", PARAGRAPH_END,
    ]  # fmt: skip
    assert run(write, None) == ["Hello", " there.", " How are", " you? "]


def test_no_pause_without_a_sentence_and_none_twice() -> None:
    async def write(feed: TextFeed) -> None:
        for piece in ("I saw Dr.", " Smith", ".", "", " "):
            feed.put(piece)
            await asyncio.sleep(0.2)
        feed.complete()
        feed.complete()

    found = run(write, 0.02)
    assert found == ["I saw Dr.", " Smith", ".", PARAGRAPH_END, "", " "]


def test_what_comes_in_one_go_has_no_pause() -> None:
    async def write(feed: TextFeed) -> None:
        for letter in "One. Two. Three.":
            feed.put(letter)
        feed.complete()

    assert "".join(run(write, 0.0)) == "One. Two. Three."


def test_a_letter_costs_no_reading_of_the_text() -> None:
    """A client that writes nothing but full stops keeps nobody else waiting."""
    calls = 0

    def counted(text: str) -> list[str]:
        nonlocal calls
        calls += 1
        return WORDS(text)

    async def write(feed: TextFeed) -> None:
        for _ in range(2000):
            feed.put("A.")
            await asyncio.sleep(0)
        feed.complete()

    run(write, 30.0, counted)
    assert calls == 0


# -- on models -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(
    synthesizer: Synthesizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    folder: Path = tmp_path_factory.mktemp("pauses")
    config = ServeConfig(voices=folder / "voices", sentence_pause_seconds=0.05)
    with LiveServer(config, synthesizer, lambda: StreamEngine(synthesizer)) as found:
        yield found


def say(socket: ClientConnection, kind: str, **facts: Any) -> None:
    socket.send(json.dumps({"type": kind, **facts}))


def hear_until(socket: ClientConnection, kind: str) -> tuple[dict[str, Any], bytes]:
    audio = b""
    while True:
        message = socket.recv(timeout=30)
        if isinstance(message, bytes):
            audio += message
        elif (told := json.loads(message))["type"] == kind:
            return told, audio
        else:
            assert told["type"] == "audio.start", told


def test_a_whole_sentence_is_heard_before_the_text_goes_on(
    server: LiveServer, synthesizer: Synthesizer
) -> None:
    first, second = "Yes, it is.", " The quick brown fox jumps."
    with synthesizer.stream([first, PARAGRAPH_END], voice="bob", seed=2) as stream:
        alone = sum(chunk.shape[0] for chunk in stream)
    with connect(server.socket_url) as socket:
        say(socket, "session.config", voice="bob", seed=2)
        say(socket, "input.text", text=first)
        heard = b""
        while len(heard) < 2 * alone:  # to its last sample, though more may come
            message = socket.recv(timeout=30)
            heard += message if isinstance(message, bytes) else b""
        assert len(heard) == 2 * alone
        say(socket, "input.text", text=second)
        say(socket, "input.done")
        heard += hear_until(socket, "audio.done")[1]
    # What is heard is what the text says with the end of a paragraph in the place of the pause.
    with connect(server.socket_url) as socket:
        say(socket, "session.config", voice="bob", seed=2)
        say(socket, "input.text", text=first + PARAGRAPH_END + second)
        say(socket, "input.done")
        assert hear_until(socket, "audio.done")[1] == heard


@pytest.mark.parametrize("text", ["", " ", "\n\n", "...", "?!", "😀", "—", "\u2029", "[]"])
def test_nothing_to_say_is_told_at_once(server: LiveServer, text: str) -> None:
    """And the next utterance is not kept waiting."""
    with connect(server.socket_url) as socket:
        begun = time.monotonic()
        for _ in range(2):
            say(socket, "input.text", text=text)
            say(socket, "input.done")
        say(socket, "input.text", text="Yes.")
        say(socket, "input.done")
        for number in range(2):
            told, audio = hear_until(socket, "error")
            assert told["utterance"] == number and told["fatal"] is False and audio == b""
            assert "holds nothing that can be said" in told["error"]["message"]
        told, audio = hear_until(socket, "audio.done")
        assert told["utterance"] == 2 and audio
        limits = server.config.limits
        assert time.monotonic() - begun < limits.stall_timeout_seconds / 2
        say(socket, "session.close")
        assert hear_until(socket, "session.done")[0]["utterances"] == 3


def test_places_of_words_are_those_of_what_was_written() -> None:
    """The paragraph ends that a pause puts in do not count."""

    async def places() -> dict[str, Any]:
        feed = TextFeed(0.01, WORDS)
        feed.put("It is so. ")
        given = [await anext(feed), await anext(feed)]
        feed.put("Yes.")
        feed.complete()
        given += [piece async for piece in feed]
        assert given == ["It is so. ", PARAGRAPH_END, "Yes."]
        start = "".join(given).index("Yes")
        assert feed.as_written({"text_start": 0, "text_end": 2})["text_end"] == 2
        return feed.as_written({"text": "Yes.", "text_start": start, "text_end": start + 4})

    assert asyncio.run(places()) == {"text": "Yes.", "text_start": 10, "text_end": 14}
