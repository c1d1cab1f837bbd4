"""Bodies of requests: who may send one, how long it may be, and how long it may take."""

from __future__ import annotations

import asyncio

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.server.access import check_access
from inference.server.errors import ApiError
from inference.server.settings import Limits

SLACK_BYTES = 65_536
"""Of a body besides the text or recording in it: names, other fields, boundaries."""
DISCARD_BYTES = 64_000_000
"""Of a body that is refused, most that is read and thrown away after the answer."""
DISCARD_SECONDS = 10.0
"""Longest time of doing so."""


class BodyGate:
    """Middleware that refuses a body before it is kept anywhere, and tells the client so.

    The key is looked at before the body: nobody without one fills the disk. The answer is sent at
    once, also to a client that is still sending; what it sends is then thrown away for a while, as
    a connection that is closed over bytes on their way loses the answer, too.
    """

    def __init__(self, app: ASGIApp, limits: Limits, upload_path: str) -> None:
        self._app = app
        self._upload_path = upload_path
        self._seconds = limits.body_timeout_seconds
        self._max_upload = limits.max_upload_bytes + SLACK_BYTES
        # A character is at most 4 bytes of UTF-8, or 12 of JSON escapes.
        self._max_body = 12 * limits.max_text_characters + SLACK_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        # Other methods have no body that anybody reads.
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        limit = self._max_upload if scope["path"] == self._upload_path else self._max_body
        has_started = False

        async def watched(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        reader = _Reader(receive, limit, self._seconds)
        try:
            _check_head(scope, limit)
            await self._app(scope, reader, watched)
        except _Refused as refused:
            if has_started:
                raise
            await _answer(refused.error, reader, send)


class _Reader:
    """Gives the messages of a body on, as long as it is neither too long nor too slow."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._end = asyncio.get_running_loop().time() + seconds
        self._num_bytes = 0
        self._is_complete = False

    async def discard(self) -> None:
        """Reads to the end of the body, or for as long as that is bearable."""
        num_bytes = 0
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self._is_complete and num_bytes < DISCARD_BYTES:
                    message = await self._receive()
                    num_bytes += len(message.get("body", b""))
                    self._is_complete = not message.get("more_body", False)
        except TimeoutError:
            pass

    async def __call__(self) -> Message:
        """See ASGI."""
        if self._is_complete:  # what is waited for now is that the client leaves
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise _Refused(_too_slow(self._seconds)) from None
        self._num_bytes += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._num_bytes > self._limit:
            raise _Refused(_too_long(self._limit))
        return message


class _Refused(BaseException):
    """Not an Exception: no handler between here and the reader of the body may answer it."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


def _check_head(scope: Scope, limit: int) -> None:
    try:
        check_access(HTTPConnection(scope))
    except ApiError as error:
        raise _Refused(error) from error
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise _Refused(_too_long(limit))


async def answer_early(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request whose body, if it has any, nobody will read."""
    headers = dict(scope["headers"])
    if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
        await error.response()(scope, receive, send)
    else:
        await _answer(error, _Reader(receive, 0, DISCARD_SECONDS), send)


async def _answer(error: ApiError, reader: _Reader, send: Send) -> None:
    # Closing tells the client that the rest of its body will not be read.
    error.headers["Connection"] = "close"
    response = error.response()
    head = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "http.response.start", **head})
    # The answer is whole, as its length says; the connection is closed when the response ends.
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
    await reader.discard()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _too_long(limit: int) -> ApiError:
    return ApiError(
        413,
        f"The body of the request is longer than the {limit} bytes that are taken here.",
        code="too_large",
    )


def _too_slow(seconds: float) -> ApiError:
    return ApiError(408, f"The body of the request did not come within {seconds:g} s.", code="slow")


__all__ = ["BodyGate", "answer_early"]
