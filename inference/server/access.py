"""The dependency of every route that needs a key."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from inference.server.service import service_of

_bearer = HTTPBearer(auto_error=False, description="A key of the server, where it has keys at all.")


async def needs_key(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Refuses a request without a key where keys are needed."""
    service_of(request).keys.check(request.headers.get("authorization"))
