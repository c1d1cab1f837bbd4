"""`POST /v1/audio/speech`, as OpenAI has it."""

from __future__ import annotations

import time
import uuid
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from inference.server.access import needs_key
from inference.server.errors import ApiError, documented
from inference.server.limits import check_length
from inference.server.response import MEDIA_TYPES, SpeechResponse
from inference.server.service import service_of
from tokenlm.audio.encoders import available_formats

PATH = "/v1/audio/speech"
MAX_SEED = 2**53 - 1
"""The largest whole number that JSON carries everywhere."""

router = APIRouter(dependencies=[Depends(needs_key)])


class VoiceId(BaseModel):
    """A voice by its id, which is its name."""

    model_config = ConfigDict(extra="forbid")

    id: str


class SpeechSettings(BaseModel):
    """How a text is to be said; null is the same as nothing."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[
        str | None, Field(description="Name of the bundle, which is also the default.")
    ] = None
    voice: Annotated[
        str | VoiceId | None, Field(description="Name of a voice; default the bundle's first.")
    ] = None
    instructions: Annotated[
        str | None, Field(description="Not followed by this server: refused unless empty.")
    ] = None
    speed: Annotated[float, Field(ge=0.25, le=4.0, allow_inf_nan=False)] = 1.0
    seed: Annotated[
        int, Field(ge=0, le=MAX_SEED, description="The same seed gives the same speech.")
    ] = 0
    language: Annotated[
        str | None, Field(description="Changes nothing: a bundle speaks what it speaks.")
    ] = None
    user: Annotated[str | None, Field(description="Changes nothing, and is kept nowhere.")] = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, given: Any) -> Any:
        """Many clients send null for what they do not set."""
        if not isinstance(given, dict):
            return given
        return {
            name: value
            for name, value in given.items()
            if value is not None or name not in cls.model_fields or cls._is_needed(name)
        }

    @classmethod
    def _is_needed(cls, name: str) -> bool:
        return cls.model_fields[name].is_required()

    @property
    def voice_name(self) -> str | None:
        """Name of the voice; None is the first of the bundle."""
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice


class SpeechRequest(SpeechSettings):
    """What is to be said, and how."""

    input: Annotated[str, Field(description="The text.")]
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    stream: Annotated[
        bool | None, Field(description="Changes nothing: bytes always come while they are made.")
    ] = None


def check_sayable(text: str, param: str) -> str:
    """Gives a text back that is well-formed Unicode.

    Raises:
        ApiError: 400, it holds half of a surrogate pair, as JSON can.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, "The text is not well-formed Unicode.", param=param) from error
    return text


def check_instructions(text: str | None) -> None:
    """Raises an ApiError with status 400 where a client gives instructions."""
    if text and text.strip():
        raise ApiError(
            400,
            "This server cannot follow instructions; leave them out.",
            param="instructions",
            code="unsupported",
        )


_AUDIO: dict[str, Any] = {kind: {} for kind in MEDIA_TYPES.values()} | {"text/event-stream": {}}


@router.post(
    PATH,
    response_class=Response,
    responses={
        200: {"description": "The speech, sent while it is made.", "content": _AUDIO},
        **documented(400, 401, 403, 404, 408, 413, 429, 500, 503),
    },
    summary="Speak a text",
)
async def create_speech(body: SpeechRequest, request: Request) -> SpeechResponse:
    """Speaks a text; bytes come while the rest is still being made."""
    service = service_of(request)
    limits = service.config.limits
    service.check_model(body.model)
    check_instructions(body.instructions)
    if body.response_format not in available_formats():
        raise ApiError(
            400,
            f"There is no encoder for {body.response_format!r} here; there is: "
            f"{', '.join(available_formats())}.",
            param="response_format",
            code="unsupported",
        )
    check_length(len(check_sayable(body.input, "input")), limits, "input")
    speak = partial(
        service.speak,
        body.input,
        voice=body.voice_name,
        seed=body.seed,
        speed=body.speed,
        request_id=uuid.uuid4().hex,
        asked_at=time.perf_counter(),
        patience_seconds=limits.stall_timeout_seconds,
    )
    return SpeechResponse(
        speak, body.response_format, body.stream_format, limits.write_timeout_seconds
    )
