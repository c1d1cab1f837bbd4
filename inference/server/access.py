"""Who may use a route: the dependency of every one that needs a key."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from inference.server.errors import ApiError
from inference.server.service import service_of

_bearer = HTTPBearer(auto_error=False, description="A key of the server, where it has keys at all.")


async def needs_key(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Refuses a request without a key where keys are needed, and one of a stranger's web page."""
    check_access(request)


def check_access(connection: HTTPConnection) -> None:
    """Refuses what has no key where keys are needed, and what a stranger's web page sends.

    Raises:
        ApiError: 401 or 403.
    """
    check_origin(connection)
    service_of(connection).keys.check(connection.headers.get("authorization"))


def check_origin(connection: HTTPConnection) -> None:
    """Refuses what a web page of another server sends, unless the settings name its origin.

    Browsers send forms and open WebSockets to anywhere, without asking first as they do for JSON: a
    page that somebody visits could add voices to the server on their own machine.

    Raises:
        ApiError: 403.
    """
    origin = connection.headers.get("origin")
    if origin is None:
        return
    service = service_of(connection)
    allowed = service.config.cors_origins
    own = service.hosts.owns(origin, connection.headers.get("host"))
    if not (own or origin in allowed or "*" in allowed):
        raise ApiError(
            403,
            f"Web pages of {origin[:100]!r} may not use this server; its setting cors_origins "
            "names those that may.",
            code="origin",
        )
