"""The names that a server is asked by; all others are refused.

A web page of a stranger can have its own name point to this machine (DNS rebinding): its browser
then takes what it asks here for requests to its own server, and lets it read the answers. What the
browser sends as `Host` is the name that the page chose, so it gives the page away.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from inference.server.errors import ApiError
from inference.server.settings import ServeConfig

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?")
_USUAL_PORTS = ("", "80", "443")


class Hosts:
    """What may stand in `Host`, with any port: loopback, what is listened at, and the settings."""

    def __init__(self, config: ServeConfig) -> None:
        bound = plain_name(config.host)
        self._named = tuple(map(plain_name, config.allowed_hosts))
        self._own = {"localhost", bound}
        self._takes_addresses = bound in ("", "0.0.0.0", "::")
        """Listening at every network, it goes by all addresses of the machine. No page of a
        stranger can have one of them for a name."""
        if self._takes_addresses:
            self._own.add(plain_name(socket.gethostname()))

    def check(self, host: str | None) -> None:
        """Checks the header `Host`. What sends none is no browser.

        Raises:
            ApiError: 403, the server does not go by this name.
        """
        if host is None or self._knows(name_of(host)) or "*" in self._named:
            return
        raise ApiError(
            403,
            f"This server does not go by the name {host[:100]!r}; its setting allowed_hosts names "
            "those that it may be asked by.",
            code="host",
        )

    def owns(self, origin: str, host: str | None) -> bool:
        """Whether a web page comes from this server itself.

        Args:
            origin: the header `Origin` of what it sends.
            host: the header `Host`, which tells the port that the server is seen at.
        """
        try:
            scheme, authority = urlsplit(origin)[:2]
        except ValueError:
            return False
        name = name_of(authority)
        if scheme not in ("http", "https") or name is None:
            return False
        if self._is_named(name):  # a proxy may have asked by another name and port
            return True
        if "*" in self._named:
            return authority.lower() == (host or "").lower()
        return self._knows(name) and _port(authority) == _port(host or "")

    def _knows(self, name: str | None) -> bool:
        if name is None:
            return False
        if name in self._own or self._is_named(name):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._takes_addresses

    def _is_named(self, name: str) -> bool:
        return any(
            name == known or (known.startswith("*.") and name.endswith(known[1:]))
            for known in self._named
        )


class HostGate:
    """Middleware that looks at `Host` before anything else is done, of WebSockets as well."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._hosts.check(HTTPConnection(scope).headers.get("host"))
        except ApiError as error:
            await refuse(error, scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, or a WebSocket that is not open yet, with a refusal."""
    error.headers["Connection"] = "close"
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(error.response())
    else:
        await error.response()(scope, receive, send)


def plain_name(name: str) -> str:
    """A name as it is compared: small letters, without brackets and without a last dot."""
    return name.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")


def name_of(authority: str) -> str | None:
    """The name of `NAME:PORT`; None where it is not of this form."""
    match = _AUTHORITY.fullmatch(authority.strip())
    return None if match is None else plain_name(match[1])


def _port(authority: str) -> str:
    match = _AUTHORITY.fullmatch(authority.strip())
    port = (match[2] or "") if match else ""
    return "" if port in _USUAL_PORTS else port


__all__ = ["HostGate", "Hosts", "name_of", "plain_name", "refuse"]
