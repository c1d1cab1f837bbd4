"""`WS /v1/audio/speech/stream` over a real connection."""

from __future__ import annotations

import contextlib
import json
import time
from socket import SO_RCVBUF, SOL_SOCKET
from socket import socket as Socket
from typing import Any

import pytest
from conftest import StartServer
from fake_engine import CHUNK_SAMPLES, tone
from live_server import LiveServer, eventually
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from inference.server.errors import ApiError
from inference.server.websocket import read_message
from tokenlm.audio.encoders import to_pcm16


def say(socket: ClientConnection, kind: str, **facts: Any) -> None:
    socket.send(json.dumps({"type": kind, **facts}))


def hear(socket: ClientConnection) -> dict[str, Any] | bytes:
    message = socket.recv(timeout=10)
    return message if isinstance(message, bytes) else json.loads(message)


def hear_until(socket: ClientConnection, kind: str) -> tuple[list[dict[str, Any]], bytes]:
    """Messages up to one of a kind, and the audio between them."""
    told, audio = [], b""
    while not told or told[-1]["type"] != kind:
        message = hear(socket)
        if isinstance(message, bytes):
            audio += message
        else:
            told.append(message)
    return told, audio


def test_speech_begins_before_the_text_is_complete(shared: LiveServer) -> None:
    with connect(shared.socket_url) as socket:
        say(socket, "session.config", voice="bob", seed=3)
        say(socket, "input.text", text="one tw")
        start = hear(socket)
        assert isinstance(start, dict) and start["type"] == "audio.start"
        assert (start["utterance"], start["format"], start["sample_rate"]) == (
            0,
            "pcm_s16le",
            24000,
        )
        assert start["provenance"]["synthesised"] is True
        assert (start["provenance"]["voice"], start["provenance"]["seed"]) == ("bob", 3)
        first = hear(socket)
        assert isinstance(first, bytes) and len(first) == 2 * CHUNK_SAMPLES
        say(socket, "input.text", text="o three")
        say(socket, "input.done")
        told, rest = hear_until(socket, "audio.done")
        # Three words, however the text was cut.
        assert first + rest == to_pcm16(tone(3, 3)).tobytes()
        assert told[-1]["usage"]["input_tokens"] == 3
        assert told[-1]["foreign_words"] == []
        assert told[-1]["timings"]["seconds"] == pytest.approx(0.3)
        say(socket, "session.close")
        assert hear(socket) == {"type": "session.done", "utterances": 1}
        with pytest.raises(ConnectionClosed) as end:
            hear(socket)
        assert end.value.rcvd is not None and end.value.rcvd.code == 1000
    eventually(lambda: shared.service.num_sockets == 0, "the socket is forgotten")


def test_utterances_follow_one_another(shared: LiveServer) -> None:
    """Also those that were sent before the first had ended, and `session.close` behind them."""
    with connect(shared.socket_url) as socket:
        for seed in range(3):
            say(socket, "session.config", seed=seed)
            say(socket, "input.text", text="one two")
            say(socket, "input.done")
        say(socket, "session.close")
        for seed in range(3):
            told, audio = hear_until(socket, "audio.done")
            assert [message["utterance"] for message in told] == [seed, seed]
            assert audio == to_pcm16(tone(seed, 2)).tobytes()
        assert hear(socket) == {"type": "session.done", "utterances": 3}


def test_closing_completes_the_text(shared: LiveServer) -> None:
    with connect(shared.socket_url) as socket:
        say(socket, "input.text", text="one two")
        say(socket, "session.close")
        assert len(hear_until(socket, "session.done")[1]) == 2 * 2 * CHUNK_SAMPLES


def test_mistakes_are_told_and_the_session_goes_on(shared: LiveServer) -> None:
    with connect(shared.socket_url) as socket:
        for message in ("{", "[]", '"x"', "null", "{}", '{"type": "dance"}',
                        '{"type": "input.text"}', '{"type": "input.text", "text": 5}',
                        '{"type": "input.done"}', '{"type": "input.text", "text": "\\ud800"}',
                        '{"type": "session.config", "model": "gpt-9"}',
                        '{"type": "session.config", "instructions": "cheerfully"}',
                        '{"type": "session.config", "response_format": "mp3"}',
                        '{"type": "session.config", "speed": 9}', b"binary"):  # fmt: skip
            socket.send(message)
            told = hear(socket)
            assert isinstance(told, dict), message
            assert told["type"] == "error" and told["error"]["message"], message
            assert told["fatal"] is False, message
        say(socket, "input.text", text="one")
        say(socket, "input.done")
        assert hear_until(socket, "audio.done")[1] == to_pcm16(tone(0, 1)).tobytes()


@pytest.mark.parametrize(
    ("message", "param", "told"),
    [
        ("[]", None, "A message is a JSON object"),
        ("{}", "type", "type: it is missing."),
        ('{"type": "dance"}', "type", "type: there is no 'dance'; there are 'session.config',"),
        ('{"type": "input.text"}', "text", "text: it is missing."),
        ('{"type": "input.text", "text": 5}', "text", "text: it is a string."),
        ('{"type": "input.done", "text": "a"}', "text", "text: there is no such field."),
        ('{"type": "session.config", "voice": 5}', "voice", "voice: a voice is a name, a mixture"),
        ('{"type": "session.config", "voice": {"id": 5}}', "voice.id", "it is a string."),
        ('{"type": "session.config", "duration": true}', "duration", "duration: "),
    ],
)
def test_mistakes_in_messages_have_their_place(message: str, param: str | None, told: str) -> None:
    with pytest.raises(ApiError) as error:
        read_message(message)
    assert told in error.value.message and error.value.param == param
    assert error.value.message.startswith("The message is not understood: ")


def test_a_duration_is_that_of_the_whole_text(start: StartServer) -> None:
    """The text is collected, and opened as one that is complete."""
    server = start(sentence_pause_seconds=0.01)
    with connect(server.socket_url) as socket:
        say(socket, "session.config", duration=3.0, word_times=True)
        say(socket, "input.text", text="one. ")
        say(socket, "input.text", text="two")
        say(socket, "input.done")
        messages, data = hear_until(socket, "audio.done")
        assert len(data) == 2 * 2 * CHUNK_SAMPLES
        words = [word for message in messages for word in message.get("words", [])]
        assert [(word["text"], word["text_start"]) for word in words] == [("one.", 0), ("two", 5)]
        say(socket, "session.config", duration=0.01)
        say(socket, "input.text", text="one")
        say(socket, "input.done")
        error = hear_until(socket, "error")[0][-1]
        assert "cannot be spoken in 0.01 s" in error["error"]["message"] and not error["fatal"]
        say(socket, "session.config")
        say(socket, "input.text", text="one ")
        say(socket, "input.done")
        hear_until(socket, "audio.done")
    opened = server.fake_engine.opened
    assert [(stream.text, stream.duration) for stream in opened] == [
        ("one. two", 3.0), ("one ", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "settings", "told"),
    [
        ("unsayable", {}, "nothing that can be said"),
        ("one break", {}, "models failed"),
        ("one", {"voice": "nobody"}, "no voice 'nobody'"),
        ("one", {"voice": "../ann"}, "no voice"),
    ],
)
def test_an_utterance_fails_alone(
    shared: LiveServer, text: str, settings: dict[str, Any], told: str
) -> None:
    with connect(shared.socket_url) as socket:
        say(socket, "session.config", **settings)
        say(socket, "input.text", text=text)
        say(socket, "input.text", text=" rest of it")
        say(socket, "input.done")
        messages, _ = hear_until(socket, "error")
        assert told in messages[-1]["error"]["message"]
        assert messages[-1]["utterance"] == 0 and messages[-1]["fatal"] is False
        say(socket, "session.config")
        say(socket, "input.text", text="one")
        say(socket, "input.done")
        assert hear_until(socket, "audio.done")[0][-1]["utterance"] == 1


def test_too_much_text_ends_the_session(start: StartServer) -> None:
    server = start(max_text_characters=20)
    with connect(server.socket_url) as socket:
        for _ in range(3):
            say(socket, "input.text", text="one two ")
        told, _ = hear_until(socket, "error")
        assert told[-1]["fatal"] and "at most 20" in told[-1]["error"]["message"]
        with pytest.raises(ConnectionClosed):
            hear_until(socket, "session.done")
    eventually(lambda: server.service.engine.num_live == 0, "the utterance is freed")
    with connect(server.socket_url) as socket:
        # The server closes it before all of them are sent: with its sentence and its code, not by
        # cutting the line.
        with contextlib.suppress(ConnectionClosed):
            for _ in range(5000):
                say(socket, "input.text", text="wait")
                say(socket, "input.done")
        told, _ = hear_until(socket, "error")
        assert "may wait" in told[-1]["error"]["message"] and told[-1]["fatal"]
        with pytest.raises(ConnectionClosed) as end:
            hear(socket)
        assert end.value.rcvd is not None and end.value.rcvd.code == 1008
        engine = server.fake_engine
        engine.gate.set()
    # A message beyond all sense is not even taken in.
    with connect(server.socket_url) as socket:
        socket.send("x" * 100_000)
        with pytest.raises(ConnectionClosed) as end:
            hear(socket)
        assert end.value.rcvd is not None and end.value.rcvd.code == 1009


def test_a_client_that_leaves_frees_the_session(shared: LiveServer) -> None:
    socket = connect(shared.socket_url)
    say(socket, "input.text", text="one two stall ")
    assert isinstance(hear_until(socket, "audio.start")[0][0], dict)
    assert shared.service.engine.num_live == 1
    socket.close()
    eventually(lambda: shared.service.engine.num_live == 0, "the session is freed")
    eventually(lambda: shared.service.admission.num_live == 0, "the slot is freed")
    # Without a word, too.
    socket = connect(shared.socket_url)
    say(socket, "input.text", text="one two stall ")
    hear_until(socket, "audio.start")
    socket.socket.close()
    eventually(lambda: shared.service.engine.num_live == 0, "the session is freed")
    eventually(lambda: shared.service.num_sockets == 0, "the socket is forgotten")


@pytest.mark.slow
def test_a_slow_reader_slows_only_itself(start: StartServer) -> None:
    """Its utterance stands still, and goes on when it reads: nothing is lost."""
    server = start(socket_send_bytes=16_384, max_text_characters=100_000)
    engine = server.fake_engine
    num_chunks = 500  # 50 s of speech, 2.4 MB
    with connect(
        server.socket_url, max_queue=2, ping_interval=None, sock=slow_connection(server.port)
    ) as socket:
        say(socket, "input.text", text="word " * num_chunks)
        say(socket, "input.done")
        eventually(lambda: bool(engine.opened), "it is opened")
        slow = engine.opened[0]

        def stands_still() -> bool:
            made = slow.num_made
            time.sleep(0.2)
            return made == slow.num_made > 0

        eventually(stands_still, "the utterance stands still")
        made = slow.num_made
        assert made < 300
        with connect(server.socket_url) as other:
            say(other, "input.text", text="one two three")
            say(other, "session.close")
            assert hear_until(other, "session.done")[1] == to_pcm16(tone(0, 3)).tobytes()
        assert slow.num_made == made
        socket.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 20)
        assert hear_until(socket, "audio.done")[1] == to_pcm16(tone(0, num_chunks)).tobytes()


def slow_connection(port: int) -> Socket:
    """A connection with little room for what is not read."""
    found = Socket()
    found.setsockopt(SOL_SOCKET, SO_RCVBUF, 65_536)
    found.connect(("127.0.0.1", port))
    return found


def test_who_does_not_read_is_not_expected_to_answer(start: StartServer) -> None:
    """Pings wait behind the sound that a slow client has not read yet."""
    assert start().server.config.ws_ping_timeout is None


def test_silence_ends_a_session(start: StartServer) -> None:
    server = start(idle_timeout_seconds=0.3)
    for text in (None, "one "):
        with connect(server.socket_url) as socket:
            if text is not None:
                say(socket, "input.text", text=text)
            told, _ = hear_until(socket, "error")
            assert told[-1]["error"]["code"] == "idle" and told[-1]["fatal"]
    # Who listens may be silent.
    with connect(server.socket_url) as socket:
        say(socket, "input.text", text="one wait two")
        say(socket, "input.done")
        hear_until(socket, "audio.start")
        with pytest.raises(TimeoutError):
            while True:
                socket.recv(timeout=0.8)
        engine = server.fake_engine
        engine.gate.set()
        assert hear_until(socket, "audio.done")


def test_keys_of_sockets(start: StartServer) -> None:
    server = start(keys=("sesame",))
    with pytest.raises(InvalidStatus) as refused:
        connect(server.socket_url, additional_headers={"Authorization": "Bearer wrong"})
    assert refused.value.response.status_code == 401
    with connect(
        server.socket_url, additional_headers={"Authorization": "Bearer sesame"}
    ) as socket:
        say(socket, "input.text", text="one ")
        assert hear_until(socket, "audio.start")
    # A browser cannot set the header: the key may be in the first message.
    with connect(server.socket_url) as socket:
        say(socket, "session.config", api_key="sesame")
        say(socket, "input.text", text="one ")
        assert hear_until(socket, "audio.start")
    for first in ({"type": "session.config", "api_key": "wrong"}, {"type": "session.config"},
                  {"type": "input.text", "text": "one"}):  # fmt: skip
        with connect(server.socket_url) as socket:
            socket.send(json.dumps(first))
            told, _ = hear_until(socket, "error")
            assert told[-1]["fatal"] and told[-1]["error"]["code"] == "invalid_api_key"
    assert server.service.engine.num_live == 0


def test_only_so_many_sockets(start: StartServer) -> None:
    server = start(max_sockets=1)
    with connect(server.socket_url), pytest.raises(InvalidStatus) as refused:
        connect(server.socket_url)
    assert refused.value.response.status_code == 429


def test_times_of_words_come_before_their_sound(shared: LiveServer) -> None:
    with connect(shared.socket_url) as socket:
        say(socket, "session.config", word_times=True)
        say(socket, "input.text", text="one two")
        say(socket, "input.done")
        told, audio = hear_until(socket, "audio.done")
        assert audio == to_pcm16(tone(0, 2)).tobytes()
        kinds = [message["type"] for message in told]
        assert kinds == ["audio.start", "audio.words", "audio.words", "audio.done"]
        assert told[2]["utterance"] == 0 and told[2]["words"] == [
            {
                "text": "two", "spoken": "two", "start_seconds": 0.1, "end_seconds": 0.2,
                "text_start": 4, "text_end": 7,
            }
        ]  # fmt: skip
