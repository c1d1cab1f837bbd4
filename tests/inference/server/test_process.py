"""The process of a server: its port, its options, and signals."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from running_server import running_server
from typer.testing import CliRunner

from inference.server.process import listen
from inference.server.settings import Limits, ServeConfig
from tokenlm.cli import build_app


def test_a_port_that_is_taken() -> None:
    with listen(ServeConfig(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen at 127.0.0.1 port {port}"):
            listen(ServeConfig(port=port))
    with pytest.raises(ValueError, match="cannot listen at no.such.host.invalid"):
        listen(ServeConfig(host="no.such.host.invalid"))


def test_what_the_system_holds_back_is_bounded() -> None:
    with listen(ServeConfig(port=0, limits=Limits(socket_send_bytes=16_384))) as listener:
        # Linux counts its own bookkeeping in, which doubles the number.
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 16_384


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "limits.max_streams=0"), "max_streams must be at least 1"),
        (("--set", "limits.max_steams=1"), "max_streams"),
        (("--config", "gone.yaml"), "there is no such file"),
        (("--bundle", "no/such/bundle"), "neither a folder nor the name of a bundle"),
        (("--device", "abacus"), "the device 'abacus' cannot be used"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(build_app(["serve"]), ["serve", *arguments])
    assert result.exit_code == 2 and told in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_a_signal_lets_live_utterances_end(tiny_bundle: Path, tmp_path: Path) -> None:
    """Of a process as a user starts it."""
    heard: list[httpx.Response] = []
    log = tmp_path / "tokens.jsonl"
    text = "The quick brown fox jumps over the lazy dog. " * 40
    body = {"input": text, "response_format": "wav"}

    with running_server(tmp_path, "--bundle", str(tiny_bundle), "--set", f"token_log={log}") as (
        url,
        process,
    ):

        def ask() -> None:
            heard.append(httpx.post(f"{url}/v1/audio/speech", json=body, timeout=120.0))

        asker = threading.Thread(target=ask)
        asker.start()
        end = time.monotonic() + 60
        while httpx.get(f"{url}/health").json()["live_streams"] == 0:
            assert time.monotonic() < end and asker.is_alive()
        process.send_signal(signal.SIGTERM)
        asker.join(120)
        assert process.wait(60) in (0, -signal.SIGTERM)
    (response,) = heard
    assert response.status_code == 200
    facts = json.loads(log.read_text(encoding="utf-8"))
    assert facts["end"] == "done" and len(response.content) > 2 * facts["num_samples"]
    assert "Traceback" not in (tmp_path / "server.log").read_text(encoding="utf-8")
