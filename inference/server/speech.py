"""`POST /v1/audio/speech`, as OpenAI has it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from pydantic import Discriminator, Field, Tag
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inference.server.access import require_access
from inference.server.errors import ApiError, as_sentence, error_responses
from inference.server.service import (
    ClientGoneError,
    Number,
    RequestBody,
    Service,
    VoiceDesign,
    Whole,
    service_of,
)
from inference.server.settings import Limits
from inference.server.speech_stream import SpeechStream, words_of
from tokenlm.audio.encoders import Encoder, available_formats, build_encoder
from tokenlm.synthesis.duration import MAX_DURATION
from tokenlm.text.markup import MAX_PAUSE_SECONDS
from tokenlm.text.pronunciation import LexiconError, UserLexicon
from tokenlm.text.script import LINE_PAUSE, ScriptError, ScriptLine, read_dialogue, read_lines

PATH = "/v1/audio/speech"
MAX_SEED = 2**53 - 1
"""The largest integer that JSON carries exactly everywhere."""
MAX_LINES = 500
"""Lines of a script."""
MAX_INSTRUCTION = 500
"""Characters of an instruction."""
MAX_LEXICON = 1000
"""Words of the lexicon of a request."""
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

logger = logging.getLogger(__name__)
router = APIRouter(dependencies=[Depends(require_access)])


class VoiceId(RequestBody):
    """A voice by its id, which is its name."""

    id: str


def _kind_of_voice(voice: object) -> str | None:
    if isinstance(voice, str):
        return "(name)"
    if isinstance(voice, VoiceId) or (isinstance(voice, dict) and "id" in voice):
        return "(id)"
    return "(design)" if isinstance(voice, dict | VoiceDesign) else None


VoiceChoice = Annotated[
    Annotated[str, Tag("(name)")]
    | Annotated[VoiceId, Tag("(id)")]
    | Annotated[VoiceDesign, Tag("(design)")],
    Discriminator(
        _kind_of_voice,
        custom_error_type="kind_of_voice",
        custom_error_message="a voice is a name, a mixture, an object with an id, or a design.",
    ),
]
"""Which voice is to speak. A mistake is described for the kind that is meant, not for each."""


class SpeechSettings(RequestBody):
    """How a text is to be said; null is the same as nothing."""

    model: Annotated[
        str | None, Field(description="Name of the bundle, which is also the default.")
    ] = None
    voice: Annotated[
        VoiceChoice | None,
        Field(
            description="Name of a voice, or a mixture: ann:0.7+bob:0.3, or how to design one;"
            " default the bundle's first."
        ),
    ] = None
    instructions: Annotated[
        str | None,
        Field(
            max_length=MAX_INSTRUCTION, description="How to speak, for a bundle that follows it."
        ),
    ] = None
    speed: Annotated[Number, Field(ge=0.25, le=4.0, allow_inf_nan=False)] = 1.0
    seed: Annotated[
        Whole, Field(ge=0, le=MAX_SEED, description="The same seed gives the same speech.")
    ] = 0
    lexicon: Annotated[
        dict[str, str],
        Field(
            max_length=MAX_LEXICON,
            description="Words and their pronunciations, in phones of the CMU dictionary or /IPA/.",
        ),
    ] = {}
    markup: Annotated[
        bool,
        Field(description="Whether the text may hold pauses and SSML; else brackets are text."),
    ] = True
    sentence_gap: Annotated[
        Number | None,
        Field(ge=0, le=MAX_PAUSE_SECONDS, description="Seconds of silence after each sentence."),
    ] = None
    paragraph_gap: Annotated[
        Number | None,
        Field(ge=0, le=MAX_PAUSE_SECONDS, description="Seconds of silence after each paragraph."),
    ] = None
    word_times: Annotated[
        bool, Field(description="Whether to send when each word is said, with the speech.")
    ] = False
    duration: Annotated[
        Number | None,
        Field(gt=0, le=MAX_DURATION, description="Seconds that the speech is to last."),
    ] = None
    language: Annotated[
        str | None, Field(description="Changes nothing: a bundle speaks what it speaks.")
    ] = None
    user: Annotated[str | None, Field(description="Changes nothing, and is kept nowhere.")] = None

    @property
    def reading(self) -> dict[str, Any]:
        """How the text is read: options of `Service.speak`."""
        return {
            "markup": self.markup,
            "sentence_gap": self.sentence_gap,
            "paragraph_gap": self.paragraph_gap,
        }

    @property
    def voice_name(self) -> str | VoiceDesign | None:
        """Name of the voice, or how to design it; None is the first of the bundle."""
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice


class LineBody(RequestBody):
    """A line of a script."""

    text: str
    voice: Annotated[
        str | None, Field(description="Name of a voice, or of a speaker; default the request's.")
    ] = None
    style: Annotated[
        str | None,
        Field(max_length=MAX_INSTRUCTION, description="In place of the request's instructions."),
    ] = None
    seed: Annotated[Whole | None, Field(ge=0, le=MAX_SEED)] = None
    speed: Annotated[Number, Field(ge=0.25, le=4.0, description="Factor of the request's.")] = 1.0
    pause: Annotated[
        Number, Field(ge=0, le=MAX_PAUSE_SECONDS, description="Seconds of silence after the line.")
    ] = LINE_PAUSE


def _kind_of_input(text: object) -> str | None:
    return {str: "(text)", list: "(lines)"}.get(type(text))


class SpeechRequest(SpeechSettings):
    """What is to be said, and how."""

    input: Annotated[
        Annotated[str, Tag("(text)")] | Annotated[list[LineBody], Tag("(lines)")],
        Discriminator(
            _kind_of_input,
            custom_error_type="kind_of_input",
            custom_error_message="it is a text, or a list of the lines of a script.",
        ),
        Field(description="The text, or the lines of a script."),
    ]
    voices: Annotated[
        dict[str, str] | None,
        Field(
            max_length=MAX_LINES,
            description="The voice of each speaker; with it, a text is a dialogue (Anna: Hello.).",
        ),
    ] = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    stream: Annotated[
        bool | None, Field(description="Changes nothing: bytes always come while they are made.")
    ] = None


def check_unicode(text: str, param: str) -> str:
    """Returns a text that is well-formed Unicode.

    Raises:
        ApiError: 400, it holds half of a surrogate pair, as JSON can.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, "The text is not well-formed Unicode.", param=param) from error
    return text


def read_input(service: Service, body: SpeechRequest) -> str | list[ScriptLine]:
    """The text of a request, or the lines of its script.

    Raises:
        ApiError: 400, the script is not understood, or asks for what the server cannot do.
    """
    if isinstance(body.input, str) and body.voices is None:
        return body.input
    try:
        if isinstance(body.input, str):
            lines = read_dialogue(body.input, body.voices)
        else:
            for number, line in enumerate(body.input):
                service.check_instruction(line.style, f"input[{number}].style")
            lines = read_lines([line.model_dump() for line in body.input], body.voices)
    except ScriptError as error:
        raise ApiError(400, as_sentence(error), param="input") from error
    if not 1 <= len(lines) <= MAX_LINES:
        raise ApiError(
            400, f"A script has from 1 to {MAX_LINES} lines, not {len(lines)}.", param="input"
        )
    return lines


def check_length(num_characters: int, limits: Limits, param: str) -> None:
    """Checks the length of a text.

    Raises:
        ApiError: 413.
    """
    if num_characters > limits.max_text_characters:
        raise ApiError(
            413,
            f"The text has {num_characters} characters; at most {limits.max_text_characters} are "
            "taken at once. Cut it into several requests.",
            param=param,
            code="text_too_long",
        )


def read_lexicon(entries: dict[str, str]) -> UserLexicon:
    """The lexicon of a request.

    Raises:
        ApiError: 400, an entry cannot be read.
    """
    try:
        return UserLexicon.of(entries)
    except LexiconError as error:
        raise ApiError(400, as_sentence(error), param="lexicon") from error


class SpeechResponse(Response):
    """Streams speech as the body of a response.

    The status is sent with the first bytes: every error before them is a proper response. The next
    chunk is requested when the client has taken the last: a slow client slows down its own stream
    only.
    """

    def __init__(
        self,
        speak: Callable[[], AbstractAsyncContextManager[SpeechStream]],
        audio_format: str,
        stream_format: Literal["audio", "sse"],
        write_timeout_seconds: float,
    ) -> None:
        """Creates a response; nothing is spoken before it is called.

        Args:
            speak: opens the speech, and closes it when the response ends.
            audio_format: a key of `MEDIA_TYPES`.
            stream_format: bytes of sound, or events that hold them.
            write_timeout_seconds: longest time that the client may take for one chunk.
        """
        super().__init__()
        self._speak = speak
        self._audio_format = audio_format
        self._stream_format = stream_format
        self._write_timeout_seconds = write_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. A client that leaves ends its stream at once, also in the queue."""
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
                # The body stays unfinished, and the web server closes the connection.
                logger.info("a client takes nothing any more")
            except _ReportedError as error:
                # The body has ended properly: the connection serves the next request.
                logger.error("an utterance failed after it had begun", exc_info=error.__cause__)

    async def _respond(self, send: Send) -> None:
        async with self._speak() as speech:
            make = self._events if self._is_sse else self._bytes
            started = False
            try:
                async with aclosing(make(speech)) as body:
                    async for data in body:
                        if not started:
                            started = True
                            await self._send(send, self._head(speech))
                        await self._send(send, _body(data, more=True))
            except (ApiError, ClientGoneError):
                raise
            except _ReportedError:
                await self._send(send, _body(b"", more=False))
                raise
            except Exception as error:
                if started:
                    raise  # the body ends too early, which tells the client
                logger.exception("the models failed at %s", speech.provenance.request_id)
                raise ApiError(500, "The models failed at this request.") from error
            await self._send(send, _body(b"", more=False))

    @property
    def _is_sse(self) -> bool:
        return self._stream_format == "sse"

    def _head(self, speech: SpeechStream) -> dict[str, Any]:
        kind = "text/event-stream" if self._is_sse else MEDIA_TYPES[self._audio_format]
        headers = {
            "Content-Type": kind,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # a proxy that collects the body would undo the streaming
            "X-Sample-Rate": str(speech.sample_rate),
            **speech.provenance.headers,
        }
        if speech.foreign_words:
            headers[FOREIGN_WORDS] = _header_value(speech.foreign_words)
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        return {"type": "http.response.start", "status": 200, "headers": raw}

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._write_timeout_seconds):
                await send(message)
        except (TimeoutError, OSError) as error:
            raise ClientGoneError from error

    def _encoder(self, speech: SpeechStream) -> Encoder:
        return build_encoder(self._audio_format, speech.sample_rate, speech.provenance.comment)

    async def _bytes(self, speech: SpeechStream) -> AsyncGenerator[bytes, None]:
        encoder = self._encoder(speech)
        async for chunk in speech:
            if data := encoder.encode(chunk):
                yield data
        if data := encoder.finish():
            yield data

    async def _events(self, speech: SpeechStream) -> AsyncGenerator[bytes, None]:
        """Events of `stream_format: sse`; an error after the first is an event, too."""
        encoder = self._encoder(speech)
        has_started = False
        try:
            async for chunk in speech:
                if words := words_of(chunk):
                    has_started = True
                    yield _event({"type": "speech.words", "words": words})
                if data := encoder.encode(chunk):
                    has_started = True
                    yield _audio_event(data)
            if data := encoder.finish():
                yield _audio_event(data)
        except Exception as error:
            if not has_started:
                raise
            shown = error if isinstance(error, ApiError) else ApiError(500, "The models failed.")
            yield _event({"type": "error", **shown.body()})
            raise _ReportedError from error
        yield _event(
            {
                "type": "speech.audio.done",
                "usage": speech.usage,
                **speech.word_reports,
                "provenance": speech.provenance.fields(),
                "timings": speech.timings,
            }
        )


class _ReportedError(Exception):
    """The client has been sent the error that is the cause of this one."""


def _body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _header_value(words: Sequence[str]) -> str:
    """The first of the words, percent-encoded and separated by commas."""
    shown = ""
    for word in words:
        more = quote(word[:_MAX_WORD], safe="")
        if len(shown) + 2 + len(more) > _MAX_HEADER:
            break
        shown += f", {more}" if shown else more
    return shown


def _event(fields: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(fields)}\n\n".encode()


def _audio_event(data: bytes) -> bytes:
    return _event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode("ascii")})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


_AUDIO: dict[str, Any] = {kind: {} for kind in MEDIA_TYPES.values()} | {"text/event-stream": {}}


@router.post(
    PATH,
    response_class=Response,
    responses={
        200: {"description": "The speech, sent while it is made.", "content": _AUDIO},
        **error_responses(400, 401, 403, 404, 408, 413, 429, 500, 503),
    },
    summary="Speak a text",
)
async def create_speech(body: SpeechRequest, request: Request) -> SpeechResponse:
    """Speaks a text; bytes come while the rest is still being made."""
    service = service_of(request)
    limits = service.config.limits
    service.check_model(body.model)
    instruction = service.check_instruction(body.instructions)
    if body.response_format not in available_formats():
        raise ApiError(
            400,
            f"There is no encoder for {body.response_format!r} here; there is: "
            f"{', '.join(available_formats())}.",
            param="response_format",
            code="unsupported",
        )
    text = read_input(service, body)
    parts = [text] if isinstance(text, str) else [line.text for line in text]
    if not isinstance(text, str) and (body.word_times or body.duration is not None):
        raise ApiError(
            400,
            "Times of words and a duration are for a text, not for a script.",
            param="word_times" if body.word_times else "duration",
            code="unsupported",
        )
    check_length(sum(len(check_unicode(part, "input")) for part in parts), limits, "input")
    service.check_word_times(body.word_times)
    if body.word_times and body.stream_format != "sse":
        raise ApiError(
            400,
            "Times of words come as events beside the sound: ask for the stream_format 'sse'.",
            param="word_times",
            code="unsupported",
        )
    speak = partial(
        service.speak,
        text,
        voice=body.voice_name,
        seed=body.seed,
        speed=body.speed,
        lexicon=read_lexicon(body.lexicon),
        **body.reading,
        word_times=body.word_times,
        duration=body.duration,
        instruction=instruction,
        request_id=uuid.uuid4().hex,
        requested_at=time.perf_counter(),
        stall_seconds=limits.stall_timeout_seconds,
    )
    return SpeechResponse(
        speak, body.response_format, body.stream_format, limits.write_timeout_seconds
    )
