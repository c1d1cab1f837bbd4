"""`/v1/audio/edits` over a real connection."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
import soundfile
from conftest import CONSENT, StartServer

PATH = "/v1/audio/edits"
TEXT = "The quick brown fox jumps over it."


def send(client: httpx.Client, audio: bytes, **fields: Any) -> httpx.Response:
    data = {"consent": CONSENT, "text": TEXT, **fields}
    return client.post(PATH, files={"audio_sample": ("in.wav", audio)}, data=data)


def test_a_recording_comes_back_edited(client: httpx.Client, recording: Path) -> None:
    samples, rate = soundfile.read(str(recording), dtype="int16")
    stereo = io.BytesIO()
    soundfile.write(stereo, np.stack([samples, samples // 2], axis=1), rate, format="FLAC")
    first, second = (
        send(client, stereo.getvalue(), replace="brown", seed=3, **{"with": "so"}) for _ in range(2)
    )
    assert first.status_code == 200, first.text
    assert first.headers["content-type"] == "audio/flac"
    assert first.headers["x-synthesised"].startswith("tokenlm/")
    assert first.headers["x-tokenlm-seed"] == "3"
    assert unquote(first.headers["x-tokenlm-text"]) == "The quick so fox jumps over it."
    assert first.content == second.content
    edited, new_rate = soundfile.read(io.BytesIO(first.content), dtype="int16")
    assert new_rate == rate and edited.shape[1] == 2
    start, end = map(float, first.headers["x-tokenlm-span"].split("-"))
    left, right = int((start - 0.05) * rate), len(edited) - int((end + 0.05) * rate) - 1
    assert np.array_equal(edited[:left, 0], samples[:left])
    assert np.array_equal(edited[-right:, 0], samples[-right:])
    assert not np.array_equal(edited[left : left + 5000, 0], samples[left : left + 5000])


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"delete": "cat"}, 400, "does not say 'cat'"),
        ({}, 400, "one edit is made at a time"),
        ({"delete": "fox", "span": "1-2"}, 400, "one edit is made at a time"),
        ({"replace": "fox"}, 400, "go together"),
        ({"insert": "so"}, 400, "one of before, after and at"),
        ({"span": "then"}, 400, "such as 1.2-1.6"),
        ({"delete": "fox", "consent": "yes"}, 400, "Nothing without consent"),
        ({"delete": "fox " * 400}, 413, "more than 1000 characters"),
        ({"delete": "fox", "occurrence": 0}, 400, "occurrence"),
    ],
)
def test_edits_that_cannot_be_made(
    client: httpx.Client, recording: Path, fields: dict[str, Any], status: int, message: str
) -> None:
    response = send(client, recording.read_bytes(), **fields)
    assert response.status_code == status, response.text
    assert message.lower() in response.json()["error"]["message"].lower()


def test_recordings_that_cannot_be_edited(start: StartServer, recording: Path) -> None:
    ogg = io.BytesIO()
    soundfile.write(ogg, np.zeros(16_000), 16_000, format="OGG")
    server = start(max_upload_seconds=1.0, max_upload_bytes=150_000)
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        for audio, status, message in (
            (ogg.getvalue(), 400, "cannot be edited: wav, flac"),
            (b"", 400, "it is empty"),
            (b"no sound at all", 400, "The recording cannot be used"),
            (recording.read_bytes(), 413, "longer than the 1 s"),
            (recording.read_bytes() * 2, 413, "larger than"),
        ):
            response = send(client, audio, delete="fox")
            assert response.status_code == status, response.text
            assert message.lower() in response.json()["error"]["message"].lower()
    closed = start(uploads=False)
    with httpx.Client(base_url=closed.url, timeout=30.0) as client:
        assert send(client, recording.read_bytes(), delete="fox").status_code == 403
