"""Which names a server goes by, which pages are its own, and who hears of consent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import CONSENT, StartServer
from live_server import LiveServer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from inference.server.access import Access
from inference.server.errors import ApiError
from inference.server.process import build_server
from inference.server.settings import ServeConfig

STRANGERS = ("evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.nip.io",
             "evil.example:80", "192.168.0.7:{port}", "localhost@evil.example",
             "evil.example@localhost", "notlocalhost", "", "[::2]", "0.0.0.0",
             "localhost, evil.example")  # fmt: skip
OWN = ("localhost", "localhost:{port}", "LOCALHOST:1", "localhost.", "127.0.0.1",
       "127.0.0.1:{port}", "[::1]", "[::1]:{port}", "127.0.0.2")  # fmt: skip
ROUTES = (("GET", "/health"), ("GET", "/"), ("GET", "/page.js"), ("GET", "/openapi.json"),
          ("GET", "/v1/models"), ("GET", "/v1/audio/voices"), ("POST", "/v1/audio/voices"),
          ("POST", "/v1/audio/speech"), ("DELETE", "/v1/audio/voices/me"), ("GET", "/metrics"),
          ("GET", "/nothing"), ("OPTIONS", "/v1/audio/speech"), ("HEAD", "/health"))  # fmt: skip


@pytest.mark.parametrize("host", STRANGERS)
def test_a_name_of_a_stranger_opens_nothing(shared: LiveServer, host: str) -> None:
    headers = {"Host": host.format(port=shared.port)}
    with httpx.Client(base_url=shared.url) as client:
        for method, path in ROUTES:
            response = client.request(method, path, headers=headers)
            assert response.status_code in (400, 403), (method, path)
            if response.status_code == 403 and method != "HEAD":
                assert response.json()["error"]["code"] == "host"
    for path in ("/v1/audio/speech/stream", "/nothing"):
        with pytest.raises(InvalidStatus) as denied:
            _connect(shared, path, headers)
        assert denied.value.response.status_code in (400, 403)


def test_a_page_that_points_its_own_name_here(shared: LiveServer) -> None:
    """Host and Origin agree, as a browser sends them after DNS rebinding."""
    name = f"evil.example:{shared.port}"
    headers = {"Host": name, "Origin": f"http://{name}"}
    with httpx.Client(base_url=shared.url) as client:
        for method, path in ROUTES:
            assert client.request(method, path, headers=headers).status_code == 403
    with pytest.raises(InvalidStatus) as denied:
        _connect(shared, "/v1/audio/speech/stream", headers)
    assert denied.value.response.status_code == 403


@pytest.mark.parametrize("host", OWN)
def test_loopback_by_any_name_and_port(shared: LiveServer, host: str) -> None:
    headers = {"Host": host.format(port=shared.port)}
    for path in ("/health", "/v1/models", "/v1/audio/voices", "/"):
        assert httpx.get(shared.url + path, headers=headers).status_code == 200
    _connect(shared, "/v1/audio/speech/stream", headers).close()


def test_names_of_the_settings(start: StartServer) -> None:
    server = start(allowed_hosts=("speech.example.com", "*.tunnel.example"))
    for host, status in (
        ("speech.example.com", 200), ("Speech.Example.com:8443", 200), ("a.b.tunnel.example", 200),
        ("tunnel.example", 403), ("eviltunnel.example", 403), ("example.com", 403),
        ("x.speech.example.com", 403), ("localhost", 200),
    ):  # fmt: skip
        assert httpx.get(f"{server.url}/v1/models", headers={"Host": host}).status_code == status
    anyone = start(allowed_hosts=("*",))
    assert httpx.get(f"{anyone.url}/v1/models", headers={"Host": "any.example"}).status_code == 200


@pytest.mark.parametrize(
    ("settings", "host", "origin", "own"),
    [
        ({}, "127.0.0.1:8000", "http://127.0.0.1:8000", True),
        ({}, "127.0.0.1:8000", "http://localhost:8000", True),
        ({}, "localhost", "http://localhost:80", True),
        ({}, "127.0.0.1:8000", "http://localhost:3000", False),
        ({}, "127.0.0.1:8000", "http://evil.example", False),
        ({}, "evil.example", "http://evil.example", False),
        ({}, "127.0.0.1:8000", "null", False),
        ({}, "127.0.0.1:8000", "file://127.0.0.1:8000", False),
        ({}, "127.0.0.1:8000", "http://[", False),
        ({}, "127.0.0.1:8000", "http://127.0.0.1:8000@evil.example", False),
        # A proxy asks by a name of its own choice, and has a port of its own.
        ({"allowed_hosts": ("s.example",)}, "127.0.0.1:8000", "https://s.example", True),
        ({"allowed_hosts": ("s.example",)}, "s.example", "https://s.example:8443", True),
        ({"allowed_hosts": ("*",)}, "a.example:8000", "http://a.example:8000", True),
        ({"allowed_hosts": ("*",)}, "a.example:8000", "http://b.example:8000", False),
        ({"host": "speech.lan"}, "speech.lan:8000", "http://speech.lan:8000", True),
        ({"host": "0.0.0.0"}, "192.168.0.7:8000", "http://192.168.0.7:8000", True),
        ({"host": "0.0.0.0"}, "evil.example:8000", "http://evil.example:8000", False),
    ],
)
def test_which_pages_are_its_own(
    settings: dict[str, Any], host: str, origin: str, own: bool
) -> None:
    assert Access(ServeConfig(**settings)).is_own_origin(origin, host) is own


@pytest.mark.parametrize(
    ("bound", "host", "status"),
    [
        ("0.0.0.0", "192.168.0.7:8000", None),
        ("::", "[fe80::1]:8000", None),
        ("0.0.0.0", "evil.example", 403),
        ("192.168.0.7", "192.168.0.7:8000", None),
        ("192.168.0.7", "192.168.0.8:8000", 403),
        ("speech.lan", "speech.lan:8000", None),
        ("127.0.0.1", None, None),  # HTTP/1.0 without a host: no browser
    ],
)
def test_the_address_that_is_listened_at(bound: str, host: str | None, status: int | None) -> None:
    access = Access(ServeConfig(host=bound))
    if status is None:
        access.check_host(host)
    else:
        with pytest.raises(ApiError) as refused:
            access.check_host(host)
        assert refused.value.status == status and "allowed_hosts" in refused.value.message


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"allowed_hosts": ("http://a.example",)}, "allowed_hosts"),
        ({"allowed_hosts": ("a.example:80",)}, "allowed_hosts"),
        ({"allowed_hosts": ("",)}, "allowed_hosts"),
        ({"proxies": ("proxy.example",)}, "proxies"),
        ({"proxies": ("10.0.0.1/8",)}, "proxies"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ServeConfig(**settings)
    ServeConfig(allowed_hosts=("a.example", "[::1]", "fe80::1", "*.x.y"), proxies=("10.0.0.0/8",))


def test_who_consented_to_what_is_not_for_everybody(start: StartServer, recording: Path) -> None:
    for keys in ((), ("sesame",)):
        server = start(keys=keys, voices=recording.parent / f"voices{len(keys)}")
        headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
        with httpx.Client(base_url=server.url, timeout=60, headers=headers) as client:
            added = client.post(
                "/v1/audio/voices",
                files={"audio_sample": recording.read_bytes()},
                data={"name": "me", "consent": CONSENT},
            )
            assert added.status_code == 201
            listed = client.get("/v1/audio/voices")
            (voice,) = [one for one in listed.json()["data"] if one["id"] == "me"]
            for body, told in ((added.json(), added.text), (voice, listed.text)):
                assert ("Ann Example" in told) is bool(keys)
                assert (body["consent"] or {}).get("who") == ("Ann Example" if keys else None)
        record = (server.config.voices / "me.yaml").read_text(encoding="utf-8")
        assert "Ann Example" in record, "it is kept all the same"


@pytest.mark.parametrize(
    ("proxies", "believed"), [((), False), (("127.0.0.0/8",), True), (("10.0.0.9",), False)]
)
def test_forwarded_headers_are_those_of_named_proxies(
    start: StartServer, proxies: tuple[str, ...], believed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    server = start(proxies=proxies)
    seen: list[tuple[str, str]] = []
    gate = server.app.middleware_stack
    assert gate is not None

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"][0], scope["scheme"]))
        await gate(scope, receive, send)

    server.app.middleware_stack = watched
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    assert httpx.get(f"{server.url}/health", headers=headers).status_code == 200
    assert seen == [("203.0.113.9", "https") if believed else ("127.0.0.1", "http")]
    assert build_server(server.app, server.config).config.proxy_headers is bool(proxies)


def _connect(server: LiveServer, path: str, headers: dict[str, str]) -> Any:
    """Opens a WebSocket whose head says another Host than the address."""
    address = f"ws://127.0.0.1:{server.port}{path}"
    host = headers["Host"]
    more = {name: value for name, value in headers.items() if name != "Host"}

    class Asked(_HostedConnection):
        name = host

    return connect(address, create_connection=Asked, additional_headers=more)


class _HostedConnection(ClientConnection):
    """Says another name than that of the address."""

    name: str

    def handshake(self, *arguments: Any, **options: Any) -> None:
        original = self.protocol.connect

        def named() -> Any:
            request = original()
            del request.headers["Host"]
            request.headers["Host"] = self.name
            return request

        self.protocol.connect = named  # type: ignore[method-assign]
        super().handshake(*arguments, **options)
