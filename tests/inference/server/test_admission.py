"""More clients than the server serves, clients that leave, clients that are slow, and the end."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from conftest import StartServer
from fake_engine import tone
from live_server import LiveServer, eventually
from websockets.sync.client import connect

from tokenlm.audio.encoders import to_pcm16


@contextlib.contextmanager
def asking(server: LiveServer, text: str) -> Iterator[httpx.Response]:
    """A request whose body is being read."""
    body = {"input": text, "response_format": "pcm"}
    with (
        httpx.Client(base_url=server.url, timeout=20.0) as client,
        client.stream("POST", "/v1/audio/speech", json=body) as response,
    ):
        yield response


class Asker(threading.Thread):
    """A client in a thread of its own."""

    def __init__(self, server: LiveServer, text: str) -> None:
        super().__init__(daemon=True)
        self.server, self.text = server, text
        self.status = 0
        self.content = b""
        self.start()

    def run(self) -> None:
        with asking(self.server, self.text) as response:
            self.status = response.status_code
            self.content = response.read()


def test_beyond_slots_and_queue_requests_are_sent_away(start: StartServer) -> None:
    server = start(max_streams=2, max_queue=1)
    live = [Asker(server, "one wait two") for _ in range(2)]
    eventually(lambda: server.service.admission.num_live == 2, "both are live")
    waiting = Asker(server, "one two")
    eventually(lambda: server.service.admission.num_waiting == 1, "one waits")
    with asking(server, "one") as response:
        assert response.status_code == 429
        assert response.headers["retry-after"] == "2"
        error = json.loads(response.read())["error"]
        assert error["type"] == "rate_limit_error" and "1 requests wait" in error["message"]
    told = httpx.get(f"{server.url}/health").json()
    assert (told["live_streams"], told["queue_length"]) == (2, 1)
    assert len(server.fake_engine.opened) == 2
    server.fake_engine.gate.set()
    for asker in (*live, waiting):
        asker.join(10)
        assert asker.status == 200
    assert waiting.content == to_pcm16(tone(0, 2)).tobytes()


def test_nobody_waits_for_ever(start: StartServer) -> None:
    server = start(max_streams=1, queue_timeout_seconds=0.2)
    live = Asker(server, "one wait two")
    eventually(lambda: server.service.admission.num_live == 1, "one is live")
    with asking(server, "one") as response:
        assert (
            response.status_code == 429 and "no other utterance ended" in response.read().decode()
        )
    server.fake_engine.gate.set()
    live.join(10)
    assert live.status == 200


def test_who_leaves_the_queue_takes_no_slot(start: StartServer) -> None:
    server = start(max_streams=1)
    live = Asker(server, "one wait two")
    eventually(lambda: server.service.admission.num_live == 1, "one is live")
    with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=server.url, timeout=0.3) as client:
        client.post("/v1/audio/speech", json={"input": "one"})
    eventually(lambda: server.service.admission.num_waiting == 0, "nobody waits")
    server.fake_engine.gate.set()
    live.join(10)
    assert len(server.fake_engine.opened) == 1


def test_a_client_that_leaves_frees_its_session_at_once(shared: LiveServer) -> None:
    for before_first_byte in (True, False):
        text = "stall" if before_first_byte else "one two stall"
        with contextlib.suppress(httpx.ReadTimeout), httpx.Client(timeout=0.5) as client:
            body = {"input": text, "response_format": "pcm"}
            with client.stream("POST", f"{shared.url}/v1/audio/speech", json=body) as response:
                assert not before_first_byte
                pieces = response.iter_raw()
                next(pieces)
                assert shared.service.engine.num_live == 1
        eventually(lambda: shared.service.engine.num_live == 0, "the session is freed")
        eventually(lambda: shared.service.admission.num_live == 0, "the slot is freed")


def slow_request(server: LiveServer, text: str) -> socket.socket:
    """A connection that asks and then reads nothing."""
    body = json.dumps({"input": text, "response_format": "wav"})
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(
        f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return connection


def test_a_slow_reader_slows_only_itself(start: StartServer) -> None:
    """Its utterance stands still while others are spoken, and goes on when it reads."""
    server = start(socket_send_bytes=16_384, max_text_characters=100_000)
    text = "word " * 2000  # 200 s of speech, 9.6 MB
    with slow_request(server, text) as connection:
        eventually(lambda: bool(server.fake_engine.opened), "it is opened")
        slow = server.fake_engine.opened[0]

        def stands_still() -> bool:
            made = slow.num_made
            time.sleep(0.1)
            return made == slow.num_made > 0

        eventually(stands_still, "the utterance stands still")
        # What may be on its way: buffers of the server and of the system at both ends.
        assert slow.num_made < 200
        made = slow.num_made
        for _ in range(3):
            with asking(server, "one two three") as response:
                assert response.read() == to_pcm16(tone(0, 3)).tobytes()
        assert slow.num_made == made
        count = 0
        while count < 500_000:
            count += len(connection.recv(65_536))
        eventually(lambda: slow.num_made > made, "it goes on")
    eventually(lambda: server.service.engine.num_live == 0, "its session is freed")


def test_a_reader_that_takes_nothing_is_let_go(start: StartServer) -> None:
    server = start(socket_send_bytes=16_384, max_text_characters=100_000, write_timeout_seconds=0.3)
    with slow_request(server, "word " * 2000):
        eventually(lambda: bool(server.fake_engine.opened), "it is opened")
        eventually(lambda: server.service.engine.num_live == 0, "its session is freed")
        assert server.fake_engine.opened[0].num_made < 200
        # What was sent and not taken does not keep the connection.
        connections = server.server.server_state.connections
        eventually(lambda: not connections, "its connection is closed", 30.0)


def test_models_that_stall_are_not_waited_for(start: StartServer) -> None:
    server = start(stall_timeout_seconds=0.3)
    with asking(server, "stall") as response:
        assert response.status_code == 500 and b"gave nothing for 0.3 s" in response.read()
    assert server.service.engine.num_live == 0


def test_no_utterance_goes_on_for_ever(start: StartServer) -> None:
    server = start(stream_timeout_seconds=0.5)
    with pytest.raises(httpx.TransportError), asking(server, "one wait two") as response:
        response.read()
    server.fake_engine.gate.set()
    eventually(lambda: server.service.engine.num_live == 0, "its session is freed")


def test_a_server_that_stops_finishes_what_it_says(start: StartServer) -> None:
    server = start(max_streams=2)
    engine = server.fake_engine
    live = Asker(server, "one wait two")
    with connect(server.socket_url) as talk:
        talk.send(json.dumps({"type": "input.text", "text": "one wait two"}))
        talk.send(json.dumps({"type": "input.done"}))
        eventually(lambda: server.service.admission.num_live == 2, "both are live")
        waiting = Asker(server, "one two")
        eventually(lambda: server.service.admission.num_waiting == 1, "one waits")
        server.drain()
        eventually(lambda: server.service.admission.is_draining, "it is about to stop")
        health = httpx.get(f"{server.url}/health")
        assert health.status_code == 503 and health.json()["status"] == "stopping"
        with asking(server, "one") as response:
            assert response.status_code == 503 and response.headers["retry-after"]
        assert not server.has_ended
        engine.gate.set()
        heard = b""
        while True:
            message = talk.recv(timeout=10)
            if isinstance(message, bytes):
                heard += message
            elif json.loads(message)["type"] == "audio.done":
                break
        assert heard == to_pcm16(tone(0, 3)).tobytes()
    for asker, num_chunks in ((live, 3), (waiting, 2)):
        asker.join(10)
        assert asker.status == 200 and asker.content == to_pcm16(tone(0, num_chunks)).tobytes()
    server.join()
    assert engine.is_closed and engine.num_live == 0


@pytest.mark.slow
def test_a_server_that_stops_waits_only_so_long(start: StartServer) -> None:
    server = start(drain_seconds=0.2)
    with pytest.raises(httpx.TransportError), asking(server, "one wait two") as response:
        pieces = response.iter_raw()
        next(pieces)
        server.drain()
        list(pieces)
    server.fake_engine.gate.set()
    server.join(20)
    assert server.fake_engine.num_live == 0
