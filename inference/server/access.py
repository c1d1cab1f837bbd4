"""Access control: the names that the server answers to, web pages of other origins, and API keys.

A web page of an attacker can have its own name resolve to this machine (DNS rebinding). The browser
then takes requests to this server for requests to the page's own server, and lets the page read the
answers. `Host` is the name that the page chose, so it gives the page away.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from inference.server.errors import ApiError
from inference.server.settings import ServeConfig

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?")
_DEFAULT_PORTS = ("", "80", "443")
_bearer = HTTPBearer(auto_error=False, description="A key of the server, where it has keys at all.")


def keys_of_environment(config: ServeConfig) -> tuple[str, ...]:
    """The API keys in the variable that the settings name."""
    keys = os.environ.get(config.api_key_env, "").split(",")
    return tuple(key.strip() for key in keys if key.strip())


class Access:
    """Who may use the server.

    Allowed in `Host`, with any port: loopback, the address that the server listens at, and the
    names of the settings.
    """

    def __init__(self, config: ServeConfig, keys: Sequence[str] | None = None) -> None:
        """Takes the settings, and the API keys in place of those of the environment."""
        if keys is None:
            keys = keys_of_environment(config)
        self._keys = tuple(key.strip().encode() for key in keys if key.strip())
        self._origins = config.cors_origins
        self._allowed_hosts = tuple(map(normalise_host, config.allowed_hosts))
        bound = normalise_host(config.host)
        self._own_hosts = {"localhost", bound}
        self._allows_addresses = bound in ("", "0.0.0.0", "::")
        """Listening at every network, the server answers to all addresses of the machine. No page
        of an attacker can have one of them for a name."""
        if self._allows_addresses:
            self._own_hosts.add(normalise_host(socket.gethostname()))

    @property
    def needs_key(self) -> bool:
        """Whether there are keys; without any the server is open to everybody."""
        return bool(self._keys)

    def check(self, connection: HTTPConnection) -> None:
        """Checks the origin and the key of a request.

        Raises:
            ApiError: 401 or 403.
        """
        self.check_origin(connection)
        self.check_key(connection.headers.get("authorization"))

    def check_key(self, authorization: str | None) -> None:
        """Checks the header `Authorization: Bearer KEY`.

        Raises:
            ApiError: 401.
        """
        if not self.needs_key:
            return
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not self.is_key(key.strip()):
            reason = "is wrong" if key else "is missing: send the header Authorization: Bearer KEY"
            raise ApiError(
                401,
                f"The key {reason}.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def is_key(self, key: str) -> bool:
        """Whether this is one of the keys, in a time that does not depend on how close it is."""
        given = key.encode(errors="surrogateescape")
        return any([hmac.compare_digest(given, known) for known in self._keys])

    def check_origin(self, connection: HTTPConnection) -> None:
        """Refuses requests of web pages of other servers, unless the settings allow their origin.

        Browsers send forms and open WebSockets to anywhere without a preflight request: a page
        could otherwise add voices to a server on its visitor's machine.

        Raises:
            ApiError: 403.
        """
        origin = connection.headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        if not self.is_own_origin(origin, connection.headers.get("host")):
            raise ApiError(
                403,
                f"Web pages of {origin[:100]!r} may not use this server; its setting cors_origins "
                "names those that may.",
                code="origin",
            )

    def check_host(self, host: str | None) -> None:
        """Checks the header `Host`. A client that sends none is no browser.

        Raises:
            ApiError: 403, the server does not answer to this name.
        """
        if host is None or self._is_known(_host_of(host)) or "*" in self._allowed_hosts:
            return
        raise ApiError(
            403,
            f"This server does not go by the name {host[:100]!r}; its setting allowed_hosts names "
            "those that it may be asked by.",
            code="host",
        )

    def is_own_origin(self, origin: str, host: str | None) -> bool:
        """Whether a web page comes from this server itself.

        Args:
            origin: the header `Origin` of the request.
            host: the header `Host`, which has the port at which the client sees the server.
        """
        try:
            scheme, authority = urlsplit(origin)[:2]
        except ValueError:
            return False
        name = _host_of(authority)
        if scheme not in ("http", "https") or name is None:
            return False
        if self._is_allowed(name):  # a proxy may have asked by another name and port
            return True
        if "*" in self._allowed_hosts:
            return authority.lower() == (host or "").lower()
        return self._is_known(name) and _port_of(authority) == _port_of(host or "")

    def _is_known(self, name: str | None) -> bool:
        if name is None:
            return False
        if name in self._own_hosts or self._is_allowed(name):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._allows_addresses

    def _is_allowed(self, name: str) -> bool:
        return any(
            name == allowed or (allowed.startswith("*.") and name.endswith(allowed[1:]))
            for allowed in self._allowed_hosts
        )


def access_of(connection: HTTPConnection) -> Access:
    """The access control of the app that handles a connection."""
    return connection.app.state.access


async def require_access(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Dependency of the routes that need a key; see `Access.check`."""
    access_of(request).check(request)


def normalise_host(name: str) -> str:
    """A host name for comparisons: in lower case, without brackets and without a trailing dot."""
    return name.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _host_of(authority: str) -> str | None:
    """The host of `HOST:PORT`; None where it is not of this form."""
    match = _AUTHORITY.fullmatch(authority.strip())
    return None if match is None else normalise_host(match[1])


def _port_of(authority: str) -> str:
    match = _AUTHORITY.fullmatch(authority.strip())
    port = (match[2] or "") if match else ""
    return "" if port in _DEFAULT_PORTS else port


__all__ = ["Access", "access_of", "normalise_host", "require_access"]
