"""Every route that speaks, with everything that it takes, on models of every precision."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from conftest import CONSENT
from live_server import LiveServer
from websockets.sync.client import connect

from inference.commands.options import Precision
from inference.commands.speech import load_synthesizer
from inference.engine import StreamEngine
from inference.server.settings import ServeConfig
from inference.server.speech import SpeechRequest
from tokenlm.audio.encoders import available_formats
from tokenlm.audio.io import SequentialSound

TEXT = "Yes, it is!"
TAKEN: dict[str, tuple[Any, ...]] = {
    "input": (), "model": ("tiny", None), "voice": ("ann", "BOB", {"id": "bob"}, None),
    "instructions": ("", None), "response_format": available_formats(),
    "stream_format": ("audio", "sse"), "stream": (True, False, None), "speed": (0.5, 2, None),
    "seed": (7, None), "language": ("en", None), "user": ("me", None), "duration": (0.5, None),
    "markup": (True, False), "sentence_gap": (0.2, None), "paragraph_gap": (0.2, None),
    "word_times": (False,), "lexicon": ({},), "voices": (None,),
}  # fmt: skip


@pytest.fixture(scope="module", params=get_args(Precision))
def server(
    request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    synthesizer = load_synthesizer(str(tiny_bundle), "cpu", request.param)
    config = ServeConfig(voices=tmp_path_factory.mktemp("precision") / "voices")
    with LiveServer(config, synthesizer, lambda: StreamEngine(synthesizer)) as found:
        yield found
        assert httpx.get(f"{found.url}/health").json()["status"] == "ok"


def test_everything_that_a_request_may_say(server: LiveServer) -> None:
    assert set(TAKEN) == set(SpeechRequest.model_fields)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for name, values in TAKEN.items():
            for value in values:
                body = {"input": TEXT, "response_format": "wav", name: value}
                response = client.post("/v1/audio/speech", json=body)
                assert response.status_code == 200, (name, value, response.text)
                if value == "sse":
                    assert "speech.audio.done" in response.text
                elif name == "response_format" and value == "pcm":
                    assert len(response.content) > 4_000
                else:
                    with SequentialSound(io.BytesIO(response.content)) as sound:
                        assert sum(len(block) for block in sound.read_blocks()) > 2_000
            assert client.get("/health").json()["status"] == "ok", name


def test_text_that_is_still_written(server: LiveServer) -> None:
    with connect(server.socket_url) as socket:
        socket.send(json.dumps({"type": "session.config", "voice": "bob", "seed": None}))
        for piece in (TEXT, " The quick", " brown fox."):
            socket.send(json.dumps({"type": "input.text", "text": piece}))
        socket.send(json.dumps({"type": "session.close"}))
        told, num_bytes = [], 0
        while not told or told[-1] != "session.done":
            message = socket.recv(timeout=60)
            if isinstance(message, bytes):
                num_bytes += len(message)
            else:
                told.append(json.loads(message)["type"])
    assert told == ["audio.start", "audio.done", "session.done"] and num_bytes > 4_000


def test_a_voice_that_is_added(server: LiveServer, recording: Path) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for ref_text in ("", "is it so"):
            added = client.post(
                "/v1/audio/voices",
                files={"audio_sample": recording.read_bytes()},
                data={"name": "me", "consent": CONSENT, "ref_text": ref_text},
            )
            assert added.status_code == 201, added.text
            body = {"input": TEXT, "voice": "me", "response_format": "pcm"}
            said = client.post("/v1/audio/speech", json=body)
            assert said.status_code == 200 and len(said.content) > 4_000
            assert client.delete("/v1/audio/voices/me").status_code == 200
