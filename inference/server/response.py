"""Speech as the body of an HTTP response, sent while it is made."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Literal
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inference.server.errors import ApiError
from inference.server.service import ClientGoneError
from inference.server.utterance import Utterance
from tokenlm.audio.encoders import build_encoder

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""Media types of every format of OpenAI's API; for aac there is no encoder."""
FOREIGN_WORDS = "X-Tokenlm-Foreign-Words"
"""Header with the words that are left out of what is spoken."""
_MAX_HEADER = 1000
_MAX_WORD = 24
"""Characters of that header, for which proxies have little room, and of a word in it."""

_log = logging.getLogger(__name__)


class SpeechResponse(Response):
    """Bytes of an utterance.

    The status is sent with the first of them: until then, all that goes wrong is a proper refusal.
    The next chunk is asked for when the client has taken the last: a slow client slows its own
    utterance, and no other.
    """

    def __init__(
        self,
        speak: Callable[[], AbstractAsyncContextManager[Utterance]],
        audio_format: str,
        stream_format: Literal["audio", "sse"],
        write_timeout_seconds: float,
    ) -> None:
        super().__init__()
        self._speak = speak
        self._audio_format = audio_format
        self._stream_format = stream_format
        self._write_timeout_seconds = write_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. A client that leaves ends the utterance at once, in the queue, too."""
        work = asyncio.create_task(self._respond(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
            await asyncio.wait((work, gone))
        if not work.cancelled():
            try:
                work.result()
            except ClientGoneError:
                # The body is left unfinished, and whoever runs this closes the connection.
                _log.info("a client takes nothing any more")
            except _ToldError as error:
                # The body has ended as it should: the connection serves the next request.
                _log.error("an utterance failed after it had begun", exc_info=error.__cause__)

    async def _respond(self, send: Send) -> None:
        async with self._speak() as utterance:
            make = self._events if self._is_sse else self._bytes
            started = False
            try:
                async with aclosing(make(utterance)) as body:
                    async for data in body:
                        if not started:
                            started = True
                            await self._send(send, self._head(utterance))
                        await self._send(send, _body(data, more=True))
            except (ApiError, ClientGoneError):
                raise
            except _ToldError:
                await self._send(send, _body(b"", more=False))
                raise
            except Exception as error:
                if started:
                    raise  # the body ends too early, by which the client knows
                _log.exception("the models failed at %s", utterance.provenance.request_id)
                raise ApiError(500, "The models failed at this request.") from error
            await self._send(send, _body(b"", more=False))

    @property
    def _is_sse(self) -> bool:
        return self._stream_format == "sse"

    def _head(self, utterance: Utterance) -> dict[str, Any]:
        kind = "text/event-stream" if self._is_sse else MEDIA_TYPES[self._audio_format]
        headers = {
            "Content-Type": kind,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # a proxy that collects the body would undo the streaming
            "X-Sample-Rate": str(utterance.sample_rate),
            **utterance.provenance.headers,
        }
        if utterance.foreign_words:
            headers[FOREIGN_WORDS] = _in_header(utterance.foreign_words)
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        return {"type": "http.response.start", "status": 200, "headers": raw}

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._write_timeout_seconds):
                await send(message)
        except (TimeoutError, OSError) as error:
            raise ClientGoneError from error

    async def _bytes(self, utterance: Utterance) -> AsyncGenerator[bytes, None]:
        encoder = build_encoder(
            self._audio_format, utterance.sample_rate, utterance.provenance.comment
        )
        async for chunk in utterance:
            if data := encoder.encode(chunk):
                yield data
        if data := encoder.finish():
            yield data

    async def _events(self, utterance: Utterance) -> AsyncGenerator[bytes, None]:
        """The events of `stream_format: sse`; errors after the first are an event, too."""
        begun = False
        try:
            async with aclosing(self._bytes(utterance)) as pieces:
                async for data in pieces:
                    begun = True
                    audio = base64.b64encode(data).decode("ascii")
                    yield _event({"type": "speech.audio.delta", "audio": audio})
        except Exception as error:
            if not begun:
                raise
            told = error if isinstance(error, ApiError) else ApiError(500, "The models failed.")
            yield _event({"type": "error", **told.body()})
            raise _ToldError from error
        yield _event(
            {
                "type": "speech.audio.done",
                "usage": utterance.usage,
                "foreign_words": utterance.foreign_words,
                "provenance": utterance.provenance.facts(),
                "timings": utterance.facts(),
            }
        )


class _ToldError(Exception):
    """The client knows of the error that is the cause of this one."""


def _body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _in_header(words: Sequence[str]) -> str:
    """Words as a header can hold them: percent-encoded, with commas between, the first of many."""
    shown = ""
    for word in words:
        more = quote(word[:_MAX_WORD], safe="")
        if len(shown) + 2 + len(more) > _MAX_HEADER:
            break
        shown += f", {more}" if shown else more
    return shown


def _event(facts: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(facts)}\n\n".encode()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
