"""Keys, health, figures, CORS, the page, and what an app says about itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import openai
import pytest
from conftest import StartServer
from live_server import LiveServer, eventually
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from inference.server.access import Access
from inference.server.app import PAGE
from inference.server.monitoring import read_token_log
from inference.server.settings import Limits, ServeConfig

OPEN = ("/health", "/", "/page.js", "/openapi.json")
GUARDED = (("GET", "/v1/models"), ("GET", "/v1/audio/voices"), ("GET", "/metrics"),
           ("POST", "/v1/audio/voices"), ("DELETE", "/v1/audio/voices/me"))  # fmt: skip


def test_without_a_key_nothing_is_said(start: StartServer) -> None:
    server = start(keys=("sesame", "other"))
    with httpx.Client(base_url=server.url) as client:
        for value in (None, "Bearer wrong", "Basic sesame", "Bearer", "Bearer é", "sesame"):
            headers = {} if value is None else {"Authorization": value.encode()}
            for method, path in (*GUARDED, ("POST", "/v1/audio/speech")):
                response = client.request(method, path, headers=headers)
                assert response.status_code == 401, (method, path, headers)
                assert response.headers["www-authenticate"] == "Bearer"
                assert response.json()["error"]["type"] == "authentication_error"
        for path in OPEN:
            assert client.get(path).status_code == 200
        assert client.get("/health").json()["needs_key"] is True
    for key in ("sesame", "other"):
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as official:
            said = official.audio.speech.create(model="tiny", voice="ann", input="one")
            assert said.content
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="no", max_retries=0) as official,
        pytest.raises(openai.AuthenticationError),
    ):
        official.models.list()


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ServeConfig(api_key_env="THE_KEYS")
    monkeypatch.delenv("THE_KEYS", raising=False)
    assert not Access(config).needs_key
    monkeypatch.setenv("THE_KEYS", " one, two ,")
    access = Access(config)
    assert access.needs_key and access.is_key("one") and access.is_key("two")
    assert not access.is_key("") and not access.is_key("one,")


def test_models(shared: LiveServer) -> None:
    model, alias = httpx.get(f"{shared.url}/v1/models").json()["data"]
    assert model["id"] == "tiny" and model["sample_rate"] == 24_000
    assert model["lookahead_ms"] == 160.0 and "mp3" in model["response_formats"]
    assert alias == model | {"id": "tts-1"}
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="x", max_retries=0) as official:
        assert [found.id for found in official.models.list()] == ["tiny", "tts-1"]
        for name in ("tiny", "tts-1"):
            assert official.models.retrieve(name).id == name
        for name in ("gpt-9", "owner/name", "TINY", "x" * 300, "tts-1/"):
            with pytest.raises(openai.NotFoundError) as missing:
                official.models.retrieve(name)
            assert missing.value.code == "model_not_found" and missing.value.param == "model"
            assert missing.value.type == "invalid_request_error"
    # What Open WebUI asks for.
    named = httpx.get(f"{shared.url}/v1/audio/models").json()
    assert named == {"models": [{"id": name, "name": name} for name in ("tiny", "tts-1")]}


def test_figures(start: StartServer) -> None:
    server = start()
    with httpx.Client(base_url=server.url) as client:
        for text in ("one two", "unsayable", "one break"):
            try:
                client.post("/v1/audio/speech", json={"input": text, "response_format": "pcm"})
            except httpx.RemoteProtocolError:
                assert text == "one break"
        client.get("/nobody/knows/this/path")
        client.request("PROPFIND", "/v1/models")
        eventually(lambda: server.service.engine.num_live == 0, "sessions are freed")
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    text = response.text

    def figure(name: str) -> float:
        match = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert match, name
        return float(match[1])

    speech = 'tokenlm_requests_total{method="POST",route="/v1/audio/speech"'
    assert figure(speech + ',status="200"}') == 2
    assert figure(speech + ',status="400"}') == 1
    assert figure('tokenlm_utterances_total{end="done"}') == 1
    assert figure('tokenlm_utterances_total{end="failed"}') == 2
    assert figure("tokenlm_audio_seconds_total") == pytest.approx(0.3)
    assert figure("tokenlm_first_audio_seconds_count") == 2
    assert figure("tokenlm_real_time_factor_count") == 2
    for name in ("live_streams", "queue_length", "engine_sessions", "sockets"):
        assert figure(f"tokenlm_{name}") == 0
    # What clients make up is no name of a figure.
    assert "nobody" not in text and "PROPFIND" not in text
    assert figure("process_resident_memory_bytes") > 0


def test_other_pages_may_use_it_only_where_allowed(start: StartServer) -> None:
    origin = {"Origin": "https://friend.example"}
    closed, opened = start(), start(cors_origins=("https://friend.example",))
    ask = {**origin, "Access-Control-Request-Method": "POST",
           "Access-Control-Request-Headers": "authorization,content-type"}  # fmt: skip
    refused = httpx.get(f"{closed.url}/health", headers=origin)
    assert "access-control-allow-origin" not in refused.headers
    answer = httpx.options(f"{opened.url}/v1/audio/speech", headers=ask)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    said = httpx.post(f"{opened.url}/v1/audio/speech", json={"input": "one"}, headers=origin)
    assert said.headers["access-control-allow-origin"] == "https://friend.example"
    assert "X-Synthesised" in said.headers["access-control-expose-headers"]
    stranger = {"Origin": "https://stranger.example"}
    for server in (closed, opened):
        # What a browser sends without asking: forms, and WebSockets.
        form = httpx.post(f"{server.url}/v1/audio/voices", data={"name": "me"}, headers=stranger)
        assert form.status_code == 403 and "cors_origins" in form.text
        with pytest.raises(InvalidStatus) as denied:
            connect(server.socket_url, additional_headers=stranger)
        assert denied.value.response.status_code == 403
    with connect(closed.socket_url, additional_headers={"Origin": closed.url}):
        pass  # its own page
    with connect(opened.socket_url, additional_headers=origin):
        pass
    refused = httpx.get(f"{opened.url}/health", headers=stranger)
    assert "access-control-allow-origin" not in refused.headers


def test_the_page_asks_nobody_else(shared: LiveServer) -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path
        response = httpx.get(f"{shared.url}/{path.name}")
        assert response.status_code == 200 and response.text == text
        assert "default-src 'self'" in response.headers["content-security-policy"]
    index = httpx.get(f"{shared.url}/").text
    assert "<title>tokenlm" in index
    # Every control has a label.
    for control in re.findall(r"<(?:input|textarea|select|meter)[^>]* id=\"([\w-]+)\"", index):
        assert f'for="{control}"' in index, control


def test_the_page_runs_nothing_but_its_own_scripts(shared: LiveServer) -> None:
    """Names of voices, sentences of errors and texts are never read as HTML."""
    response = httpx.get(f"{shared.url}/")
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
    assert "script-src" not in policy and "unsafe" not in str(policy)
    assert response.headers["x-content-type-options"] == "nosniff"
    # What the policy forbids would not work: nothing stands in the page itself.
    assert not re.findall(r"<script(?![^>]* src=)|<style|\s(?:style|on[a-z]+)=", response.text)
    html = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|srcdoc")
    for path in PAGE.glob("*.js"):
        assert not html.search(path.read_text(encoding="utf-8")), path
    name = "<img src=x onerror=alert(1)>"
    for answer in (
        httpx.post(f"{shared.url}/v1/audio/speech", json={"input": "one", "voice": name}),
        httpx.delete(f"{shared.url}/v1/audio/voices/{quote(name)}"),
        httpx.get(f"{shared.url}/{quote(name)}"),
    ):
        assert answer.status_code == 404 and name in answer.json()["error"]["message"]
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_can_be_used_by_keys_and_ears(shared: LiveServer) -> None:
    index = httpx.get(f"{shared.url}/").text
    assert '<html lang="en">' in index and '<a class="skip" href="#text">' in index
    names = set(re.findall(r' id="([\w-]+)"', index))
    for attribute in ("for", "aria-labelledby", "aria-describedby"):
        for value in re.findall(rf' {attribute}="([^"]+)"', index):
            assert set(value.split()) <= names, (attribute, value)
    for element in ("canvas", "section"):
        tags = re.findall(rf"<{element}[^>]*>", index)
        assert tags and all("aria-labelledby=" in tag for tag in tags), element
    assert all("aria-label=" in tag for tag in re.findall(r"<audio[^>]*>", index))
    for name in ("status", "script-status", "voice-status"):
        assert f'id="{name}" role="status"' in index
    # What a script looks for is there; and a button that is disabled would lose the focus.
    for path in PAGE.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r'part\("([\w-]+)"\)', text)) <= names, path
        assert ".disabled" not in text, path
        # Every request goes through one function, which turns failures into sentences.
        assert len(re.findall(r"\bfetch\(", text)) == (path.name == "api.js"), path
    assert not re.findall(r"<button[^>]* disabled", index)


def test_a_server_without_the_page(start: StartServer) -> None:
    server = start(page=False)
    response = httpx.get(f"{server.url}/")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "There is nothing at /."


@pytest.mark.parametrize("page", [True, False])
def test_what_does_not_exist(start: StartServer, page: bool) -> None:
    """Before anything about keys, bodies or their kind, and whatever their size."""
    server = start(keys=("sesame",), page=page)
    bodies: list[dict[str, Any]] = [
        {}, {"json": {"input": "one"}},
        {"content": b"x", "headers": {"Content-Type": "text/plain"}},
        {"content": bytes(3_000_000)}, {"files": {"a": bytes(100)}},
        {"content": iter([b"a" * 70_000] * 20)}, {"headers": {"Authorization": "Bearer wrong"}},
    ]  # fmt: skip
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for path in ("/v1/nothing", "/v1/audio/speech/", "/v1/audio/speach", "/v1/audio/voices/",
                     "/v1/chat/completions", "/favicon.ico", "/..%2fapp.py"):  # fmt: skip
            for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"):
                response = client.request(method, path)
                assert response.status_code == 404, (method, path)
            for body in bodies:
                response = client.post(path, **body)
                assert response.status_code == 404, (path, body.keys())
                assert "There is nothing at" in response.json()["error"]["message"]
    for path in ("/v1/nothing", "/v1/audio/speech", "/", "/health"):
        with pytest.raises(InvalidStatus) as denied:
            connect(f"ws://127.0.0.1:{server.port}{path}")
        assert denied.value.response.status_code == 404, path


def test_methods_that_a_path_does_not_take(shared: LiveServer) -> None:
    with httpx.Client(base_url=shared.url) as client:
        for method, path, allowed in (
            ("GET", "/v1/audio/speech", "POST"), ("HEAD", "/v1/audio/speech", "POST"),
            ("POST", "/v1/models", "GET, HEAD"), ("POST", "/health", "GET, HEAD"),
            ("PUT", "/v1/audio/voices", "GET, POST, HEAD"), ("POST", "/", "GET, HEAD"),
            ("GET", "/v1/audio/voices/me", "DELETE"), ("POST", "/page.js", "GET, HEAD"),
        ):  # fmt: skip
            response = client.request(method, path, content=bytes(2_000_000))
            assert response.status_code == 405, (method, path)
            assert response.headers["allow"] == allowed, (method, path)
            if method != "HEAD":
                assert "does not take the method" in response.json()["error"]["message"]


def test_heads_are_those_of_what_is_got(shared: LiveServer) -> None:
    with httpx.Client(base_url=shared.url) as client:
        for path in ("/health", "/v1/models", "/v1/models/tiny", "/v1/models/none", "/metrics",
                     "/v1/audio/voices", "/v1/audio/models", "/openapi.json", "/", "/page.js",
                     "/v1/audio/voices?limit=0"):  # fmt: skip
            got, head = client.get(path), client.head(path)
            assert head.status_code == got.status_code, path
            assert (
                head.content == b"" and head.headers["content-type"] == got.headers["content-type"]
            )
            if path != "/metrics":  # which change
                assert head.headers["content-length"] == str(len(got.content)), path
        text = client.get("/metrics").text
    assert 'tokenlm_requests_total{method="HEAD",route="/v1/models",status="200"}' in text


def test_the_tokens_of_every_utterance_are_logged(start: StartServer, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "tokens.jsonl"
    server = start(token_log=log)
    said = httpx.post(f"{server.url}/v1/audio/speech", json={"input": "one two", "seed": 5})
    name = said.headers["x-request-id"]
    eventually(lambda: log.is_file() and bool(log.read_text()), "it is written")
    facts = read_token_log(log)[name]
    assert (facts["end"], facts["seed"], facts["voice"]) == ("done", 5, "ann")
    assert facts["speech_tokens"] == [list(range(6))] and facts["num_samples"] == 4800
    # A line of the log is a line whatever its text holds.
    httpx.post(f"{server.url}/v1/audio/speech", json={"input": "one\u2028two\x85three\nfour"})
    eventually(lambda: log.read_text(encoding="utf-8").count("\n") == 2, "it is written, too")
    assert len(read_token_log(log)) == 2
    log.write_text("{broken\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokens.jsonl:1 is no line"):
        read_token_log(log)


def test_a_log_that_cannot_be_written_stops_nobody(start: StartServer, tmp_path: Path) -> None:
    log = tmp_path / "tokens.jsonl"
    log.mkdir()
    server = start(token_log=log)
    for _ in range(2):
        said = httpx.post(f"{server.url}/v1/audio/speech", json={"input": "one"})
        assert said.status_code == 200 and said.content


def test_the_document_of_the_api(shared: LiveServer) -> None:
    found = httpx.get(f"{shared.url}/openapi.json").json()
    speech = found["paths"]["/v1/audio/speech"]["post"]
    assert {"200", "400", "401", "413", "429", "503"} <= set(speech["responses"])
    assert "422" not in json.dumps(found)


@pytest.mark.parametrize(
    "settings",
    [{"max_streams": 0}, {"max_queue": -1}, {"idle_timeout_seconds": 0}, {"max_upload_bytes": 0}],
)
def test_limits_out_of_range(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Limits(**settings)
    with pytest.raises(ValueError, match="port"):
        ServeConfig(port=70_000)
