"""What is computed for a client ends soon after the client has gone.

A hook stands in the place of one step of long work. It waits at the first step until the server has
let go of the request; what counts is how many steps follow.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import httpx
import pytest
from live_server import LiveServer, eventually
from websockets.sync.client import connect

from inference.engine import StreamEngine
from inference.server.settings import ServeConfig
from tokenlm.models.lm import decoding
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis import script as script_module
from tokenlm.synthesis import session as session_module
from tokenlm.synthesis.alignment import SegmentAligner
from tokenlm.synthesis.guards import ReadBack
from tokenlm.synthesis.session import Session

TEXT = " ".join(["The quick brown fox jumps."] * 3)


class Gate:
    """Counts the calls of a function; the first one waits until the gate is opened."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.is_reached, self.opened = threading.Event(), threading.Event()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.num_calls += 1
            self.is_reached.set()
            assert self.opened.wait(60.0)
            return function(*args, **kwargs)

        return call


@pytest.fixture(scope="module")
def server(
    synthesizer: Synthesizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    config = ServeConfig(voices=tmp_path_factory.mktemp("leaving") / "voices")
    with LiveServer(config, synthesizer, lambda: StreamEngine(synthesizer, max_streams=2)) as found:
        yield found


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """Sessions that have been closed."""
    found: list[Session] = []
    close = Session.close

    def closing(session: Session) -> None:
        close(session)
        found.append(session)

    monkeypatch.setattr(Session, "close", closing)
    return found


def leave_http(server: LiveServer, gate: Gate, **body: Any) -> None:
    """Asks for speech and goes when the work has begun."""
    with httpx.Client(base_url=server.url, timeout=60.0) as client:
        request = client.build_request("POST", "/v1/audio/speech", json=body)
        sender = threading.Thread(target=lambda: _try(client, request), daemon=True)
        sender.start()
        assert gate.is_reached.wait(60.0)
        # Closing a client in another thread does not end its request: the socket has to.
        for connection in client._transport._pool.connections:  # type: ignore[attr-defined]
            stream = connection._connection._network_stream.get_extra_info("socket")
            stream.shutdown(2)
        sender.join(30.0)


def _try(client: httpx.Client, request: httpx.Request) -> None:
    try:
        client.send(request)
    except httpx.HTTPError:
        pass


def leave_socket(server: LiveServer, gate: Gate, text: str, **settings: Any) -> None:
    with connect(server.socket_url) as socket:
        socket.send(json.dumps({"type": "session.config", **settings}))
        socket.send(json.dumps({"type": "input.text", "text": text}))
        socket.send(json.dumps({"type": "input.done"}))
        assert gate.is_reached.wait(60.0)


def is_left_alone(server: LiveServer) -> bool:
    """Whether the server waits for nobody."""
    service = server.service
    return service.admission.num_live == 0 and service.num_sockets == 0


@pytest.mark.parametrize("by_socket", [False, True], ids=["http", "websocket"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(decoding, "decode_step"), (ReadBack, "__call__"), (SegmentAligner, "_log_probs")],
    ids=["tokens", "read-back", "word times"],
)
def test_long_work_ends_when_its_client_has_gone(
    server: LiveServer,
    closed: list[Session],
    monkeypatch: pytest.MonkeyPatch,
    by_socket: bool,
    owner: Any,
    name: str,
) -> None:
    gate = Gate()
    monkeypatch.setattr(owner, name, gate.around(getattr(owner, name)))
    monkeypatch.setattr(session_module, "SEGMENTS_PER_BATCH", 1)  # so that there are several
    try:
        options: dict[str, Any] = {"duration": 6.0, "word_times": True}
        if by_socket:
            leave_socket(server, gate, TEXT, **options)
        else:
            leave_http(server, gate, input=TEXT, stream_format="sse", **options)
        eventually(lambda: is_left_alone(server), "the request is let go")
        assert not closed and gate.num_calls == 1
    finally:
        gate.opened.set()
    eventually(lambda: bool(closed), "the session is closed")
    assert gate.num_calls == 1
    # Both streams that the engine takes are free again.
    response = httpx.post(f"{server.url}/v1/audio/speech", json={"input": "Yes."}, timeout=60.0)
    assert response.status_code == 200 and response.content


def test_a_script_is_checked_no_further(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, ended = Gate(), threading.Event()
    new_session = Synthesizer.new_session
    monkeypatch.setattr(Synthesizer, "new_session", gate.around(new_session))
    checked = script_module._checked

    def checking(*args: Any, **options: Any) -> Iterator[Any]:
        try:
            yield from checked(*args, **options)
        finally:
            ended.set()

    monkeypatch.setattr(script_module, "_checked", checking)
    try:
        leave_http(server, gate, input=[{"text": "Yes."}] * 100)
        eventually(lambda: is_left_alone(server), "the request is let go")
    finally:
        gate.opened.set()
    assert ended.wait(60.0) and gate.num_calls == 1
