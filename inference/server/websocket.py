"""`WS /v1/audio/speech/stream`: text in while it is written, speech out while it is made."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from inference.server.access import access_of
from inference.server.errors import ApiError, describe_problem
from inference.server.service import ClientGoneError, Service, service_of
from inference.server.speech import (
    SpeechSettings,
    check_length,
    check_unicode,
    read_lexicon,
)
from inference.server.speech_stream import words_of
from inference.server.text_feed import TextFeed
from tokenlm.audio.encoders import to_pcm16

PATH = "/v1/audio/speech/stream"
MAX_PENDING = 8
"""Utterances that a client may begin before the first of them has ended."""
MAX_ERRORS = 20
"""After more of them the connection is closed."""

logger = logging.getLogger(__name__)
router = APIRouter()


class ConfigMessage(SpeechSettings):
    """`session.config`: settings of the utterances that begin after it."""

    type: Literal["session.config"] = "session.config"
    api_key: str | None = None
    response_format: Literal["pcm"] = "pcm"


class TextMessage(BaseModel):
    """`input.text`: a piece of the text of an utterance, of any length."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["input.text"]
    text: str


class DoneMessage(BaseModel):
    """`input.done`: the text of the utterance is complete."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["input.done"]


class CloseMessage(BaseModel):
    """`session.close`: nothing more will come."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["session.close"]


ClientMessage = ConfigMessage | TextMessage | DoneMessage | CloseMessage
_ADAPTER: TypeAdapter[ClientMessage] = TypeAdapter(
    Annotated[ClientMessage, Field(discriminator="type")]
)


def read_message(text: str) -> ClientMessage:
    """Parses a message of a client.

    Raises:
        ApiError: 400, it is not valid.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        problem: dict[str, Any] = dict(error.errors()[0])
        problem["loc"] = problem["loc"][1:]  # the type of the message
        reason, param = describe_problem(problem, whole="A message")
        raise ApiError(400, f"The message is not understood: {reason}", param=param) from error


@router.websocket(PATH)
async def stream_speech(websocket: WebSocket) -> None:
    """Speaks what a client writes; see the tables in docs/serve.md."""
    service = service_of(websocket)
    try:
        service.admission.check_open()
        access = access_of(websocket)
        access.check_origin(websocket)
        if (key := websocket.headers.get("authorization")) is not None:
            access.check_key(key)
        if service.num_sockets >= service.config.limits.max_sockets:
            raise ApiError(429, "The server has too many open WebSockets.", code="busy")
    except ApiError as error:
        await websocket.send_denial_response(error.response())
        return
    await websocket.accept()
    service.num_sockets += 1
    try:
        may_speak = key is not None or not access.needs_key
        await _Connection(websocket, service, may_speak=may_speak).run()
    finally:
        service.num_sockets -= 1


@dataclass(frozen=True)
class _PendingSpeech:
    """A text that is spoken once those before it have ended."""

    number: int
    """Of the utterance in its session, from 0."""
    settings: ConfigMessage
    text: TextFeed


class _Connection:
    """One client. A task reads its messages, another speaks one utterance after the other."""

    def __init__(self, websocket: WebSocket, service: Service, *, may_speak: bool) -> None:
        self._websocket = websocket
        self._service = service
        self._limits = service.config.limits
        self._may_speak = may_speak
        self._settings = ConfigMessage()
        self._pending: asyncio.Queue[_PendingSpeech | None] = asyncio.Queue()
        self._open_text: TextFeed | None = None
        self._num_begun = 0
        self._num_ended = 0
        self._num_errors = 0

    async def run(self) -> None:
        """Runs until the session ends."""
        reader = asyncio.create_task(self._read())
        speaker = asyncio.create_task(self._speak())
        tasks = [reader, speaker]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if reader.done() and reader.exception() is None:
                # Nothing more will come; what was sent is still spoken, unless the client leaves.
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
                await self._send_error(error, fatal=True)
            if not errors:
                await self._send({"type": "session.done", "utterances": self._num_ended})
            code = 1000 if not errors else 1008
            async with asyncio.timeout(self._limits.write_timeout_seconds):
                await self._websocket.close(code)
        except (ClientGoneError, RuntimeError, TimeoutError, OSError):
            pass  # the client closed first

    # -- messages of the client ------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                message = read_message(await self._receive())
                if isinstance(message, CloseMessage):
                    self._end_text()
                    self._pending.put_nowait(None)
                    return
                self._handle(message)
            except ApiError as error:
                self._num_errors += 1
                if error.status in (401, 408, 413) or self._num_errors > MAX_ERRORS:
                    raise
                await self._send_error(error)

    async def _receive(self) -> str:
        """The next text message, within the time that a client may be silent."""
        while True:
            try:
                async with asyncio.timeout(self._limits.idle_timeout_seconds):
                    message = await self._websocket.receive()
            except TimeoutError:
                is_listening = self._num_begun > self._num_ended and self._open_text is None
                if is_listening:
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

    def _handle(self, message: ConfigMessage | TextMessage | DoneMessage) -> None:
        if isinstance(message, ConfigMessage):
            self._configure(message)
        if not self._may_speak:
            raise ApiError(
                401,
                "The first message must be a session.config with the api_key.",
                code="invalid_api_key",
            )
        if isinstance(message, TextMessage):
            self._add_text(check_unicode(message.text, "text"))
        elif isinstance(message, DoneMessage):
            if self._open_text is None:
                raise ApiError(400, "There is no text to be done with.", code="no_text")
            self._end_text()

    def _configure(self, settings: ConfigMessage) -> None:
        if settings.api_key is not None:
            access_of(self._websocket).check_key(f"Bearer {settings.api_key}")
            self._may_speak = True
        self._service.check_model(settings.model)
        self._service.check_instruction(settings.instructions)
        read_lexicon(settings.lexicon)
        self._service.check_word_times(settings.word_times)
        self._settings = settings

    def _add_text(self, piece: str) -> None:
        text = self._open_text
        if text is None:
            if self._num_begun - self._num_ended >= MAX_PENDING:
                raise ApiError(
                    413, f"At most {MAX_PENDING} utterances may wait.", code="too_many_utterances"
                )
            pause = self._service.config.sentence_pause_seconds
            if self._settings.duration is not None:  # the text is spoken when it is complete
                pause = None
            text = self._open_text = TextFeed(pause, self._service.spoken_words)
            self._pending.put_nowait(_PendingSpeech(self._num_begun, self._settings, text))
            self._num_begun += 1
        text.put(piece)
        check_length(text.num_characters, self._limits, "text")

    def _end_text(self) -> None:
        if self._open_text is not None:
            self._open_text.complete()
            self._open_text = None

    # -- messages of the server ------------------------------------------------------------------

    async def _speak(self) -> None:
        while (pending := await self._pending.get()) is not None:
            try:
                await self._speak_text(pending)
            except (ClientGoneError, WebSocketDisconnect):
                raise
            except Exception as error:
                if not isinstance(error, ApiError):
                    logger.exception("an utterance failed")
                    error = ApiError(500, "The models failed at this utterance.")
                await self._send_error(error, utterance=pending.number)
                # The rest of this text is not the beginning of another.
                await _skip(pending.text)
            finally:
                self._num_ended += 1

    async def _speak_text(self, pending: _PendingSpeech) -> None:
        settings, limits = pending.settings, self._limits
        text: TextFeed | str = pending.text
        if settings.duration is not None:
            text = "".join([piece async for piece in pending.text])
        async with self._service.speak(
            text,
            voice=settings.voice_name,
            seed=settings.seed,
            speed=settings.speed,
            lexicon=read_lexicon(settings.lexicon),
            **settings.reading,
            word_times=settings.word_times,
            duration=settings.duration,
            instruction=settings.instructions or "",
            request_id=uuid.uuid4().hex,
            requested_at=time.perf_counter(),
            # The models wait for text, too.
            stall_seconds=limits.stall_timeout_seconds + limits.idle_timeout_seconds,
        ) as speech:
            has_started = False
            async for chunk in speech:
                if not has_started:
                    has_started = True
                    await self._send(
                        {
                            "type": "audio.start",
                            "utterance": pending.number,
                            "format": "pcm_s16le",
                            "sample_rate": speech.sample_rate,
                            "channels": 1,
                            "provenance": speech.provenance.fields(),
                        }
                    )
                if words := words_of(chunk):
                    await self._send(
                        {
                            "type": "audio.words",
                            "utterance": pending.number,
                            "words": [pending.text.as_written(word) for word in words],
                        }
                    )
                await self._send(to_pcm16(chunk).tobytes())
            await self._send(
                {
                    "type": "audio.done",
                    "utterance": pending.number,
                    "usage": speech.usage,
                    **speech.word_reports,
                    "timings": speech.timings,
                }
            )

    async def _send_error(
        self, error: ApiError, *, utterance: int | None = None, fatal: bool = False
    ) -> None:
        message: dict[str, Any] = {"type": "error", **error.body(), "fatal": fatal}
        if utterance is not None:
            message["utterance"] = utterance
        await self._send(message)

    async def _send(self, content: dict[str, Any] | bytes) -> None:
        try:
            async with asyncio.timeout(self._limits.write_timeout_seconds):
                if isinstance(content, bytes):
                    await self._websocket.send_bytes(content)
                else:
                    await self._websocket.send_text(json.dumps(content))
        except (TimeoutError, OSError, WebSocketDisconnect, RuntimeError) as error:
            # Starlette raises RuntimeError after the end of a connection.
            raise ClientGoneError from error

    async def _until_closed(self) -> None:
        while (await self._websocket.receive())["type"] != "websocket.disconnect":
            pass
        raise ClientGoneError


async def _skip(text: TextFeed) -> None:
    async for _ in text:
        pass
