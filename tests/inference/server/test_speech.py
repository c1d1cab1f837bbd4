"""`POST /v1/audio/speech` over a real connection."""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import openai
import pytest
import soundfile
from conftest import StartServer
from fake_engine import CHUNK_SAMPLES, SAMPLE_RATE, tone
from live_server import LiveServer, eventually

from inference.server.settings import ServeConfig
from tokenlm.audio.encoders import to_pcm16
from tokenlm.audio.io import SequentialSound, load_audio
from tokenlm.checkpoint import packaged_configs, resolve
from tokenlm.config import load_config


def read_sound(data: bytes) -> tuple[np.ndarray, str]:
    """Samples of a sound file, and its comment."""
    with SequentialSound(io.BytesIO(data)) as file:
        assert file.samplerate == SAMPLE_RATE and file.channels == 1
        return np.concatenate([block[:, 0] for block in file.read_blocks()]), file.comment


def speak(client: httpx.Client, **body: object) -> httpx.Response:
    return client.post("/v1/audio/speech", json={"input": "one two three", **body})


def test_the_official_client_speaks(shared: LiveServer) -> None:
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="any", max_retries=0) as official:
        said = official.audio.speech.create(
            model="tts-1", voice="alloy", input="one two three", response_format="wav", speed=1.0
        )
        samples, comment = read_sound(said.content)
        assert samples.shape[0] == 3 * CHUNK_SAMPLES
        assert np.abs(samples - tone(0, 3).numpy()).max() < 2e-5
        assert "Synthesised" in comment and "bundle tiny, voice bob, seed 0" in comment
        assert said.response.headers["content-type"] == "audio/wav"
        assert [model.id for model in official.models.list()] == ["tiny", "tts-1"]
        custom = official.audio.speech.create(
            model="tiny", voice={"id": "ann"}, input="one", extra_body={"seed": 2},
            response_format="pcm",
        )  # fmt: skip
        assert custom.content == to_pcm16(tone(2, 1)).tobytes()
        assert custom.response.headers["x-tokenlm-voice"] == "ann"


def correlations(samples: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Correlation of `part` (P,) with the samples (S,) at every delay: (S - P + 1,)."""
    samples, size = samples.astype(np.float64), part.shape[0]
    total, power = (np.cumsum(np.append(0.0, values)) for values in (samples, samples**2))
    total, power = total[size:] - total[:-size], power[size:] - power[:-size]
    centred = part.astype(np.float64) - part.mean()
    scale = np.sqrt(np.maximum(power - total**2 / size, 1e-12)) * np.linalg.norm(centred)
    return np.correlate(samples, centred, "valid") / scale


@pytest.mark.parametrize("audio_format", ["mp3", "wav", "pcm", "flac", "opus"])
def test_first_bytes_arrive_while_synthesis_goes_on(shared: LiveServer, audio_format: str) -> None:
    """The engine does not go on before the client has heard something."""
    engine = shared.fake_engine
    engine.gate.clear()
    try:
        with (
            openai.OpenAI(base_url=f"{shared.url}/v1", api_key="any", max_retries=0) as official,
            official.audio.speech.with_streaming_response.create(
                model="tiny", voice="ann", input="a b c d wait e f", response_format=audio_format
            ) as response,
        ):
            pieces = response.iter_bytes()
            first = next(pieces)
            # What has come is sound, not only a header.
            while len(first) < 1500:
                first += next(pieces)
            assert not engine.gate.is_set() and shared.service.admission.num_live == 1
            engine.gate.set()
            whole = first + b"".join(pieces)
    finally:
        engine.gate.set()
    if audio_format == "pcm":
        assert whole == to_pcm16(tone(0, 7)).tobytes()
        return
    samples, comment = read_sound(whole)
    assert "Synthesised" in comment and "tiny" in comment and "ann" in comment
    expected = tone(0, 7).numpy()
    # Lossy formats begin late and end late; where they begin is found by comparing.
    assert correlations(samples, expected[: 5 * CHUNK_SAMPLES]).max() > 0.99
    assert samples.shape[0] >= expected.shape[0]


@pytest.mark.parametrize("audio_format", ["mp3", "wav", "flac", "opus"])
def test_what_is_sent_can_be_read_as_a_file(
    client: httpx.Client, tmp_path: Path, audio_format: str
) -> None:
    path = tmp_path / f"speech.{'ogg' if audio_format == 'opus' else audio_format}"
    path.write_bytes(speak(client, response_format=audio_format).content)
    waveform = load_audio(path, SAMPLE_RATE)
    if audio_format in ("wav", "flac"):
        assert waveform.shape == (3 * CHUNK_SAMPLES,)
        assert (waveform - tone(0, 3)).abs().max() < 2e-5
    assert waveform.shape[0] >= 3 * CHUNK_SAMPLES


def test_the_speech_is_marked_in_its_headers(client: httpx.Client) -> None:
    headers = speak(client, voice="bob", seed=7).headers
    assert headers["x-synthesised"].startswith("tokenlm/")
    assert (headers["x-tokenlm-bundle"], headers["x-tokenlm-voice"]) == ("tiny", "bob")
    assert headers["x-tokenlm-seed"] == "7" and len(headers["x-request-id"]) == 32
    assert headers["content-type"] == "audio/mpeg" and headers["x-sample-rate"] == "24000"


def test_words_that_are_left_out_are_named(client: httpx.Client) -> None:
    response = speak(client, input="one Привет two 你好", response_format="pcm")
    named = response.headers["x-tokenlm-foreign-words"].split(", ")
    assert [unquote(word) for word in named] == ["Привет", "你好"]
    assert "x-tokenlm-foreign-words" not in speak(client, response_format="pcm").headers
    last = speak(client, input="one Привет", stream_format="sse").text.strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["foreign_words"] == ["Привет"]
    # A header has little room, however long a word without spaces is.
    many = " ".join(f"{'你' * 60}{number}" for number in range(40))
    response = speak(client, input=many, response_format="pcm")
    assert 0 < len(response.headers["x-tokenlm-foreign-words"]) <= 1000


def test_events(client: httpx.Client) -> None:
    with client.stream(
        "POST", "/v1/audio/speech",
        json={"input": "one two", "stream_format": "sse", "response_format": "pcm", "seed": 1},
    ) as response:  # fmt: skip
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * 2 + ["speech.audio.done"]
    audio = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert audio == to_pcm16(tone(1, 2)).tobytes()
    assert events[-1]["usage"] == {"input_tokens": 2, "output_tokens": 6, "total_tokens": 8}
    assert events[-1]["provenance"]["synthesised"] is True


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"input": ""}, 400, "nothing that can be said"),
        ({"input": "unsayable"}, 400, "nothing that can be said"),
        ({"input": "x" * 4097}, 413, "4097 characters; at most 4096"),
        ({"input": 5}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"instructions": "cheerfully"}, 400, "cannot follow instructions"),
        ({"response_format": "aac"}, 400, "no encoder for 'aac' here; there is: mp3"),
        ({"response_format": "midi"}, 400, "response_format"),
        ({"model": "gpt-9"}, 404, "The model 'gpt-9' does not exist; this server has 'tiny'"),
        ({"voice": "nobody"}, 404, "no voice 'nobody'; the bundle has ann, bob"),
        ({"voice": {"id": "nobody"}}, 404, "no voice 'nobody'"),
        ({"voice": "../bundles/tiny/voices/ann.voice"}, 404, "no voice"),
        ({"voice": ""}, 404, "no voice"),
        ({"speed": 0.2}, 400, "speed"),
        ({"speed": 4.1}, 400, "speed"),
        ({"seed": -1}, 400, "seed"),
        ({"stream_format": "video"}, 400, "stream_format"),
        ({"mood": "good"}, 400, "mood"),
    ],
)
def test_refusals(client: httpx.Client, body: dict[str, object], status: int, told: str) -> None:
    response = speak(client, **body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert told in error["message"] and set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


NOTHING: dict[str, object] = dict.fromkeys(
    ("model", "voice", "instructions", "response_format", "speed", "seed", "stream_format",
     "stream", "language", "user")
)  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        NOTHING,
        {"stream": True, "language": "en", "user": "somebody"},
        {"stream": False, "language": "de", "user": ""},
        {"voice": {"id": "ann"}, "speed": 1, "seed": 0},
        *({name: None} for name in NOTHING),
    ],
)
def test_what_clients_send_besides(client: httpx.Client, body: dict[str, object]) -> None:
    plain = speak(client, input="one two")
    response = speak(client, **{"input": "one two", **body})
    assert response.status_code == 200, response.text
    assert response.content == plain.content
    assert response.headers["content-type"] == plain.headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize(
    ("asked", "used"),
    [("alloy", "bob"), ("Alloy", "bob"), ("ALLOY", "bob"), ("ANN", "ann"), ("Bob", "bob")],
)
def test_names_of_voices_in_any_case(client: httpx.Client, asked: str, used: str) -> None:
    response = speak(client, input="one", voice=asked)
    assert response.status_code == 200 and response.headers["x-tokenlm-voice"] == used


def test_every_voice_of_openai_is_one_of_the_bundle() -> None:
    config = load_config(ServeConfig, packaged_configs() / "serve" / "default.yaml")
    voices = {path.stem for path in (resolve(config.bundle) / "voices").glob("*.voice")}
    assert {"alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer",
            "verse", "marin", "cedar"} <= set(config.voice_aliases)  # fmt: skip
    assert set(config.voice_aliases.values()) <= voices
    assert {"tts-1", "tts-1-hd", "gpt-4o-mini-tts"} == set(config.model_aliases)


def test_a_name_that_stands_for_nobody(start: StartServer) -> None:
    server = start(voice_aliases={"alloy": "slt"})
    assert server.service.startup_warnings() == [
        "voice_aliases name voices that are not there: alloy: slt"
    ]
    with httpx.Client(base_url=server.url) as client:
        response = speak(client, input="one", voice="Alloy")
    assert response.status_code == 404
    assert "'Alloy' stands for 'slt' here, which there is not" in response.text


def test_bodies_that_are_no_json_or_no_text(client: httpx.Client) -> None:
    kind = {"Content-Type": "application/json"}
    for content in (b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"input": "\\ud800"}',
                    b'{"input": "a", "speed": NaN}', b"[" * 50_000):  # fmt: skip
        response = client.post("/v1/audio/speech", content=content, headers=kind)
        assert response.status_code == 400, (content[:20], response.text)
        assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "content", "told"),
    [
        (
            "application/x-www-form-urlencoded",
            b'{"input": "Hi."}',
            "Content-Type: application/json",
        ),
        ("text/plain", b'{"input": "Hi."}', "came with text/plain"),
        (None, b'{"input": "Hi."}', "came with none"),
        ("application/json", b"{", "The body is not JSON: "),
        ("application/json; charset=utf-8", b'["a"]', "The body is a JSON object."),
    ],
)
def test_how_a_body_is_sent_is_told(
    client: httpx.Client, kind: str | None, content: bytes, told: str
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    response = client.post("/v1/audio/speech", content=content, headers=headers)
    assert response.status_code == 400 and told in response.json()["error"]["message"]


LINE: dict[str, Any] = {"text": "a"}
WRONG: list[tuple[dict[str, Any], str | None, str]] = [
    ({}, "input", "input: it is missing."),
    ({"input": 5}, "input", "input: it is a text, or a list of the lines of a script."),
    ({"input": {"text": "a"}}, "input", "input: it is a text, or a list of the lines"),
    ({"input": ["a"]}, "input[0]", "input[0]: it is a JSON object."),
    ({"input": [LINE, 5]}, "input[1]", "input[1]: it is a JSON object."),
    ({"input": [LINE, LINE, {**LINE, "voice": 5}]}, "input[2].voice", "it is a string."),
    ({"input": [LINE, {"voice": "b"}]}, "input[1].text", "input[1].text: it is missing."),
    ({"input": [{"text": None}]}, "input[0].text", "input[0].text: it is a string."),
    ({"input": [{**LINE, "mood": 1}]}, "input[0].mood", "input[0].mood: there is no such field."),
    ({"input": [{**LINE, "speed": 9}]}, "input[0].speed", "less than or equal to 4."),
    ({"input": [{**LINE, "seed": -1}]}, "input[0].seed", "greater than or equal to 0."),
    ({"input": [{**LINE, "pause": "long"}]}, "input[0].pause", "valid number"),
    ({"input": [LINE, {**LINE, "style": "sad"}]}, "input[1].style",
     "input[1].style: The model 'tiny' cannot follow instructions; leave them out."),
    ({"input": [LINE, {"text": " "}]}, "input", "Line 2: the line has no text."),
    ({"input": "a", "voice": 5}, "voice", "voice: a voice is a name, a mixture, an object with"),
    ({"input": "a", "voice": ["ann"]}, "voice", "voice: a voice is a name, a mixture"),
    ({"input": "a", "voice": {"id": 5}}, "voice.id", "voice.id: it is a string."),
    ({"input": "a", "voice": {"id": "ann", "x": 1}}, "voice.x", "there is no such field."),
    ({"input": "a", "voice": {"paint": 1}}, "voice.paint", "voice.paint: there is no such field."),
    ({"input": "a", "voice": {"attributes": 5}}, "voice.attributes", "it is a JSON object."),
    ({"input": "a", "voice": {"attributes": {"pitch": "x"}}}, "voice.attributes.pitch", "number"),
    ({"input": "a", "voice": {"seed": -1}}, "voice.seed", "greater than or equal to 0."),
    ({"input": "a", "voices": {"Ann": 5}}, "voices.Ann", "voices.Ann: it is a string."),
    ({"input": "a", "voices": ["ann"]}, "voices", "voices: it is a JSON object."),
    ({"input": "a", "lexicon": {"a": 5}}, "lexicon.a", "lexicon.a: it is a string."),
    ({"input": "a", "lexicon": "a"}, "lexicon", "lexicon: it is a JSON object."),
    ({"input": "a", "mood": "good"}, "mood", "mood: there is no such field."),
    ({"input": "a", "response_format": "midi"}, "response_format", "should be 'mp3', 'opus',"),
    ({"input": "a", "duration": "x"}, "duration", "duration: it should be a valid number"),
    ({"input": "a", "duration": 0}, "duration", "duration: it should be greater than 0."),
    ({"input": "a", "duration": 1e9}, "duration", "less than or equal to 86400."),
    ({"input": "a", "duration": True}, "duration", "it is a number, not true or false."),
    ({"input": "a", "seed": True}, "seed", "seed: it is a number, not true or false."),
    ({"input": "a", "speed": False}, "speed", "speed: it is a number, not true or false."),
    ({"input": [{**LINE, "pause": True}]}, "input[0].pause", "it is a number, not true or false."),
    ({"input": "a", "voice": {"attributes": {"x": True}}}, "voice.attributes.x", "not true or"),
    ({"input": "a", "markup": "perhaps"}, "markup", "markup: it should be a valid boolean"),
    ({"input": "a", "sentence_gap": 61}, "sentence_gap", "less than or equal to 60."),
]  # fmt: skip


def test_every_mistake_has_its_place(client: httpx.Client) -> None:
    for body, param, told in WRONG:
        response = client.post("/v1/audio/speech", json=body)
        error = response.json()["error"]
        assert response.status_code == 400, body
        assert error["param"] == param and told in error["message"], (body, error)
        assert error["message"].endswith(".") and "(" not in error["message"], error


def test_null_is_nothing_everywhere(client: httpx.Client) -> None:
    line = dict.fromkeys(("voice", "style", "seed", "speed", "pause"))
    design: dict[str, object] = dict.fromkeys(("description", "attributes", "seed"))
    plain = speak(client, input=[LINE], response_format="pcm").content
    assert plain and speak(client, input=[LINE | line], response_format="pcm").content == plain
    # The bundle of these tests has no voice space: it is the design that is refused.
    response = speak(client, voice=design | {"base": "ann"})
    assert response.status_code == 400 and "cannot be designed" in response.text, response.text


def test_a_body_beyond_the_limit_is_not_read_into_memory(client: httpx.Client) -> None:
    kind = {"Content-Type": "application/json"}
    big = b'{"input": "' + b"x" * 1_000_000 + b'"}'
    assert client.post("/v1/audio/speech", content=big, headers=kind).status_code == 413

    def pieces():
        for start in range(0, len(big), 10_000):
            yield big[start : start + 10_000]

    response = client.post("/v1/audio/speech", content=pieces(), headers=kind)
    assert response.status_code == 413 and "longer than" in response.json()["error"]["message"]


def test_errors_of_the_models(shared: LiveServer, client: httpx.Client) -> None:
    assert speak(client, input="break").status_code == 500
    # Once bytes are on their way the status cannot change: the body ends too early, which a
    # client notices.
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        speak(client, input="one two break", response_format="pcm")
    eventually(lambda: shared.service.engine.num_live == 0, "sessions are freed")
    # Events end as they should, and the connection serves the next request.
    connection = httpx.HTTPTransport(limits=httpx.Limits(max_connections=1), retries=0)
    with httpx.Client(base_url=shared.url, transport=connection) as another:
        lines = speak_events(another, "one break")
        assert [line["type"] for line in lines] == ["speech.audio.delta", "error"]
        assert lines[-1]["error"]["type"] == "server_error"
        assert speak(another).status_code == 200


def speak_events(client: httpx.Client, text: str) -> list[dict]:
    body = {"input": text, "stream_format": "sse", "response_format": "pcm"}
    with client.stream("POST", "/v1/audio/speech", json=body) as response:
        return [json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line]


def test_many_at_once_do_not_mix(shared: LiveServer, client: httpx.Client) -> None:
    found: dict[int, bytes] = {}

    def ask(seed: int) -> None:
        found[seed] = speak(client, seed=seed, response_format="pcm").content

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(12):
        assert found[seed] == to_pcm16(tone(seed, 3)).tobytes()


def test_every_format_that_is_named_is_there() -> None:
    assert {"MP3", "FLAC", "OGG"} <= set(soundfile.available_formats())


def read_events(response: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(event[len("data: ") :]) for event in response.text.split("\n\n") if event]


def test_times_of_words_are_events(client: httpx.Client) -> None:
    """The event with the words of a chunk comes before its sound."""
    response = speak(
        client, input="one two", word_times=True, stream_format="sse", response_format="pcm"
    )
    events = read_events(response)
    kinds = ["speech.words", "speech.audio.delta"] * 2
    assert [event["type"] for event in events] == [*kinds, "speech.audio.done"]
    assert events[2]["words"] == [
        {
            "text": "two", "spoken": "two", "start_seconds": 0.1, "end_seconds": 0.2,
            "text_start": 4, "text_end": 7,
        }
    ]  # fmt: skip
    plain = speak(client, input="one two", stream_format="sse", response_format="pcm")
    assert [event["type"] for event in read_events(plain)] == [
        "speech.audio.delta", "speech.audio.delta", "speech.audio.done",
    ]  # fmt: skip
    sound = [event["audio"] for event in events if event["type"] == "speech.audio.delta"]
    assert sound == [event["audio"] for event in read_events(plain)[:-1]]


def test_times_of_words_that_cannot_be_sent(
    client: httpx.Client, shared: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = speak(client, word_times=True)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "word_times"
    assert "sse" in refused.json()["error"]["message"]
    assert client.get("/v1/models/tiny").json()["word_times"] is True
    manifest = shared.service.synthesizer.components.manifest
    monkeypatch.delitem(manifest.components, "token_recognizer")
    refused = speak(client, word_times=True, stream_format="sse")
    assert refused.status_code == 400
    assert "no token recogniser" in refused.json()["error"]["message"]
    assert client.get("/v1/models/tiny").json()["word_times"] is False


def test_a_duration_that_cannot_be_is_refused(client: httpx.Client) -> None:
    assert speak(client, duration=2.5).status_code == 200
    refused = speak(client, duration=0.01)
    assert refused.status_code == 400
    assert "cannot be spoken in 0.01 s" in refused.json()["error"]["message"]
    for wrong in (0, -1, 1e9, "long"):
        assert speak(client, duration=wrong).status_code == 400, wrong
