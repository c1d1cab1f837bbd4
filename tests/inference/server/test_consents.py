"""Spoken consent over a real connection: sentences, recordings, refusals, and what is kept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import torch
from conftest import CONSENT
from fake_engine import FakeEngine
from live_server import LiveServer
from torch import Tensor

from inference.consent.challenge import Challenge, Challenges
from inference.consent.evidence import check_signature, read_evidence
from inference.consent.manager import ConsentManager
from inference.consent.settings import ConsentConfig
from inference.consent.verification import Decision
from inference.server.settings import ServeConfig
from tokenlm.synthesis import Synthesizer, Voice

VOICES, CONSENTS = "/v1/audio/voices", "/v1/audio/voice_consents"
SCORES = {"words": 3.0, "speaker": 0.9, "lowest_window": 0.8, "agreement": 0.7, "synthetic": None,
          "watermark": None}  # fmt: skip


class Listener:
    """In place of the models: accepts unless it is told otherwise, and notes what it was given."""

    bundle = "tiny"
    detects_synthetic = False

    def __init__(self) -> None:
        self.reasons: tuple[str, ...] = ()
        self.heard: list[tuple[Challenge, int, int]] = []
        self.sample = torch.zeros(0)

    def verify(
        self, challenge: Challenge, sentence: Tensor, rate: int, sample: Tensor, sample_rate: int
    ) -> Decision:
        self.sample = sample
        self.heard.append((challenge, sentence.shape[0], sample.shape[0]))
        return Decision(accepted=not self.reasons, reasons=self.reasons, scores=SCORES)


@pytest.fixture(scope="module")
def shared_server(
    synthesizer: Synthesizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("consents")
    with LiveServer(ServeConfig(), synthesizer, FakeEngine, folder=folder) as found:
        yield found


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def server(shared_server: LiveServer, listener: Listener) -> Iterator[LiveServer]:
    """Wants spoken consent, and has no voices of clients."""
    service = shared_server.service
    service.consent = ConsentManager(
        ConsentConfig(), "required", lambda: service.synthesizer.components,
        key=shared_server.config.voices / ".key",
    )  # fmt: skip
    service.consent._verifier = listener  # type: ignore[assignment]
    yield shared_server
    service.store.delete("me")


def test_the_key_is_in_the_folder_of_voices(shared_server: LiveServer) -> None:
    """All that a container can write to, and what replicas share."""
    found = shared_server.service.consent._key_path
    assert found == shared_server.config.voices / ".key"


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30.0) as found:
        yield found


@pytest.fixture
def add(client: httpx.Client, recording: Path) -> Callable[..., httpx.Response]:
    def send(consent: dict[str, str], spoken: bytes | None = None, **fields: Any) -> httpx.Response:
        files = {"audio_sample": ("me.wav", recording.read_bytes())}
        if spoken is not None:
            files["consent_recording"] = ("said.wav", spoken)
        data = {"name": "me", "consent": json.dumps(consent), **fields}
        return client.post(VOICES, files=files, data=data)

    return send


def sentence_file(seconds: float = 3.0) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).normal(size=int(seconds * 16_000)) * 0.05
    soundfile.write(buffer, noise, 16_000, format="WAV")
    return buffer.getvalue()


def draw(client: httpx.Client, who: str = "Ann Example") -> dict[str, Any]:
    response = client.post(CONSENTS, json={"who": who})
    assert response.status_code == 201, response.text
    return response.json()


def test_a_voice_with_spoken_consent(
    server: LiveServer, client: httpx.Client, listener: Listener, add: Callable[..., httpx.Response]
) -> None:
    assert client.get(CONSENTS).json()["policy"] == "required"
    drawn = draw(client)
    assert drawn["sentence"].startswith("I, Ann Example, let tokenlm copy my voice. ")
    assert all(word in drawn["sentence"].lower() for word in drawn["words"])
    assert len(set(drawn["words"])) == 3 and 290 <= drawn["expires_in"] <= 300
    spoken = sentence_file()
    response = add({"who": "Ann Example", "id": drawn["id"]}, spoken)
    assert response.status_code == 201, response.text
    challenge, num_said, num_sample = listener.heard[0]
    assert challenge.words == tuple(drawn["words"]) and (num_said, num_sample) == (48_000, 48_000)
    voice = Voice.load(next(server.config.voices.glob("*.voice")))
    evidence = read_evidence(voice)
    assert evidence is not None and evidence.kind == "spoken"
    assert evidence.statement == drawn["sentence"] and evidence.who == "Ann Example"
    assert dict(evidence.scores) == SCORES and evidence.challenge == drawn["id"]
    public = client.get(CONSENTS).json()["public_key"]
    assert check_signature(voice, public) == "valid"
    assert (server.config.voices / ".key").stat().st_mode & 0o077 == 0
    assert server.service.store.names() == ["me"], "the key is no voice"


def test_a_sentence_is_used_once(
    client: httpx.Client, listener: Listener, add: Callable[..., httpx.Response]
) -> None:
    consent = {"who": "Ann Example", "id": draw(client)["id"]}
    listener.reasons = ("it is another person", "the words are others")
    refused = add(consent, sentence_file())
    error = refused.json()["error"]
    assert refused.status_code == 403 and error["code"] == "consent_refused"
    assert "another person; the words are others" in error["message"]
    listener.reasons = ()
    again = add(consent, sentence_file())
    assert again.status_code == 403 and again.json()["error"]["code"] == "consent_expired"
    assert len(listener.heard) == 1
    assert client.get(VOICES).json()["data"][-1]["id"] == "bob", "a voice without consent"


def test_a_sentence_of_ten_minutes_ago(
    server: LiveServer, client: httpx.Client, add: Callable[..., httpx.Response]
) -> None:
    now = [1e9]
    server.service.consent.challenges = Challenges(now=lambda: now[0])
    challenge = server.service.consent.challenges.issue("Ann")
    now[0] += 600
    response = add({"who": "Ann", "id": challenge.id}, sentence_file())
    assert response.status_code == 403 and "5 minutes" in response.text


def test_what_is_not_enough(client: httpx.Client, add: Callable[..., httpx.Response]) -> None:
    stated = add(json.loads(CONSENT))
    assert stated.status_code == 403 and stated.json()["error"]["code"] == "consent_required"
    drawn = draw(client)
    assert add({"who": "Ann Example", "id": drawn["id"]}).status_code == 400
    assert add(json.loads(CONSENT), sentence_file()).status_code == 400
    for broken in (b"", b"nothing", sentence_file(100.0)):
        response = add({"who": "Ann Example", "id": drawn["id"]}, broken)
        assert response.status_code in (400, 413)
        assert response.json()["error"]["param"] == "consent_recording"
    taken = add({"who": "Ann Example", "id": drawn["id"]}, sentence_file(), name="ann")
    assert taken.status_code == 409, "a name that is taken uses no sentence up"
    other = add({"who": "Bob Example", "id": drawn["id"]}, sentence_file())
    assert other.status_code == 400 and "drawn for" in other.text
    for who in ("", " ", "x" * 300, "a\0b", 3, None):
        assert client.post(CONSENTS, json={"who": who}).status_code == 400


def test_an_edit_needs_it_too(client: httpx.Client, recording: Path, listener: Listener) -> None:
    data = {"consent": CONSENT, "text": "is it so?", "delete": "so"}
    files = {"audio_sample": ("me.wav", recording.read_bytes())}
    response = client.post("/v1/audio/edits", files=files, data=data)
    assert response.status_code == 403 and response.json()["error"]["code"] == "consent_required"
    listener.reasons = ("it is another person",)
    data["consent"] = json.dumps({"who": "Ann", "id": draw(client, "Ann")["id"]})
    files["consent_recording"] = ("said.wav", sentence_file())
    response = client.post("/v1/audio/edits", files=files, data=data)
    assert response.status_code == 403 and response.json()["error"]["code"] == "consent_refused"


def test_the_channel_that_is_edited_is_listened_to(
    client: httpx.Client, recording: Path, listener: Listener
) -> None:
    """Left A + V and right A - V: the mean of the channels is A, and V is what is edited."""
    loud, rate = soundfile.read(str(recording), dtype="float32")
    quiet = 0.02 * np.sin(np.arange(len(loud)) * 0.1)
    stereo = io.BytesIO()
    soundfile.write(stereo, np.stack([quiet + loud, quiet - loud], 1) / 2, rate, format="WAV")
    listener.reasons = ("it is another person",)
    response = client.post(
        "/v1/audio/edits",
        files={"audio_sample": stereo.getvalue(), "consent_recording": sentence_file()},
        data={
            "consent": json.dumps({"who": "Ann", "id": draw(client, "Ann")["id"]}),
            "text": "is it so?",
            "delete": "so",
        },
    )
    assert response.json()["error"]["code"] == "consent_refused", response.text
    heard = listener.sample.numpy()
    assert abs(np.corrcoef(heard, loud)[0, 1]) > 0.9 > 0.1 > abs(np.corrcoef(heard, quiet)[0, 1])


def test_a_server_that_cannot_listen(
    server: LiveServer, client: httpx.Client, add: Callable[..., httpx.Response], tmp_path: Path
) -> None:
    """Without models, or without a key to sign with; the sentence is not used up by that."""
    manager = server.service.consent
    consent = {"who": "Ann", "id": draw(client, "Ann")["id"]}
    verifier, manager._verifier = manager._verifier, None
    manager.config = ConsentConfig(synthetic_detector=tmp_path / "nothing")
    assert add(consent, sentence_file()).status_code == 503
    manager._verifier, manager._key = verifier, None
    manager._key_path = tmp_path / "key"
    manager._key_path.mkdir()
    assert add(consent, sentence_file()).status_code == 503
    manager._key_path = tmp_path / "another.key"
    assert add(consent, sentence_file()).status_code == 201


def test_a_statement_is_stored_and_signed(
    server: LiveServer, client: httpx.Client, add: Callable[..., httpx.Response]
) -> None:
    manager = server.service.consent
    manager.policy = "recorded"
    manager.config = ConsentConfig(
        operator="Example Ltd", operator_statement="We have everybody's agreement."
    )
    told = client.get(CONSENTS).json()
    assert (told["policy"], told["operator"]) == ("recorded", "Example Ltd")
    assert add(json.loads(CONSENT)).status_code == 201
    voice = server.service.store.load("me")
    evidence = read_evidence(voice)
    assert evidence is not None and evidence.kind == "stated" and not evidence.scores
    assert evidence.operator_statement == "We have everybody's agreement."
    assert check_signature(voice) == "valid"


def test_nothing_is_asked_for(server: LiveServer, client: httpx.Client, recording: Path) -> None:
    server.service.consent.policy = "off"
    files = {"audio_sample": recording.read_bytes()}
    response = client.post(VOICES, files=files, data={"name": "me"})
    assert response.status_code == 201 and response.json()["consent"] is None
    assert server.service.store.load("me").consent is None


@pytest.mark.parametrize(
    ("settings", "policy"),
    [({}, "recorded"), ({"host": "0.0.0.0"}, "required"), ({"host": "::1"}, "recorded"),
     ({"host": "localhost"}, "recorded"), ({"host": "speech.example"}, "required"),
     ({"allowed_hosts": ("speech.example",)}, "required"),
     ({"proxies": ("127.0.0.1",)}, "required"),
     ({"allowed_hosts": ("localhost",)}, "recorded"),
     ({"host": "0.0.0.0", "consent": ConsentConfig(policy="off")}, "off"),
     ({"consent": ConsentConfig(policy="required")}, "required")],
)  # fmt: skip
def test_the_default_depends_on_who_reaches_the_server(
    settings: dict[str, Any], policy: str
) -> None:
    assert ServeConfig(**settings).consent_policy == policy


def test_wrong_settings() -> None:
    for wrong in ({"operator": "Example Ltd"}, {"min_similarity": 2.0}, {"max_synthetic": -1.0}):
        with pytest.raises(ValueError, match="operator|min_similarity|max_synthetic"):
            ConsentConfig(**wrong)  # type: ignore[arg-type]
