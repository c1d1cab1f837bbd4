"""Bodies that are refused: the client hears why, also while it is still sending."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from conftest import StartServer
from live_server import LiveServer

BIG = 30_000_000
"""Bytes that no buffer between client and server holds."""


def head(path: str, length: int, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json",
             f"Content-Length: {length}", *more]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


def answer(connection: socket.socket, *, to_the_end: bool) -> tuple[int, str]:
    """Status and message; read up to what it says of its length, or until it is closed."""
    data, length = b"", None
    while length is None or to_the_end or len(data) < length:
        piece = connection.recv(65_536)
        if not piece:
            break
        data += piece
        if b"\r\n\r\n" in data:
            top = data[: data.index(b"\r\n\r\n") + 4]
            length = len(top) + int(top.lower().split(b"content-length: ")[1].split()[0])
    assert length == len(data) and b"connection: close" in data.lower()
    return int(data.split()[1]), json.loads(data.split(b"\r\n\r\n")[1])["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/audio/voices"])
@pytest.mark.parametrize("told_length", [True, False])
def test_a_client_that_sends_it_all_hears_the_sentence(
    start: StartServer, path: str, told_length: bool
) -> None:
    """It does not read before it has sent everything, as most clients do."""
    server = start(max_upload_bytes=100_000)

    def pieces() -> Iterator[bytes]:
        if not told_length:
            yield b"--x\r\nContent-Disposition: form-data; "
            yield b'name="audio_sample"; filename="a"\r\n\r\n'
        for _ in range(BIG // 100_000):
            yield bytes(100_000)

    length = {"Content-Length": str(BIG)} if told_length else {}
    headers = {"Content-Type": "multipart/form-data; boundary=x", **length}
    with httpx.Client(base_url=server.url, timeout=60.0) as client:
        response = client.post(path, content=pieces(), headers=headers)
        assert response.status_code == 413
        assert "longer than" in response.json()["error"]["message"]
        # Another request is served as ever.
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("keys", "length", "status", "told"),
    [(("sesame",), 1000, 401, "key is missing"), ((), BIG, 413, "longer than")],
)
def test_the_answer_does_not_wait_for_the_body(
    start: StartServer, keys: tuple[str, ...], length: int, status: int, told: str
) -> None:
    """Who waits to be told to go on (`Expect: 100-continue`) need not send it at all."""
    server = start(keys=keys)
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as connection:
        connection.sendall(head("/v1/audio/speech", length, "Expect: 100-continue"))
        connection.settimeout(8.0)  # less than the time that the rest of a body is waited for
        found = answer(connection, to_the_end=False)
        assert found[0] == status and told in found[1]


def test_without_a_key_nothing_is_kept(start: StartServer) -> None:
    """A stranger's recording is not even taken in, and the stranger is told why."""
    server = start(keys=("sesame",))
    with httpx.Client(base_url=server.url, timeout=60.0) as client:
        files = {"audio_sample": ("a.wav", bytes(15_000_000))}
        response = client.post("/v1/audio/voices", files=files)
        assert response.status_code == 401 and "key is missing" in response.text
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["connection"] == "close"


def test_a_body_that_does_not_come_is_not_waited_for(start: StartServer) -> None:
    server = start(body_timeout_seconds=0.5)
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as connection:
        connection.sendall(head("/v1/audio/speech", 1000) + b'{"input": ')
        begun = time.monotonic()
        connection.settimeout(30.0)
        status, told = answer(connection, to_the_end=False)
        assert status == 408 and "did not come within 0.5 s" in told
        assert time.monotonic() - begun >= 0.4


def test_an_answer_to_a_whole_body_ends_the_connection_at_once(start: StartServer) -> None:
    server = start(keys=("sesame",))
    body = b'{"input": "one"}'
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=8)) as connection:
        connection.sendall(head("/v1/audio/speech", len(body)) + body)
        assert answer(connection, to_the_end=True)[0] == 401


def test_speech_goes_on_after_its_body(start: StartServer) -> None:
    """The time for a body does not count once the body is there."""
    server: LiveServer = start(body_timeout_seconds=0.3, stall_timeout_seconds=1.0)
    body = {"input": "one stall", "response_format": "pcm"}
    begun = time.monotonic()
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=30.0)
    assert time.monotonic() - begun > 0.9
