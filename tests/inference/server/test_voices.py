"""`/v1/audio/voices` over a real connection."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import yaml
from conftest import CONSENT, StartServer
from live_server import LiveServer
from phone_recordings import CONTAINERS, write_by_ffmpeg

from inference.server.voice_store import VoiceRecord
from tokenlm.checkpoint import read_manifest
from tokenlm.checkpoint.adapter import (
    AdapterBase,
    AdapterConfig,
    PartChange,
    bundle_fingerprint,
    save_adapter,
)
from tokenlm.checkpoint.component import read_state
from tokenlm.config import load_config
from tokenlm.synthesis import Synthesizer, Voice

PATH = "/v1/audio/voices"


@pytest.fixture
def server(start: StartServer) -> LiveServer:
    return start(max_upload_bytes=1_000_000, max_upload_seconds=20.0)


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30.0) as found:
        yield found


def add(client: httpx.Client, audio: bytes, name: str = "me", **fields: str) -> httpx.Response:
    data = {"name": name, "consent": CONSENT, **fields}
    return client.post(PATH, files={"audio_sample": ("me.wav", audio)}, data=data)


def sound(seconds: float, *, rate: int = 8000, container: str = "FLAC", level: float = 0.0,
          channels: int = 1) -> bytes:  # fmt: skip
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).normal(size=(int(seconds * rate), channels)) * level
    soundfile.write(buffer, noise, rate, format=container)
    return buffer.getvalue()


def test_a_voice_is_added_used_and_deleted(
    server: LiveServer, client: httpx.Client, recording: Path, tmp_path: Path
) -> None:
    audio = recording.read_bytes()
    response = add(client, audio, ref_text="Is it so?")
    assert response.status_code == 201, response.text
    body = response.json()
    assert (body["id"], body["type"], body["ref_text"]) == ("me", "audio_sample", "is it so?")
    assert body["seconds"] == pytest.approx(2.0)
    assert body["consent"] is None, "not for everybody"
    # What is stored: a voice, and a record beside it; nothing else.
    folder = server.config.voices
    record = load_config(VoiceRecord, folder / "me.yaml")
    assert record.consent.who == "Ann Example" and record.consent.statement.startswith("My voice")
    assert record.consent.date.endswith("+00:00")
    assert record.consent.audio_sha256 == hashlib.sha256(audio).hexdigest()
    assert {path.name for path in folder.iterdir()} == {".key", "me.yaml", record.file}
    assert Voice.load(folder / record.file).prompt_text == "is it so?"

    names = [voice["id"] for voice in client.get(PATH).json()["data"]]
    assert names == ["ann", "bob", "me"]
    said = client.post("/v1/audio/speech", json={"input": "yes", "voice": "me"})
    assert said.status_code == 200 and said.headers["x-tokenlm-voice"] == "me"
    engine = server.fake_engine
    used = engine.voices[-1]
    assert isinstance(used, Voice) and used.name == "me"

    assert add(client, audio).status_code == 409
    assert add(client, audio, "ME").status_code == 409
    assert client.delete(f"{PATH}/me").json() == {
        "id": "me", "object": "audio.voice", "deleted": True,
    }  # fmt: skip
    assert [path.name for path in folder.iterdir()] == [".key"]
    assert client.delete(f"{PATH}/me").status_code == 404
    assert client.post("/v1/audio/speech", json={"input": "yes", "voice": "me"}).status_code == 404


def test_a_name_that_comes_to_mean_another_voice(
    server: LiveServer, client: httpx.Client, recording: Path
) -> None:
    """Also when another server, which shares the folder, does it."""
    engine = server.fake_engine
    for text in ("is it so?", "yes, it is!"):
        assert add(client, recording.read_bytes(), ref_text=text).status_code == 201
        client.post("/v1/audio/speech", json={"input": "yes", "voice": "me"})
        assert client.delete(f"{PATH}/me").status_code == 200
    texts = [voice.prompt_text for voice in engine.voices if isinstance(voice, Voice)]
    assert texts == ["is it so?", "yes, it is!"]


@pytest.mark.parametrize(
    "name",
    ["../me", "..", ".", "", "a/b", "a\\b", "/etc/passwd", "a.yaml", ".hidden", "a\0b", "a b",
     "é", "x" * 65, "con", "~", "$(id)", "-rf"],
)  # fmt: skip
def test_names_that_lead_elsewhere(
    client: httpx.Client, server: LiveServer, recording: Path, name: str
) -> None:
    response = add(client, recording.read_bytes(), name)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["message"]
    folder = server.config.voices
    assert not folder.exists() or list(folder.iterdir()) == []
    assert [path.name for path in folder.parent.iterdir() if path.suffix == ".voice"] == []


@pytest.mark.parametrize("path", ["..%2f..%2fme", "%2e%2e", "ann.voice", "%00", "a%2Fb"])
def test_deleting_never_leaves_the_folder(client: httpx.Client, path: str) -> None:
    assert client.delete(f"{PATH}/{path}").status_code in (404, 405)


def test_voices_of_the_bundle_stay(client: httpx.Client, recording: Path) -> None:
    assert client.delete(f"{PATH}/ann").status_code == 403
    assert add(client, recording.read_bytes(), "Ann").status_code == 409


@pytest.mark.parametrize(
    "consent",
    ["", "yes", "{}", "[]", '{"who": "I"}', '{"who": "", "statement": "yes"}',
     '{"who": "I", "statement": 1}', '{"who": "I", "statement": " "}', "[" * 3000,
     '{"who": "\\ud800", "statement": "yes"}'],
)  # fmt: skip
def test_no_voice_without_consent(client: httpx.Client, recording: Path, consent: str) -> None:
    response = add(client, recording.read_bytes(), consent=consent)
    assert response.status_code == 400
    assert "onsent" in response.text or "Unicode" in response.text


def test_missing_fields(client: httpx.Client, recording: Path) -> None:
    audio = {"audio_sample": ("me.wav", recording.read_bytes())}
    assert client.post(PATH, files=audio, data={"name": "me"}).status_code == 400
    assert client.post(PATH, files=audio, data={"consent": CONSENT}).status_code == 400
    data = {"name": "me", "consent": CONSENT}
    assert client.post(PATH, data=data).status_code == 400
    assert client.post(PATH, data={**data, "audio_sample": "text"}).status_code == 400
    assert client.post(PATH, json=data).status_code == 400
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post(PATH, content=b"--x\r\nbroken", headers=broken).status_code == 400
    no_boundary = {"Content-Type": "multipart/form-data"}
    assert client.post(PATH, content=b"--x\r\n", headers=no_boundary).status_code == 400


def test_recordings_that_are_none(client: httpx.Client, recording: Path) -> None:
    whole = recording.read_bytes()
    flac = sound(3.0, level=0.1)
    for audio in (
        b"",
        b"RIFF",
        b"no sound at all" * 100,
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        whole[:40],
        flac[:60],
        bytes(10_000),
        sound(0.1, level=0.1),
        sound(5.0),  # silence
        sound(1.0, channels=9, container="WAV"),
        sound(1.0, rate=1000, container="WAV"),
        struct.pack("<4sI4s", b"RIFF", 0xFFFFFFFF, b"WAVE") + b"\xff" * 100,
    ):
        response = add(client, audio)
        assert response.status_code == 400, (audio[:16], response.text)
        assert response.json()["error"]["param"] == "audio_sample"
    floats = io.BytesIO()
    soundfile.write(floats, np.full(24_000, np.nan), 24_000, format="WAV", subtype="FLOAT")
    assert "not finite" in add(client, floats.getvalue()).text


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_what_phones_and_browsers_record(
    client: httpx.Client, recording: Path, tmp_path: Path, suffix: str
) -> None:
    samples, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    path = tmp_path / f"memo.{suffix}"
    write_by_ffmpeg(path, samples, 48_000 if suffix == "webm" else rate)
    response = add(client, path.read_bytes())
    assert response.status_code == 201, response.text


def test_recordings_that_went_wrong_are_read(client: httpx.Client, recording: Path) -> None:
    samples, rate = soundfile.read(recording, dtype="float32")
    killed, opposite = io.BytesIO(), io.BytesIO()
    soundfile.write(killed, samples, rate, format="WAV")
    soundfile.write(opposite, np.stack([samples, -samples], axis=1), rate, format="WAV")
    content = bytearray(killed.getvalue())
    content[40:44] = bytes(4)
    assert add(client, bytes(content), name="killed").status_code == 201
    assert add(client, opposite.getvalue(), name="opposite").status_code == 201


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>404</html>", b"\xff\x00" * 5000])
def test_what_is_wrong_is_told_without_names_of_the_server(
    client: httpx.Client, content: bytes
) -> None:
    told = add(client, content).json()["error"]["message"]
    assert told.startswith("The recording cannot be used: it cannot be read as audio: ")
    assert "tmp" not in told and "pip" not in told


def test_truncated_recordings_never_break_the_server(client: httpx.Client, recording: Path) -> None:
    for container in ("WAV", "FLAC", "MP3", "OGG"):
        whole = sound(2.0, rate=24_000, level=0.1, container=container)
        for share in (0.1, 0.5, 0.9, 0.999):
            response = add(client, whole[: int(share * len(whole))])
            assert response.status_code in (201, 400), response.text
            if response.status_code == 201:
                client.delete(f"{PATH}/me")
    assert client.get("/health").status_code == 200


def test_too_much(client: httpx.Client, server: LiveServer) -> None:
    # Half an hour of silence in a small file: the header says so, or does not.
    bomb = sound(1800.0)
    assert len(bomb) < 200_000
    response = add(client, bomb)
    assert response.status_code == 413 and "longer than the 20 s" in response.text
    assert add(client, sound(25.0, level=0.1)).status_code == 413
    assert add(client, bytes(1_050_000)).status_code == 413
    assert add(client, bytes(3_000_000)).status_code == 413
    assert add(client, b"x", ref_text="x" * 1001).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="audio_sample"; filename="a"\r\n\r\n'
        for _ in range(300):
            yield bytes(10_000)

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post(PATH, content=pieces(), headers=kind).status_code == 413
    assert not server.config.voices.exists()


def test_only_so_many_voices(start: StartServer, recording: Path) -> None:
    server = start(max_voices=1)
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        assert add(client, recording.read_bytes(), "one").status_code == 201
        response = add(client, recording.read_bytes(), "two")
        assert response.status_code == 403 and "all that this server keeps" in response.text


def test_a_server_whose_voices_cannot_be_changed(start: StartServer, recording: Path) -> None:
    server = start(uploads=False)
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        assert add(client, recording.read_bytes()).status_code == 403
        assert client.delete(f"{PATH}/me").status_code == 403
        assert client.get(PATH).status_code == 200


def test_voices_for_clients_of_other_servers(client: httpx.Client, recording: Path) -> None:
    assert add(client, recording.read_bytes()).status_code == 201
    names = ["ann", "bob", "me"]
    found = client.get(PATH).json()
    # Open WebUI reads both of each, clients of Kokoro either of them, older ones bare names.
    assert {voice["id"]: voice["name"] for voice in found["voices"]} == dict(
        zip(names, names, strict=True)
    )
    assert client.get(PATH, params={"legacy": "true"}).json()["voices"] == names
    assert [voice["id"] for voice in found["data"]] == names
    page = client.get(PATH, params={"limit": 1, "after": "ann"}).json()
    assert page["voices"] == [{"id": "bob", "name": "bob"}] and page["has_more"]
    said = client.post("/v1/audio/speech", json={"input": "yes", "voice": "ME"})
    assert said.status_code == 200 and said.headers["x-tokenlm-voice"] == "me"


@pytest.mark.parametrize("place", ["file", "file/voices"])
def test_a_folder_that_cannot_be_written_to(
    start: StartServer,
    recording: Path,
    tmp_path: Path,
    place: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said at the start, and to whoever adds a voice, before any work is done for it."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    server = start(voices=tmp_path / place)
    assert "clients cannot add voices: " in caplog.text and "is not a folder" in caplog.text
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        response = add(client, recording.read_bytes())
        assert response.status_code == 403 and "cannot be written to" in response.text
        assert response.json()["error"]["code"] == "read_only"
        assert client.get(PATH).status_code == 200
        assert client.delete(f"{PATH}/me").status_code == 404
        assert client.post("/v1/audio/speech", json={"input": "yes"}).status_code == 200


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody writes to")
def test_a_folder_that_only_seems_to_take_files(
    start: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    """As root may write anywhere, and some file systems let nobody: only a try tells."""
    server = start(voices=Path("/proc/voices"))
    assert "clients cannot add voices: the folder /proc cannot be written" in caplog.text
    response = httpx.post(f"{server.url}{PATH}", files={"audio_sample": ("me.wav", b"no sound")},
                          data={"name": "me", "consent": CONSENT}, timeout=30.0)  # fmt: skip
    assert response.status_code == 403 and response.json()["error"]["code"] == "read_only"


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [(errno.EROFS, 403, "cannot be written to"), (errno.EACCES, 403, "cannot be written to"),
     (errno.ENOSPC, 500, "The voice could not be kept: No space left on device")],
)  # fmt: skip
def test_a_disk_that_fails_while_a_voice_is_written(
    client: httpx.Client,
    server: LiveServer,
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    status: int,
    told: str,
) -> None:
    def fails(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("inference.server.voice_store.save_config", fails)
        response = add(client, recording.read_bytes())
    assert response.status_code == status and told in response.text
    assert [path.name for path in server.config.voices.iterdir()] == [".key"]
    assert add(client, recording.read_bytes()).status_code == 201
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fails)
        assert client.delete(f"{PATH}/me").status_code == 403
    assert client.delete(f"{PATH}/me").status_code == 200


@pytest.mark.slow
def test_ten_thousand_voices(
    client: httpx.Client, server: LiveServer, synthesizer: Synthesizer
) -> None:
    """They are listed page by page, each page at the cost of a page."""
    folder = server.config.voices
    folder.mkdir()
    consent = {"who": "I", "statement": "yes", "date": "2000-01-01", "audio_sha256": "0" * 64}
    synthesizer.voice("ann").save(folder / "v00042.0123456789abcdef.voice")
    for number in range(10_000):
        name = f"v{number:05d}"
        facts = {"name": name, "created_at": number, "seconds": 2.0, "consent": consent,
                 "file": f"{name}.0123456789abcdef.voice"}  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps(facts), encoding="utf-8")
    (folder / "v00007.yaml").write_text("name: [", encoding="utf-8")
    (folder / "notes.txt").write_text("not a voice", encoding="utf-8")
    seen: list[str] = []
    page = client.get(PATH, params={"limit": 1000}).json()
    seen += [voice["id"] for voice in page["data"]]
    assert page["has_more"] and page["last_id"] == seen[-1] and len(seen) == 1000
    page = client.get(PATH, params={"limit": 10, "after": seen[-1]}).json()
    seen += [voice["id"] for voice in page["data"]]
    assert seen[:3] == ["ann", "bob", "v00000"] and len(set(seen)) == 1010
    assert "v00007" not in seen and seen == sorted(seen)
    page = client.get(PATH, params={"after": "v09998"}).json()
    assert [voice["id"] for voice in page["data"]] == ["v09999"] and not page["has_more"]
    page = client.get(PATH).json()
    assert (len(page["data"]), len(page["voices"])) == (100, 1000)
    assert client.get(PATH, params={"after": "zzz"}).json()["data"] == []
    assert client.get(PATH, params={"limit": 1001}).status_code == 400
    speak = {"input": "yes", "voice": "v00042"}
    assert client.post("/v1/audio/speech", json=speak).status_code == 200
    # A record whose voice file is gone is a refusal, not a failure.
    speak = {"input": "yes", "voice": "v00043"}
    assert client.post("/v1/audio/speech", json=speak).status_code == 404


def test_records_are_plain_yaml(client: httpx.Client, server: LiveServer, recording: Path) -> None:
    add(client, recording.read_bytes())
    facts = yaml.safe_load((server.config.voices / "me.yaml").read_text(encoding="utf-8"))
    assert facts["consent"]["who"] == "Ann Example"


def test_voices_of_the_settings_may_have_adapters(
    start: StartServer, synthesizer: Synthesizer, tmp_path: Path
) -> None:
    """A voice file is one of the server's own; what its adapter lacks is said."""
    ann = synthesizer.voice("ann")
    ann.save(tmp_path / "plain.voice")
    adapter = tmp_path / "me.adapter"
    bundle = synthesizer.components.folder
    head, value = next(iter(read_state(bundle / "vocoder" / "model.safetensors").items()))
    base = AdapterBase(name="tiny", fingerprint=bundle_fingerprint(read_manifest(bundle)))
    config = AdapterConfig(name="me", base=base)
    save_adapter(adapter, config, {"vocoder": PartChange({head: value}, {})})
    dataclasses.replace(ann, adapter=str(adapter)).save(tmp_path / "me.voice")
    adapter.rename(tmp_path / "moved.adapter")
    files = {"plain": tmp_path / "plain.voice", "me": tmp_path / "me.voice"}
    server = start(voice_files=files | {"gone": tmp_path / "gone.voice"})
    missing, unusable = sorted(server.service.startup_warnings())
    assert "gone is" in missing and "which is not there" in missing
    assert "me cannot be used" in unusable and "no such adapter folder" in unusable
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        listed = client.get(PATH).json()["data"]
        assert {one["id"] for one in listed} == {"ann", "bob", "plain", "me", "gone"}
        body = {"input": "is it so?", "response_format": "pcm"}
        assert client.post("/v1/audio/speech", json=body | {"voice": "plain"}).status_code == 200
        refused = client.post("/v1/audio/speech", json=body | {"voice": "me"})
        assert refused.status_code == 500, refused.text
        message = refused.json()["error"]["message"]
        assert "adapter of the voice 'me' cannot be used" in message
        assert str(tmp_path) not in message
        (tmp_path / "moved.adapter").rename(adapter)
        assert client.post("/v1/audio/speech", json=body | {"voice": "me"}).status_code == 200
        (adapter / "adapter.yaml").unlink()
        assert client.post("/v1/audio/speech", json=body | {"voice": "me"}).status_code == 500
        gone = client.post("/v1/audio/speech", json=body | {"voice": "gone"})
        assert gone.status_code == 404 and str(tmp_path) not in gone.text
        # A file that is replaced is another voice.
        synthesizer.voice("bob").save(tmp_path / "plain.voice")
        assert client.post("/v1/audio/speech", json=body | {"voice": "plain"}).status_code == 200
        engine = server.fake_engine
        used = engine.voices[-1]
        assert isinstance(used, Voice) and used.digest == synthesizer.voice("bob").digest
        assert client.delete(f"{PATH}/plain").status_code == 403
