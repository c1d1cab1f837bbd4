"""The server on the engine and on models, tiny ones: what is heard is what the synthesizer says."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
import torch
from conftest import CONSENT
from live_server import LiveServer, eventually
from load.replay import HALF_STEP, TOLERANCE, Request, Result, compare
from websockets.sync.client import connect

from inference.engine import StreamEngine
from inference.server.monitoring import read_token_log
from inference.server.settings import ServeConfig
from tokenlm.audio.encoders import available_formats
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.script import speak_script
from tokenlm.synthesis.voice_space import VoiceSpace
from tokenlm.text.script import read_dialogue, read_lines

TEXT = "The quick brown fox. Is it so? Yes, it is!"


@pytest.fixture(scope="module")
def server(
    synthesizer: Synthesizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("real")
    config = ServeConfig(
        voices=folder / "voices",
        token_log=folder / "tokens.jsonl",
        sentence_pause_seconds=None,  # a busy machine makes pauses of its own
    )
    with LiveServer(config, synthesizer, lambda: StreamEngine(synthesizer)) as found:
        yield found


def speak(server: LiveServer, **body: object) -> httpx.Response:
    response = httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60.0)
    assert response.status_code == 200, response.text
    return response


def samples(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype="<i2").astype(np.float32) / 32768


def test_words_are_said_as_a_request_asks(phoneme_bundle: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("yes  y ow1\n", encoding="utf-8")
    synthesizer = Synthesizer.from_pretrained(phoneme_bundle, lexicon=names)
    config = ServeConfig(voices=tmp_path / "voices", sentence_pause_seconds=None)
    words = {"GIF": "/dʒɪf/", "yes": "y aa1"}
    expected = synthesizer.generate("Yes, it is a GIF.", voice="bob", lexicon=words).numpy()
    with LiveServer(config, synthesizer, lambda: StreamEngine(synthesizer)) as server:
        body = {"input": "Yes, it is a GIF.", "voice": "bob", "response_format": "pcm"}
        heard = samples(speak(server, **body, lexicon=words).content)
        assert np.abs(heard - expected).max() < HALF_STEP + TOLERANCE
        assert samples(speak(server, **body).content).tolist() != heard.tolist()
        events = speak(server, **body, lexicon=words, stream_format="sse").text.split("\n\n")
        assert json.loads(events[-2].removeprefix("data: "))["unlisted_words"] == ["a"]
        for lexicon, reason in (({"x": "q"}, "no phone"), ({"x": "zh"}, "has no phone 'zh'")):
            response = httpx.post(f"{server.url}/v1/audio/speech", json=body | {"lexicon": lexicon})
            assert response.status_code == 400 and reason in response.json()["error"]["message"]
            assert response.json()["error"]["param"] == "lexicon"
        with connect(server.socket_url) as socket:
            for lexicon in ({"x": "q"}, words):
                socket.send(json.dumps({"type": "session.config", "lexicon": lexicon}))
            assert "no phone" in json.loads(socket.recv())["error"]["message"]
            for piece in ("Yes, it is", " a GI", "F."):
                socket.send(json.dumps({"type": "input.text", "text": piece}))
            socket.send(json.dumps({"type": "input.done"}))
            told = [socket.recv()]
            while "audio.done" not in str(told[-1]):
                told.append(socket.recv())
            assert json.loads(told[-1])["unlisted_words"] == ["a"]


def test_instructions_are_followed(tiny_bundle: Path, tmp_path: Path) -> None:
    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    generation = synthesizer.components.generation
    synthesizer.components.generation = replace(generation, instruction_end="<|end|>")
    config = ServeConfig(voices=tmp_path / "voices", sentence_pause_seconds=None)

    def said(instruction: str) -> np.ndarray:
        return synthesizer.generate("Is it so?", voice="bob", instruction=instruction).numpy()

    with LiveServer(config, synthesizer, lambda: StreamEngine(synthesizer)) as server:
        (model,) = httpx.get(f"{server.url}/v1/models").json()["data"]
        assert model["instructions"] is True
        body = {"input": "Is it so?", "voice": "bob", "response_format": "pcm"}
        heard = samples(speak(server, **body, instructions=" be quick ").content)
        assert np.abs(heard - said("be quick")).max() < HALF_STEP + TOLERANCE
        assert heard.tolist() != samples(speak(server, **body).content).tolist()
        # A line of a script follows its own style, or else what is asked of the whole.
        lines = [{"text": "Is it so?", "style": "be slow", "pause": 0}, {"text": "Is it so?"}]
        script = [
            replace(line, style=style)
            for line, style in zip(read_lines(lines), ("be slow", "be quick"), strict=True)
        ]
        response = speak(server, **body | {"input": lines}, instructions="be quick")
        parts = speak_script(synthesizer, script, voice="bob")
        expected = torch.cat([part.waveform for part in parts]).clamp(-1, 1).numpy()
        assert np.abs(samples(response.content) - expected).max() < HALF_STEP + TOLERANCE
        with connect(server.socket_url) as socket:
            socket.send(
                json.dumps({"type": "session.config", "voice": "bob", "instructions": "be quick"})
            )
            socket.send(json.dumps({"type": "input.text", "text": "Is it so?"}))
            socket.send(json.dumps({"type": "input.done"}))
            told = [socket.recv()]
            while "audio.done" not in str(told[-1]):
                told.append(socket.recv())
        spoken = b"".join(part for part in told if isinstance(part, bytes))
        pieces = synthesizer.stream(iter(["Is it so?"]), voice="bob", instruction="be quick")
        expected = torch.cat(list(pieces)).numpy()
        assert np.abs(samples(spoken) - expected).max() < HALF_STEP + TOLERANCE


def test_voices_are_mixed_and_designed(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_bundle, folder)
    draws = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    VoiceSpace.fit(draws, {"pitch": 5 * draws[:, 0], "sex": draws[:, 1].sign()}).save(
        folder / "voice_space.safetensors"
    )
    synthesizer = Synthesizer.from_pretrained(folder)
    config = ServeConfig(voices=tmp_path / "voices", voice_aliases={"alloy": "bob"})
    body: dict[str, Any] = {"input": "Is it so?", "response_format": "pcm"}
    with LiveServer(config, synthesizer, lambda: StreamEngine(synthesizer)) as server:
        (model,) = httpx.get(f"{server.url}/v1/models").json()["data"]
        assert list(model["voice_attributes"]) == ["pitch", "sex"]
        response = speak(server, **body, voice="Ann:0.7+alloy:0.3")
        assert unquote(response.headers["x-tokenlm-voice"]) == "Ann:0.7+alloy:0.3"
        expected = synthesizer.generate("Is it so?", voice="ann:0.7+bob:0.3").numpy()
        assert np.abs(samples(response.content) - expected).max() < HALF_STEP + TOLERANCE
        for asked, design in (
            ({"description": "a deep man", "seed": 3}, {"description": "a deep man", "seed": 3}),
            ({"attributes": {"pitch": 1.5}, "base": "alloy"},
             {"attributes": {"pitch": 1.5}, "base": "bob"}),
        ):  # fmt: skip
            voice = synthesizer.design_voice(**design)
            expected = synthesizer.generate("Is it so?", voice=voice).numpy()
            for _ in range(2):
                heard = samples(speak(server, **body, voice=asked).content)
                assert np.abs(heard - expected).max() < HALF_STEP + TOLERANCE
        for voice, status, reason in (
            ("ann:0.7+zoe:0.3", 404, "no voice 'zoe'"),
            ("ann:0+bob", 400, "positive weights"),
            ("ann:x+bob", 400, "weight of 'ann' is a positive number, as in ann:0.7, not 'x'"),
            ("ann:x", 400, "weight of 'ann' is a positive number"),
            ("nobody:1", 404, "no voice 'nobody'"),
            ({"description": "purple"}, 400, "othing of the description"),
            ({"attributes": {"colour": 1.0}}, 400, "no attribute 'colour'"),
            ({"attributes": {"pitch": 9.0}}, 400, "from -3 to 3"),
            ({"base": "zoe", "attributes": {"pitch": 1.0}}, 404, "no voice 'zoe'"),
            ({"paint": 1}, 400, "voice"),
        ):
            response = httpx.post(f"{server.url}/v1/audio/speech", json=body | {"voice": voice})
            assert response.status_code == status, response.text
            assert reason in response.json()["error"]["message"], response.text


def test_a_bundle_without_a_voice_space_says_so(server: LiveServer) -> None:
    (model,) = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert model["voice_attributes"] == {}
    body = {"input": "Is it so?", "voice": {"description": "a deep man"}}
    response = httpx.post(f"{server.url}/v1/audio/speech", json=body)
    assert response.status_code == 400
    assert "voices cannot be designed" in response.json()["error"]["message"]


def test_words_that_are_left_out_are_named(server: LiveServer) -> None:
    response = speak(server, input="Hello Привет.", voice="bob", response_format="pcm")
    assert unquote(response.headers["x-tokenlm-foreign-words"]) == "Привет"
    with connect(server.socket_url) as socket:
        socket.send(json.dumps({"type": "input.text", "text": "Hello При"}))
        socket.send(json.dumps({"type": "input.text", "text": "вет."}))
        socket.send(json.dumps({"type": "input.done"}))
        facts: dict[str, Any] = {}
        while facts.get("type") != "audio.done":
            message = socket.recv(60.0)
            facts = json.loads(message) if isinstance(message, str) else facts
        assert facts["foreign_words"] == ["Привет"]
        socket.send(json.dumps({"type": "input.text", "text": "..."}))
        socket.send(json.dumps({"type": "input.done"}))
        error = json.loads(socket.recv(60.0))
        assert error["error"]["message"] == "The text holds nothing that can be said."
        assert not error["fatal"]


def test_speech_is_that_of_the_synthesizer(server: LiveServer, synthesizer: Synthesizer) -> None:
    heard = samples(speak(server, input=TEXT, voice="bob", seed=4, response_format="pcm").content)
    alone = synthesizer.generate(TEXT, voice="bob", seed=4).clamp(-1, 1).numpy()
    assert heard.shape == alone.shape
    assert np.abs(heard - alone).max() <= TOLERANCE + HALF_STEP


def test_text_in_pieces_is_the_same_however_it_is_cut(server: LiveServer) -> None:
    heard = []
    for size in (1, 5, 100):
        with connect(server.socket_url) as socket:
            socket.send(json.dumps({"type": "session.config", "voice": "ann", "seed": 1}))
            for start in range(0, len(TEXT), size):
                socket.send(json.dumps({"type": "input.text", "text": TEXT[start : start + size]}))
            socket.send(json.dumps({"type": "input.done"}))
            socket.send(json.dumps({"type": "session.close"}))
            heard.append(b"".join(message for message in socket if isinstance(message, bytes)))
    assert len(heard[0]) > 0
    for other in heard[1:]:
        assert len(other) == len(heard[0])
        assert np.abs(samples(other) - samples(heard[0])).max() <= TOLERANCE + 2 * HALF_STEP


def test_refusals_of_the_engine(server: LiveServer) -> None:
    for text in ("", "…", "\0", "🙂"):
        response = httpx.post(f"{server.url}/v1/audio/speech", json={"input": text})
        assert response.status_code == 400 and "nothing that can be said" in response.text


def test_many_at_once_are_replayed_alone(server: LiveServer, synthesizer: Synthesizer) -> None:
    """Every format at the same time; then the logged tokens of each, by themselves."""
    results: list[Result] = []

    def ask(seed: int, audio_format: str) -> None:
        request = Request(audio_format, "patient", TEXT, "ann" if seed % 2 else "bob", seed, 1.0)
        response = speak(
            server, input=TEXT, voice=request.voice, seed=seed, response_format=audio_format
        )
        result = Result(request, response.headers["x-request-id"], 200, is_whole=True)
        result.data += response.content
        results.append(result)

    threads = [
        threading.Thread(target=ask, args=(number, name))
        for number, name in enumerate([*available_formats(), "pcm", "wav"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(threads)
    logged = logged_of(server)
    for result in results:
        found = compare(synthesizer, result, logged[result.request_id])
        assert not found.problem and found.num_samples > 0, found
    # The comparison finds what it looks for: the speech of another in place of one's own.
    for result in results:
        others = [other for other in results if other.request.seed != result.request.seed]
        logs = logged[others[0].request_id]
        assert compare(synthesizer, result, logs).problem, result.request


USUAL = ((0, 1.0), (0, 4.0), (3, 0.25), (3, 0.8), (3, 1.0), (3, 1.25), (40, 1.0), (40, 4.0))
"""Size of the pieces and speed, of every run of the tests; the other pairs are slow tests."""


@pytest.mark.parametrize(
    ("size", "speed"),
    [
        pytest.param(*pair, marks=[] if pair in USUAL else pytest.mark.slow)
        for pair in product((0, 3, 40), (0.25, 0.8, 1.0, 1.25, 4.0))
    ],
)
def test_every_way_of_speaking_is_replayed(
    server: LiveServer, synthesizer: Synthesizer, size: int, speed: float
) -> None:
    """Texts at once and in pieces of `size`, with pauses and paragraphs, at every speed."""
    text = f"{TEXT}\n\nAnother paragraph; and so on. No."
    request = Request("pcm", "patient", text, "bob", 7, speed)
    result = Result(request, status=200, is_whole=True)
    if size == 0:
        response = speak(
            server, input=text, voice="bob", seed=7, speed=speed, response_format="pcm"
        )
        result.request_id = response.headers["x-request-id"]
        result.data += response.content
    else:
        with connect(server.socket_url) as socket:
            settings = {"voice": "bob", "seed": 7, "speed": speed}
            socket.send(json.dumps({"type": "session.config", **settings}))
            for start in range(0, len(text), size):
                socket.send(json.dumps({"type": "input.text", "text": text[start : start + size]}))
            socket.send(json.dumps({"type": "session.close"}))
            for message in socket:
                if isinstance(message, bytes):
                    result.data += message
                elif (told := json.loads(message))["type"] == "audio.start":
                    result.request_id = told["provenance"]["request_id"]
    logged = logged_of(server)[result.request_id]
    assert len(logged["pauses"]) == len(logged["speech_tokens"]) > 1 and any(logged["pauses"])
    found = compare(synthesizer, result, logged)
    assert not found.problem and found.num_samples > 0, found
    # What is logged is needed: pauses, speed and seed.
    for key, value in (("pauses", [0.0]), ("speed", 1.1 * min(speed, 3.0)), ("seed", 8)):
        assert compare(synthesizer, result, {**logged, key: value}).problem, key


def test_what_a_client_heard_before_it_left_is_replayed(
    server: LiveServer, synthesizer: Synthesizer
) -> None:
    text = " ".join([TEXT] * 20)
    result = Result(Request("pcm", "leaves", text, "ann", 3, 1.25))
    body = {"input": text, "voice": "ann", "seed": 3, "speed": 1.25, "response_format": "pcm"}
    with (
        httpx.Client(timeout=60.0) as client,
        client.stream("POST", f"{server.url}/v1/audio/speech", json=body) as response,
    ):
        result.request_id = response.headers["x-request-id"]
        for piece in response.iter_raw(4096):
            result.data += piece
            if len(result.data) > 150_000:
                break
    logged = logged_of(server)[result.request_id]
    assert logged["end"] == "left"
    found = compare(synthesizer, result, logged)
    assert not found.problem and found.num_samples >= 75_000, found


def logged_of(server: LiveServer) -> dict[str, dict[str, Any]]:
    """The log, once nothing is live any more."""
    eventually(lambda: server.service.admission.num_live == 0, "all have ended")
    assert server.config.token_log is not None
    return read_token_log(server.config.token_log)


def test_a_cloned_voice_speaks(
    server: LiveServer, synthesizer: Synthesizer, recording: Path
) -> None:
    response = httpx.post(
        f"{server.url}/v1/audio/voices",
        files={"audio_sample": recording.read_bytes()},
        data={"name": "me", "consent": CONSENT, "ref_text": "is it so?"},
        timeout=60.0,
    )
    assert response.status_code == 201, response.text
    heard = samples(speak(server, input="Yes.", voice="me", response_format="pcm").content)
    voice = synthesizer.prepare_voice(recording, "is it so?")
    alone = synthesizer.generate("Yes.", voice=voice).clamp(-1, 1).numpy()
    assert np.abs(heard - alone).max() <= TOLERANCE + HALF_STEP


def test_a_voice_of_another_bundle_is_refused(server: LiveServer, synthesizer: Synthesizer) -> None:
    voice = replace(synthesizer.voice("ann"), tokenizer="another", name="old")
    server.service.store.add(voice, who="Ann", statement="yes", audio_sha256="0" * 64, seconds=2.0)
    body = {"input": TEXT, "voice": "old"}
    response = httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60.0)
    assert response.status_code == 400 and "prepare it again" in response.text
    assert response.json()["error"]["param"] == "voice"


def test_a_client_that_leaves_frees_the_engine(server: LiveServer) -> None:
    body = {"input": " ".join([TEXT] * 20), "response_format": "pcm"}
    with (
        httpx.Client(timeout=60.0) as client,
        client.stream("POST", f"{server.url}/v1/audio/speech", json=body) as response,
    ):
        pieces = response.iter_raw()
        next(pieces)
        assert server.service.engine.num_live == 1
    eventually(lambda: server.service.engine.num_live == 0, "the session is freed")
    eventually(lambda: server.service.admission.num_live == 0, "the slot is freed")


MARKUP = (
    "[pause 0.3s]Is it so? <voice name='bob'>Yes, <prosody rate='90%'>it is</prosody> one.</voice>"
    "[pause 1s]"
)


def test_markup(server: LiveServer, synthesizer: Synthesizer) -> None:
    options: dict[str, Any] = {"sentence_gap": 0.7, "paragraph_gap": 1.0}
    response = speak(server, input=MARKUP, voice="ann", response_format="pcm", **options)
    alone = synthesizer.generate(MARKUP, voice="ann", **options).clamp(-1, 1).numpy()
    heard = samples(response.content)
    assert heard.shape == alone.shape
    assert np.abs(heard - alone).max() <= TOLERANCE + HALF_STEP
    # What is logged is enough to make it again.
    result = Result(Request("pcm", "patient", MARKUP, "ann", 0, 1.0), "", 200, is_whole=True)
    result.data += response.content
    logged = logged_of(server)[response.headers["x-request-id"]]
    assert not compare(synthesizer, result, logged).problem
    assert compare(synthesizer, result, {**logged, "styles": []}).problem
    with connect(server.socket_url) as socket:
        socket.send(json.dumps({"type": "session.config", "voice": "ann"}))
        for start in range(0, len(MARKUP), 7):
            socket.send(json.dumps({"type": "input.text", "text": MARKUP[start : start + 7]}))
        socket.send(json.dumps({"type": "input.done"}))
        socket.send(json.dumps({"type": "session.close"}))
        data = b"".join(message for message in socket if isinstance(message, bytes))
    expected = synthesizer.generate(MARKUP, voice="ann", layout="interleaved").numpy()
    assert samples(data).shape == expected.shape
    for text, message in (
        ("Is <foo> it?", "Line 1, column 4: the element <foo> is not known"),
        ("<voice name='nobody'>It is.</voice>", "there is no voice 'nobody'"),
        ("<voice name='/etc/passwd'>It is.</voice>", "there is no voice '/etc/passwd'"),
    ):
        response = httpx.post(f"{server.url}/v1/audio/speech", json={"input": text})
        assert response.status_code == 400 and message in response.json()["error"]["message"]
    assert speak(server, input="Is <foo> it?", markup=False, response_format="pcm").content


def test_scripts(server: LiveServer, synthesizer: Synthesizer) -> None:
    dialogue = "Anna: Is it so?\nBob: Yes, it is.\n"
    voices = {"Anna": "ann", "bob": "bob"}
    lines = read_dialogue(dialogue, voices)
    parts = list(speak_script(synthesizer, lines, seed=2))
    alone = torch.cat([part.waveform for part in parts]).clamp(-1, 1).numpy()
    entries = [{"voice": "Anna", "text": "Is it so?"}, {"voice": "BOB", "text": "Yes, it is."}]
    for given in (dialogue, entries):
        response = speak(server, input=given, voices=voices, seed=2, response_format="pcm")
        heard = samples(response.content)
        assert heard.shape == alone.shape
        assert np.abs(heard - alone).max() <= TOLERANCE + HALF_STEP
        assert response.headers["x-tokenlm-voice"] == "ann%2C bob"
    logged = logged_of(server)[response.headers["x-request-id"]]
    assert [line["voice"] for line in logged["lines"]] == ["ann", "bob"]
    for audio_format in available_formats():
        assert speak(server, input=entries, voices=voices, response_format=audio_format).content
    # As an event each line comes by itself, which the page depends on.
    response = speak(server, input=entries, voices=voices, seed=2, response_format="pcm",
                     stream_format="sse")  # fmt: skip
    facts = [json.loads(event.removeprefix("data: ")) for event in response.text.split("\n\n")[:-1]]
    assert [fact["type"] for fact in facts] == ["speech.audio.delta"] * 2 + ["speech.audio.done"]
    for fact, part in zip(facts, parts, strict=False):
        assert len(base64.b64decode(fact["audio"])) == 2 * part.waveform.shape[0]
    for body, message in (
        ({"input": "Hello.", "voices": {}}, "Line 1: a dialogue begins with a name"),
        ({"input": [{"text": "Hi.", "style": "sad"}]}, "cannot follow instructions; leave them"),
        ({"input": [{"text": "Hi.", "voice": "nobody"}]}, "Line 1 ('Hi.'): there is no voice"),
        ({"input": [{"text": "Hi."}, {"text": "…"}]}, "Line 2 ('…'): the text holds nothing"),
        ({"input": []}, "A script has from 1 to 500 lines, not 0."),
        ({"input": [{"text": " "}]}, "Line 1: the line has no text."),
    ):
        response = httpx.post(f"{server.url}/v1/audio/speech", json=body)
        assert response.status_code == 400, response.text
        assert message in response.json()["error"]["message"]
    response = httpx.post(
        f"{server.url}/v1/audio/speech",
        json={"input": [{"text": "a" * 3000}, {"text": "b" * 3000}]},
    )
    assert response.status_code == 413
