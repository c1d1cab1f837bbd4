"""`/v1/audio/voices`: listing, adding and deleting voices."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, UploadFile
from pydantic import BaseModel

from inference.server.access import needs_key
from inference.server.errors import ApiError, documented, sentence
from inference.server.service import Service, service_of
from inference.server.speech import check_sayable
from inference.server.upload import read_upload
from inference.server.voice_store import (
    VoiceExistsError,
    VoiceNameError,
    VoiceRecord,
    VoiceStoreFullError,
    VoiceStoreReadOnlyError,
    check_name,
)
from tokenlm.synthesis import VoiceError

PATH = "/v1/audio/voices"
PAGE, MAX_PAGE = 100, 1000
"""Voices that one answer describes unless told, and at most; names alone are up to MAX_PAGE."""
MAX_TEXT = 1000
"""Characters of the text of a recording, of a person's name, and of a statement."""

_log = logging.getLogger(__name__)
router = APIRouter(dependencies=[Depends(needs_key)])


class ConsentBody(BaseModel):
    """The consent that is kept with a voice."""

    who: str
    statement: str
    date: str
    audio_sha256: str


class VoiceBody(BaseModel):
    """A voice."""

    id: str
    object: Literal["audio.voice"] = "audio.voice"
    name: str
    type: Literal["builtin", "audio_sample"]
    created_at: int
    seconds: float | None = None
    ref_text: str | None = None
    consent: ConsentBody | None = None
    """Of a voice that was added, on a server with keys."""


class VoiceName(BaseModel):
    """A voice as Open WebUI and clients of Kokoro list it."""

    id: str
    name: str


class VoiceList(BaseModel):
    """A page of voices, in the order of their names."""

    object: Literal["list"] = "list"
    data: list[VoiceBody]
    first_id: str | None
    last_id: str | None
    has_more: bool
    voices: list[VoiceName] | list[str]
    """The names alone, for those who do not turn pages."""


class VoiceDeleted(BaseModel):
    """A voice that is gone."""

    id: str
    object: Literal["audio.voice"] = "audio.voice"
    deleted: Literal[True] = True


@router.get(PATH, responses=documented(400, 401, 403), summary="List voices")
async def list_voices(
    request: Request,
    limit: Annotated[
        int | None, Query(ge=1, le=MAX_PAGE, description="Voices at most; 100 unless told.")
    ] = None,
    after: Annotated[str | None, Query(description="Id of the last voice seen.")] = None,
    legacy: Annotated[
        bool, Query(description="Whether `voices` has bare names, as older clients read them.")
    ] = False,
) -> VoiceList:
    """Lists the voices of the bundle and those that were added, by name."""
    return await asyncio.to_thread(_list, service_of(request), limit, after, legacy)


def _list(service: Service, limit: int | None, after: str | None, legacy: bool) -> VoiceList:
    names = sorted({*service.store.names(), *service.bundle_voices})
    if after is not None:
        names = [name for name in names if name > after]
    shown = names[: limit or MAX_PAGE]
    limit, data = limit or PAGE, []
    for name in names:
        if len(data) > limit:
            break
        if name in service.bundle_voices:
            data.append(VoiceBody(id=name, name=name, type="builtin", created_at=0))
        elif (record := service.store.record(name)) is not None:
            data.append(_describe(record, service))
    page = data[:limit]
    return VoiceList(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(data) > limit,
        voices=shown if legacy else [VoiceName(id=name, name=name) for name in shown],
    )


def _describe(record: VoiceRecord, service: Service) -> VoiceBody:
    """What a client is told of a voice; who consented to what is not for everybody."""
    consent = record.consent if service.keys.needed else None
    return VoiceBody(
        id=record.name,
        name=record.name,
        type="audio_sample",
        created_at=record.created_at,
        seconds=record.seconds,
        ref_text=record.ref_text,
        consent=None if consent is None else ConsentBody(**dataclasses.asdict(consent)),
    )


@router.post(
    PATH,
    status_code=201,
    responses=documented(400, 401, 403, 408, 409, 413, 429, 500, 503),
    summary="Add a voice",
)
async def add_voice(
    request: Request,
    audio_sample: Annotated[
        UploadFile, File(description="A recording of the voice, 5 to 10 seconds of it.")
    ],
    name: Annotated[str, Form(description="Letters, digits, dashes and underscores.")],
    consent: Annotated[
        str,
        Form(
            description='JSON: {"who": "the person whose voice it is", "statement": "what they '
            'agreed to"}',
            max_length=4 * MAX_TEXT,
        ),
    ],
    ref_text: Annotated[
        str, Form(description="What the recording says; better speech if given.")
    ] = "",
) -> VoiceBody:
    """Makes a voice of a recording, with the consent of the person who speaks in it."""
    service = service_of(request)
    service.admission.check_open()
    _check_uploads(service)
    who, statement = read_consent(consent)
    if len(check_sayable(ref_text, "ref_text")) > MAX_TEXT:
        raise ApiError(413, f"The text has more than {MAX_TEXT} characters.", param="ref_text")
    if service.num_uploads >= service.config.limits.max_uploads:
        raise ApiError(
            429,
            f"{service.num_uploads} recordings are being made voices already; try again later.",
            code="busy",
            headers={"Retry-After": "5"},
        )
    service.num_uploads += 1
    try:
        async with service.uploads:
            record = await asyncio.to_thread(
                _add, service, audio_sample, name, ref_text, who, statement
            )
    finally:
        service.num_uploads -= 1
    return _describe(record, service)


def _add(
    service: Service, sample: UploadFile, name: str, ref_text: str, who: str, statement: str
) -> VoiceRecord:
    try:
        own = (*service.bundle_voices, *service.config.voice_aliases)
        if check_name(name).lower() in {voice.lower() for voice in own}:
            raise VoiceExistsError(f"the server has a voice {name!r} of its own.")
        service.store.check_free(name)
        recording = read_upload(sample.file, service.config.limits)
        voice = service.synthesizer.prepare_voice(
            recording.waveform, ref_text or None, sample_rate=recording.sample_rate, name=name
        )
        return service.store.add(
            voice,
            who=who,
            statement=statement,
            audio_sha256=recording.sha256,
            seconds=recording.seconds,
        )
    except VoiceNameError as error:
        raise ApiError(400, sentence(error), param="name", code="invalid_name") from error
    except VoiceExistsError as error:
        raise ApiError(409, sentence(error), param="name", code="voice_exists") from error
    except VoiceStoreReadOnlyError as error:
        raise _read_only() from error
    except OSError as error:
        _log.exception("a voice could not be kept")
        raise ApiError(
            500, f"The voice could not be kept: {error.strerror or 'the disk failed'}."
        ) from error
    except VoiceStoreFullError as error:
        raise ApiError(403, sentence(error), code="too_many_voices") from error
    except VoiceError as error:
        raise ApiError(400, sentence(error), param="audio_sample", code="invalid_audio") from error
    except ValueError as error:
        raise ApiError(400, sentence(error), code="invalid_voice") from error


@router.delete(
    PATH + "/{voice_id}", responses=documented(400, 401, 403, 404), summary="Delete a voice"
)
async def delete_voice(
    request: Request, voice_id: Annotated[str, Path(max_length=200)]
) -> VoiceDeleted:
    """Deletes a voice that was added, with its record."""
    service = service_of(request)
    _check_uploads(service)
    if voice_id in service.bundle_voices:
        raise ApiError(403, f"The voice {voice_id!r} belongs to the bundle.", param="voice_id")
    try:
        was_there = await asyncio.to_thread(service.store.delete, voice_id)
    except VoiceStoreReadOnlyError as error:
        raise _read_only() from error
    if not was_there:
        raise ApiError(
            404,
            f"There is no voice {voice_id[:80]!r}.",
            param="voice_id",
            code="voice_not_found",
        )
    return VoiceDeleted(id=voice_id)


def read_consent(text: str) -> tuple[str, str]:
    """Who agrees, and to what.

    Raises:
        ApiError: 400, it is not said.
    """
    needed = (
        'consent is JSON that says whose voice it is and what they agreed to: {"who": "...", '
        '"statement": "..."}'
    )
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or set(facts) != {"who", "statement"}:
        raise ApiError(400, f"No voice without consent: {needed}.", param="consent")
    said = []
    for key in ("who", "statement"):
        value = facts[key]
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
            raise ApiError(
                400,
                f"{key!r} of consent is a text of 1 to {MAX_TEXT} characters: {needed}.",
                param="consent",
            )
        said.append(check_sayable(value.strip(), "consent"))
    return said[0], said[1]


def _check_uploads(service: Service) -> None:
    if not service.config.uploads:
        raise ApiError(403, "Voices of this server cannot be changed by clients.")


def _read_only() -> ApiError:
    return ApiError(
        403,
        "Voices of this server cannot be changed: its folder of voices cannot be written to.",
        code="read_only",
    )
