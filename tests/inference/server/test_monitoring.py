"""A server that cannot speak says so at `/health`, and says when it can again."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from conftest import StartServer
from fake_engine import FakeEngine
from live_server import LiveServer, eventually

from inference.server import monitoring


class Broken(FakeEngine):
    breaks_at_start = True


def health(server: LiveServer) -> tuple[int, dict[str, Any]]:
    response = httpx.get(f"{server.url}/health")
    return response.status_code, response.json()


def speak(server: LiveServer, text: str = "one", **more: object) -> int:
    body = {"input": text, "response_format": "pcm", **more}
    try:
        return httpx.post(f"{server.url}/v1/audio/speech", json=body).status_code
    except httpx.RemoteProtocolError:
        return 0


def test_models_that_fail_from_the_start(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(engine=Broken)
    status, told = health(server)
    assert status == 503 and told["status"] == "failing"
    assert told["reason"] == "the last utterance failed: RuntimeError"
    assert speak(server) == 500 and health(server)[0] == 503
    # Once they work, an utterance of anybody shows it.
    server.fake_engine.is_broken = False
    assert health(server)[0] == 503
    assert speak(server) == 200
    assert health(server) == (200, told | {"status": "ok", "reason": None})


@pytest.mark.parametrize("text", ["break", "one break"])
def test_an_utterance_that_fails(start: StartServer, text: str) -> None:
    server = start()
    assert health(server)[0] == 200 and server.fake_engine.num_checks == 1
    speak(server, text)
    eventually(lambda: health(server)[0] == 503, "it is noticed")
    assert speak(server) == 200 and health(server)[0] == 200


def test_nobody_else_need_speak_to_find_out(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load balancer that sends nothing to a server that fails would never hear of its health."""
    monkeypatch.setattr(monitoring, "RETRY_SECONDS", 0.0)
    server = start()
    engine = server.fake_engine
    engine.is_broken = True
    assert speak(server) == 500
    for _ in range(3):
        assert health(server)[0] == 503
    engine.is_broken = False
    eventually(lambda: health(server)[0] == 200, "it speaks again")
    assert engine.opened == [] and server.service.metrics.render().count(b'end="done"} 0.0') == 1


def test_models_that_give_nothing(start: StartServer) -> None:
    server = start(stall_timeout_seconds=0.3)
    assert speak(server, "stall") == 500
    status, told = health(server)
    assert status == 503 and "gave nothing for 0.3 s" in told["reason"]


def test_mistakes_of_clients_say_nothing_of_the_models(start: StartServer) -> None:
    server = start()
    for text, more, status in (
        ("", {}, 400), ("unsayable", {}, 400), ("one", {"voice": "nobody"}, 404),
        ("one", {"speed": 9}, 400), ("one", {"response_format": "aac"}, 400), ("x" * 5000, {}, 413),
    ):  # fmt: skip
        assert speak(server, text, **more) == status
        assert health(server)[0] == 200
