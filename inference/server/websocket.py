"""`WS /v1/audio/speech/stream`: text in while it is written, speech out while it is made."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from inference.server.access import check_origin
from inference.server.encoders import PcmEncoder
from inference.server.errors import ApiError
from inference.server.limits import check_length
from inference.server.messages import (
    InputDone,
    InputText,
    SessionClose,
    SessionConfig,
    read_message,
)
from inference.server.service import ClientGoneError, Service, service_of
from inference.server.speech import check_instructions, check_sayable
from inference.server.text_feed import TextFeed

PATH = "/v1/audio/speech/stream"
MAX_PENDING = 8
"""Utterances that a client may have begun before the first of them ended."""
MAX_ERRORS = 20
"""A client that makes more mistakes is let go."""

router = APIRouter()
_log = logging.getLogger(__name__)


@router.websocket(PATH)
async def stream_speech(websocket: WebSocket) -> None:
    """Speaks what a client writes; see the tables in docs/serve.md."""
    service = service_of(websocket)
    try:
        service.admission.check_open()
        check_origin(websocket)
        if (given := websocket.headers.get("authorization")) is not None:
            service.keys.check(given)
        if service.num_sockets >= service.config.limits.max_sockets:
            raise ApiError(429, "The server has too many open WebSockets.", code="busy")
    except ApiError as error:
        await websocket.send_denial_response(error.response())
        return
    await websocket.accept()
    service.num_sockets += 1
    try:
        await _Session(websocket, service, may_speak=given is not None).run()
    finally:
        service.num_sockets -= 1


class _Session:
    """One client. A task reads what it sends, another speaks one utterance after the other."""

    def __init__(self, websocket: WebSocket, service: Service, *, may_speak: bool) -> None:
        self._websocket = websocket
        self._service = service
        self._limits = service.config.limits
        self._may_speak = may_speak or not service.keys.needed
        self._settings = SessionConfig()
        self._feeds: asyncio.Queue[TextFeed | None] = asyncio.Queue()
        self._open_feed: TextFeed | None = None
        self._num_begun = 0
        self._num_ended = 0
        self._num_errors = 0

    async def run(self) -> None:
        """Lasts as long as the session."""
        reader = asyncio.create_task(self._read())
        speaker = asyncio.create_task(self._speak())
        tasks = [reader, speaker]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if reader.done() and reader.exception() is None:
                # Nothing more will come; what was said is still spoken, unless the client leaves.
                tasks.append(asyncio.create_task(self._until_closed()))
                await asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        await self._finish([end for end in ends if isinstance(end, Exception)])

    async def _finish(self, errors: list[Exception]) -> None:
        for error in errors:
            if isinstance(error, (WebSocketDisconnect, ClientGoneError)):
                return
        for error in errors:
            if not isinstance(error, ApiError):
                raise error
        try:
            for error in errors:
                assert isinstance(error, ApiError)
                await self._tell(error, fatal=True)
            if not errors:
                await self._send({"type": "session.done", "utterances": self._num_ended})
            code = 1000 if not errors else 1008
            async with asyncio.timeout(self._limits.write_timeout_seconds):
                await self._websocket.close(code)
        except (ClientGoneError, RuntimeError, TimeoutError, OSError):
            pass  # the client was faster

    # -- what the client says --------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                message = read_message(await self._receive())
                if isinstance(message, SessionClose):
                    self._end_feed()
                    self._feeds.put_nowait(None)
                    return
                self._take(message)
            except ApiError as error:
                self._num_errors += 1
                if error.status in (401, 408, 413) or self._num_errors > MAX_ERRORS:
                    raise
                await self._tell(error)

    async def _receive(self) -> str:
        """The next text message, waited for no longer than a client may be silent."""
        while True:
            try:
                async with asyncio.timeout(self._limits.idle_timeout_seconds):
                    message = await self._websocket.receive()
            except TimeoutError:
                listening = self._num_begun > self._num_ended and self._open_feed is None
                if listening:
                    continue
                raise ApiError(
                    408,
                    f"Nothing was said for {self._limits.idle_timeout_seconds:g} s.",
                    code="idle",
                ) from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            if (text := message.get("text")) is None:
                raise ApiError(400, "Messages to the server are JSON text, not binary.")
            return text

    def _take(self, message: SessionConfig | InputText | InputDone) -> None:
        if isinstance(message, SessionConfig):
            self._configure(message)
        if not self._may_speak:
            raise ApiError(
                401,
                "The first message must be a session.config with the api_key.",
                code="invalid_api_key",
            )
        if isinstance(message, InputText):
            self._add_text(check_sayable(message.text, "text"))
        elif isinstance(message, InputDone):
            if self._open_feed is None:
                raise ApiError(400, "There is no text to be done with.", code="no_text")
            self._end_feed()

    def _configure(self, settings: SessionConfig) -> None:
        if settings.api_key is not None:
            self._service.keys.check(f"Bearer {settings.api_key}")
            self._may_speak = True
        self._service.check_model(settings.model)
        check_instructions(settings.instructions)
        self._settings = settings

    def _add_text(self, text: str) -> None:
        feed = self._open_feed
        if feed is None:
            if self._num_begun - self._num_ended >= MAX_PENDING:
                raise ApiError(
                    413, f"At most {MAX_PENDING} utterances may wait.", code="too_many_utterances"
                )
            feed = self._open_feed = TextFeed(
                self._num_begun,
                self._settings,
                self._service.config.sentence_pause_seconds,
                self._service.words,
            )
            self._num_begun += 1
            self._feeds.put_nowait(feed)
        feed.put(text)
        check_length(feed.num_characters, self._limits, "text")

    def _end_feed(self) -> None:
        if self._open_feed is not None:
            self._open_feed.complete()
            self._open_feed = None

    # -- what the client hears -------------------------------------------------------------------

    async def _speak(self) -> None:
        while (feed := await self._feeds.get()) is not None:
            try:
                await self._utter(feed)
            except (ClientGoneError, WebSocketDisconnect):
                raise
            except Exception as error:
                if not isinstance(error, ApiError):
                    _log.exception("an utterance failed")
                    error = ApiError(500, "The models failed at this utterance.")
                await self._tell(error, utterance=feed.number)
                # What is still to come of this text is not the beginning of another.
                await _skip(feed)
            finally:
                self._num_ended += 1

    async def _utter(self, feed: TextFeed) -> None:
        settings, limits = feed.settings, self._limits
        encoder = PcmEncoder()
        async with self._service.speak(
            feed,
            voice=settings.voice_name,
            seed=settings.seed,
            speed=settings.speed,
            request_id=uuid.uuid4().hex,
            asked_at=time.perf_counter(),
            # The models wait for text, too.
            patience_seconds=limits.stall_timeout_seconds + limits.idle_timeout_seconds,
        ) as utterance:
            begun = False
            async for chunk in utterance:
                if not begun:
                    begun = True
                    await self._send(
                        {
                            "type": "audio.start",
                            "utterance": feed.number,
                            "format": "pcm_s16le",
                            "sample_rate": utterance.sample_rate,
                            "channels": 1,
                            "provenance": utterance.provenance.facts(),
                        }
                    )
                await self._send(encoder.encode(chunk))
            await self._send(
                {
                    "type": "audio.done",
                    "utterance": feed.number,
                    "usage": utterance.usage,
                    "foreign_words": utterance.foreign_words,
                    "timings": utterance.facts(),
                }
            )

    async def _tell(
        self, error: ApiError, *, utterance: int | None = None, fatal: bool = False
    ) -> None:
        facts: dict[str, Any] = {"type": "error", **error.body(), "fatal": fatal}
        if utterance is not None:
            facts["utterance"] = utterance
        await self._send(facts)

    async def _send(self, content: dict[str, Any] | bytes) -> None:
        try:
            async with asyncio.timeout(self._limits.write_timeout_seconds):
                if isinstance(content, bytes):
                    await self._websocket.send_bytes(content)
                else:
                    await self._websocket.send_text(json.dumps(content))
        except (TimeoutError, OSError, WebSocketDisconnect, RuntimeError) as error:
            # RuntimeError is what Starlette says after the end of a connection.
            raise ClientGoneError from error

    async def _until_closed(self) -> None:
        while (await self._websocket.receive())["type"] != "websocket.disconnect":
            pass
        raise ClientGoneError


async def _skip(feed: TextFeed) -> None:
    async for _ in feed:
        pass
