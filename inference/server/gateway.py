"""The one ASGI wrapper around the application: what is decided before a route runs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from inference.server.access import Access
from inference.server.errors import ApiError
from inference.server.settings import ServeConfig

DISCARD_BYTES = 64_000_000
"""Most that is read and discarded of a body after it was refused."""
DISCARD_SECONDS = 10.0
"""Longest time of doing so."""
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
)
"""The page loads nothing from elsewhere, and no other page may embed it."""
_ROUTED_METHODS = ("GET", "POST", "DELETE")
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})


class Gateway:
    """Checks every request and counts its response.

    In this order, it checks

    1. `Host`, of WebSockets too;
    2. CORS, where the settings name origins;
    3. path and method, where HEAD is accepted wherever GET is;
    4. of a POST, origin and key, then size and duration of the body. The key comes first: nobody
       without one fills the disk.

    A body is refused before it is kept anywhere. The response is sent at once, also to a client
    that is still sending; the rest of the body is then discarded for a while, as closing the
    connection over bytes in flight would lose the response, too.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: ServeConfig,
        access: Access,
        page_paths: Collection[str],
        body_limits: Mapping[str, int],
        exposed_headers: Collection[str],
    ) -> None:
        """Wraps an application.

        Args:
            app: the application.
            config: its settings.
            access: decides about hosts, origins and keys.
            page_paths: paths of static files.
            body_limits: most bytes of a body by path; the lowest holds for all other paths.
            exposed_headers: headers of responses that pages of other origins may read.
        """
        self._app = app
        self._access = access
        self._page_paths = page_paths
        self._body_limits = body_limits
        self._body_seconds = config.limits.body_timeout_seconds
        self._after_host: ASGIApp = self._check_path
        if config.cors_origins:
            self._after_host = CORSMiddleware(
                self._check_path,
                allow_origins=list(config.cors_origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["Authorization", "Content-Type"],
                expose_headers=list(exposed_headers),
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            await self._count(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._check_host(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts the response and adds `SECURITY_HEADERS` to it."""
        status = 499  # customary for a client that left before there was a response

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), *SECURITY_HEADERS]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._check_host(scope, receive, send_counted)
        except Exception:
            status = 500 if status == 499 else status
            raise
        finally:
            # Labels are bounded: paths and methods that clients make up are "other".
            path = scope["path"] if scope["path"] in self._body_limits else "other"
            route = getattr(scope.get("route"), "path", None) or path
            method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
            requests = scope["app"].state.service.metrics.requests
            requests.labels(route=route, method=method, status=str(status)).inc()

    async def _check_host(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._access.check_host(HTTPConnection(scope).headers.get("host"))
        except ApiError as error:
            await _refuse(error, scope, receive, send)
        else:
            await self._after_host(scope, receive, send)

    async def _check_path(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            if self._has_route(scope):
                await self._app(scope, receive, send)
            else:
                await _refuse(_not_found(scope), scope, receive, send)
            return
        methods = [
            method for method in _ROUTED_METHODS if self._has_route({**scope, "method": method})
        ]
        is_get = scope["method"] in ("GET", "HEAD") and "GET" in methods
        if is_get or scope["method"] in methods:
            inner = {**scope, "method": "GET"} if is_get else scope
            await self._check_body(inner, receive, send)
            if "route" in inner:  # for the metrics
                scope["route"] = inner["route"]
        elif methods:
            allowed = [*methods, "HEAD"] if "GET" in methods else methods
            error = ApiError(
                405,
                f"{scope['path'][:100]} does not take the method {scope['method']}.",
                headers={"Allow": ", ".join(allowed)},
            )
            await _refuse_unread(error, scope, receive, send)
        else:
            await _refuse_unread(_not_found(scope), scope, receive, send)

    def _has_route(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"] in self._page_paths:
            return scope["method"] == "GET"
        return any(
            route.matches(scope)[0] is Match.FULL
            for route in scope["app"].routes
            if not isinstance(route, Mount)  # the page, which matches every path
        )

    async def _check_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":  # no other route reads a body
            await self._app(scope, receive, send)
            return
        limit = self._body_limits.get(scope["path"], min(self._body_limits.values()))
        body = _Body(receive, limit, self._body_seconds)
        has_started = False

        async def send_watched(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            connection = HTTPConnection(scope)
            self._access.check(connection)
            declared = connection.headers.get("content-length", "0")
            if declared.isdecimal() and int(declared) > limit:
                raise _too_large(limit)
            await self._app(scope, body, send_watched)
        except (ApiError, _BodyRefused) as refused:
            if has_started:
                raise
            error = refused if isinstance(refused, ApiError) else refused.error
            await _refuse_and_discard(error, body, send)


class _Body:
    """An ASGI `receive` that stops a body that is too long or too slow."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._num_bytes = 0
        self._is_complete = False

    async def __call__(self) -> Message:
        """See ASGI."""
        if self._is_complete:  # the next message says that the client left
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._next()
        except TimeoutError:
            raise _BodyRefused(
                ApiError(
                    408,
                    f"The body of the request did not come within {self._seconds:g} s.",
                    code="slow",
                )
            ) from None
        if self._num_bytes > self._limit:
            raise _BodyRefused(_too_large(self._limit))
        return message

    async def discard(self) -> None:
        """Reads to the end of the body, within `DISCARD_BYTES` and `DISCARD_SECONDS`."""
        most = self._num_bytes + DISCARD_BYTES
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self._is_complete and self._num_bytes < most:
                    await self._next()
        except TimeoutError:
            pass

    async def _next(self) -> Message:
        message = await self._receive()
        self._num_bytes += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        return message


class _BodyRefused(BaseException):
    """Not an Exception: no handler between the reader of the body and the gateway answers it."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses a request, or a WebSocket that is not open yet."""
    error.headers["Connection"] = "close"
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(error.response())
    else:
        await error.response()(scope, receive, send)


async def _refuse_unread(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses a request whose body, if it has any, is not read."""
    headers = HTTPConnection(scope).headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        await error.response()(scope, receive, send)
    else:
        await _refuse_and_discard(error, _Body(receive, 0, DISCARD_SECONDS), send)


async def _refuse_and_discard(error: ApiError, body: _Body, send: Send) -> None:
    # Closing tells the client that the rest of its body will not be read.
    error.headers["Connection"] = "close"
    response = error.response()
    head = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "http.response.start", **head})
    # The response is complete by its content-length; the connection is closed at its end.
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
    await body.discard()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _not_found(scope: Scope) -> ApiError:
    return ApiError(404, f"There is nothing at {scope['path'][:100]}.")


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"The body of the request is longer than the {limit} bytes that are taken here.",
        code="too_large",
    )


__all__ = ["Gateway"]
