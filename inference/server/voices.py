"""`/v1/audio/voices`: listing, adding and deleting voices.

Shapes: S samples.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
import pathlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, BinaryIO, Literal

from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, UploadFile
from pydantic import BaseModel

from inference.consent.challenge import Challenge
from inference.consent.evidence import ConsentError, Evidence
from inference.consent.manager import ConsentRefusedError, HashedRecording
from inference.server.access import access_of, require_access
from inference.server.errors import ApiError, as_sentence, error_responses
from inference.server.service import Service, service_of
from inference.server.settings import Limits
from inference.server.speech import check_unicode
from inference.server.voice_store import (
    VoiceExistsError,
    VoiceNameError,
    VoiceRecord,
    VoiceStoreFullError,
    VoiceStoreReadOnlyError,
    check_name,
)
from tokenlm.audio.io import AudioError, UnknownKindError, read_recording
from tokenlm.synthesis import VoiceError

PATH = "/v1/audio/voices"
PAGE, MAX_PAGE = 100, 1000
"""Voices on a page of the list by default, and at most; bare names are up to MAX_PAGE."""
MAX_TEXT = 1000
"""Characters of the text of a recording, of a person's name, and of a statement."""

MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 4_000, 384_000
"""Sample rates of recordings, in hertz."""

ConsentForm = Annotated[
    str,
    Form(
        description='JSON: {"who": "the person whose voice it is", "statement": "what they agreed '
        'to"}, or {"who": "...", "id": "of the sentence that they said"}',
        max_length=4 * MAX_TEXT,
    ),
]
ConsentRecordingForm = Annotated[
    UploadFile | None,
    File(description="The recording of the sentence, where consent has an id."),
]

logger = logging.getLogger(__name__)
router = APIRouter(dependencies=[Depends(require_access)])


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


@router.get(PATH, responses=error_responses(400, 401, 403), summary="List voices")
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
    show_consent = access_of(request).needs_key
    return await asyncio.to_thread(
        _list, service_of(request), limit, after, legacy=legacy, show_consent=show_consent
    )


def _list(
    service: Service, limit: int | None, after: str | None, *, legacy: bool, show_consent: bool
) -> VoiceList:
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
            data.append(_describe(record, show_consent=show_consent))
    page = data[:limit]
    return VoiceList(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(data) > limit,
        voices=shown if legacy else [VoiceName(id=name, name=name) for name in shown],
    )


def _describe(record: VoiceRecord, *, show_consent: bool) -> VoiceBody:
    """Describes a voice to a client. Without keys, everybody would read who consented to what."""
    consent = record.consent if show_consent and record.consent.who else None
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
    responses=error_responses(400, 401, 403, 408, 409, 413, 429, 500, 503),
    summary="Add a voice",
)
async def add_voice(
    request: Request,
    audio_sample: Annotated[
        UploadFile, File(description="A recording of the voice, 5 to 10 seconds of it.")
    ],
    name: Annotated[str, Form(description="Letters, digits, dashes and underscores.")],
    consent: ConsentForm = "",
    consent_recording: ConsentRecordingForm = None,
    ref_text: Annotated[
        str, Form(description="What the recording says; better speech if given.")
    ] = "",
) -> VoiceBody:
    """Makes a voice of a recording, with the consent of the person who speaks in it."""
    service = service_of(request)
    claim = check_upload(service, consent, consent_recording)
    if len(check_unicode(ref_text, "ref_text")) > MAX_TEXT:
        raise ApiError(413, f"The text has more than {MAX_TEXT} characters.", param="ref_text")
    async with upload_slot(service):
        record = await asyncio.to_thread(_add, service, audio_sample, name, ref_text, claim)
    return _describe(record, show_consent=access_of(request).needs_key)


def _add(
    service: Service, sample: UploadFile, name: str, ref_text: str, claim: ConsentClaim | None
) -> VoiceRecord:
    try:
        own = (*service.bundle_voices, *service.config.voice_aliases)
        if check_name(name).lower() in {voice.lower() for voice in own}:
            raise VoiceExistsError(f"the server has a voice {name!r} of its own.")
        service.store.check_free(name)
        recording = read_recording_upload(sample.file, service.config.limits)
        evidence = check_claim(service, claim, recording)
        voice = service.synthesizer.prepare_voice(
            recording.waveform, ref_text or None, sample_rate=recording.sample_rate, name=name
        )
        if evidence is not None:
            voice = service.consent.seal(voice, evidence)
        return service.store.add(
            voice,
            who="" if evidence is None else evidence.who,
            statement="" if evidence is None else evidence.statement,
            audio_sha256=recording.sha256,
            seconds=recording.seconds,
        )
    except VoiceNameError as error:
        raise ApiError(400, as_sentence(error), param="name", code="invalid_name") from error
    except VoiceExistsError as error:
        raise ApiError(409, as_sentence(error), param="name", code="voice_exists") from error
    except VoiceStoreReadOnlyError as error:
        raise _read_only() from error
    except OSError as error:
        logger.exception("a voice could not be kept")
        raise ApiError(
            500, f"The voice could not be kept: {error.strerror or 'the disk failed'}."
        ) from error
    except VoiceStoreFullError as error:
        raise ApiError(403, as_sentence(error), code="too_many_voices") from error
    except VoiceError as error:
        raise ApiError(
            400, as_sentence(error), param="audio_sample", code="invalid_audio"
        ) from error
    except ConsentError as error:
        logger.exception("evidence of consent could not be signed")
        raise ApiError(500, "The evidence of consent could not be signed.") from error
    except ValueError as error:
        raise ApiError(400, as_sentence(error), code="invalid_voice") from error


@router.delete(
    PATH + "/{voice_id}", responses=error_responses(400, 401, 403, 404), summary="Delete a voice"
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


@dataclass(frozen=True, kw_only=True)
class ConsentClaim:
    """What a client says of the consent to a recording."""

    who: str
    statement: str
    """Empty where it is that of the challenge."""
    challenge: str = ""
    """Id of the challenge; empty where nothing was spoken."""
    recording: UploadFile | None = None
    """Of the sentence of the challenge."""


def check_upload(
    service: Service, consent: str, recording: UploadFile | None = None
) -> ConsentClaim | None:
    """The consent to a recording as a client states it, if one is taken now.

    Returns:
        None where there is none and the policy is `off`.

    Raises:
        ApiError: 403, clients of this server send none, or the consent has to be spoken; 400, it is
            not complete; 503, the server is stopping.
    """
    service.admission.check_open()
    _check_uploads(service)
    policy = service.consent.policy
    if policy == "off" and not consent and recording is None:
        return None
    claim = read_consent(consent, recording)
    if policy == "required" and not claim.challenge:
        raise ApiError(
            403,
            "This server asks for spoken consent: POST /v1/audio/voice_consents draws a sentence; "
            'send its id as "id" of consent, and the recording of it as consent_recording.',
            param="consent",
            code="consent_required",
        )
    return claim


def check_claim(
    service: Service, claim: ConsentClaim | None, sample: UploadedRecording
) -> Evidence | None:
    """Evidence of the consent to a recording; a spoken one is listened to.

    Raises:
        ApiError: 403, it is not accepted; 400, it is of another person, or its recording cannot be
            read; 503, the server cannot listen.
    """
    if claim is None:
        return None
    manager = service.consent
    if not claim.challenge:
        return manager.stated(claim.who, claim.statement, sample.sha256)
    assert claim.recording is not None
    try:
        sentence = read_recording_upload(claim.recording.file, service.config.limits)
    except ApiError as error:
        error.param = "consent_recording"
        raise
    if (reason := manager.why_not_verifiable()) is not None:
        logger.error("spoken consent cannot be verified: %s", reason)
        raise ApiError(
            503, "This server cannot verify spoken consent; its log says why.", code="no_verifier"
        )
    try:
        challenge = manager.challenges.take(claim.challenge)
        _check_person(challenge, claim)
        return manager.spoken(challenge, sentence, sample)
    except ConsentRefusedError as error:
        raise ApiError(
            403, as_sentence(error), param="consent_recording", code="consent_refused"
        ) from error
    except ConsentError as error:
        raise ApiError(403, as_sentence(error), param="consent", code="consent_expired") from error


def _check_person(challenge: Challenge, claim: ConsentClaim) -> None:
    if " ".join(claim.who.split()) != challenge.who:
        raise ApiError(
            400,
            f"The sentence was drawn for {challenge.who!r}, not for {claim.who[:80]!r}.",
            param="consent",
        )


@asynccontextmanager
async def upload_slot(service: Service) -> AsyncIterator[None]:
    """Waits until no other recording is being worked on.

    Raises:
        ApiError: 429, too many wait already.
    """
    if service.num_uploads >= service.config.limits.max_uploads:
        raise ApiError(
            429,
            f"{service.num_uploads} recordings are being worked on already; try again later.",
            code="busy",
            headers={"Retry-After": "5"},
        )
    service.num_uploads += 1
    try:
        async with service.uploads:
            yield
    finally:
        service.num_uploads -= 1


def read_consent(text: str, recording: UploadFile | None = None) -> ConsentClaim:
    """Reads a consent: the person, and what they agreed to or the id of what they said.

    Raises:
        ApiError: 400, something is missing.
    """
    needed = (
        'consent is JSON that says whose voice it is and what they agreed to: {"who": "...", '
        '"statement": "..."}, or with the "id" of a sentence that was drawn and a recording of it'
    )
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or set(fields) not in (
        {"who", "statement"}, {"who", "id"}, {"who", "statement", "id"},
    ):  # fmt: skip
        raise ApiError(400, f"Nothing without consent: {needed}.", param="consent")
    texts = {}
    for key, value in fields.items():
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
            raise ApiError(
                400,
                f"{key!r} of consent is a text of 1 to {MAX_TEXT} characters: {needed}.",
                param="consent",
            )
        texts[key] = check_unicode(value.strip(), "consent")
    if ("id" in texts) != (recording is not None):
        raise ApiError(
            400,
            "The id of a sentence in consent and its recording, consent_recording, go together.",
            param="consent" if recording is not None else "consent_recording",
        )
    return ConsentClaim(
        who=texts["who"],
        statement=texts.get("statement", ""),
        challenge=texts.get("id", ""),
        recording=recording,
    )


def _check_uploads(service: Service) -> None:
    if not service.config.uploads:
        raise ApiError(403, "Voices of this server cannot be changed by clients.")


def _read_only() -> ApiError:
    return ApiError(
        403,
        "Voices of this server cannot be changed: its folder of voices cannot be written to.",
        code="read_only",
    )


class UploadedRecording(HashedRecording):
    """A recording that a client sent."""

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.waveform.shape[0] / self.sample_rate


def read_recording_upload(file: BinaryIO, limits: Limits) -> UploadedRecording:
    """Reads an audio file of any kind that `tokenlm.audio.load_audio` decodes without programs.

    A small file may decode to hours: it is decoded block by block, and never beyond the limit.

    Args:
        file: at its start.
        limits: for bytes and seconds.

    Raises:
        ApiError: 413 for too many bytes or seconds, 400 for anything that is not an audio file.
    """
    with saved_upload(file, limits) as (path, digest):
        try:
            waveform, rate = read_recording(
                path, name="it", accept=partial(check_size, limits), programs=False
            )
        except UnknownKindError as error:
            # How to install more decoders concerns the operator, not the client.
            logger.info("a recording that was sent cannot be read: %s", error)
            raise unusable(f"it cannot be read as audio: {error.reason.rstrip('.')}") from error
        except AudioError as error:
            raise unusable(str(error).rstrip(".")) from error
    return UploadedRecording(waveform=waveform, sample_rate=rate, sha256=digest)


@contextmanager
def saved_upload(file: BinaryIO, limits: Limits) -> Iterator[tuple[str, str]]:
    """A file that a client sent, under a name, and its SHA-256; gone when the block ends.

    Args:
        file: at its start.
        limits: for bytes.

    Raises:
        ApiError: 413 for too many bytes, 400 for none.
    """
    digest = hashlib.sha256()
    size = 0
    while block := file.read(1 << 20):
        digest.update(block)
        size += len(block)
        if size > limits.max_upload_bytes:
            raise ApiError(
                413,
                f"The recording is larger than the {limits.max_upload_bytes} bytes taken here.",
                param="audio_sample",
                code="too_large",
            )
    if size == 0:
        raise unusable("it is empty")
    file.seek(0)
    # Decoders want a file with a name, which Windows does not open while it is open to be written.
    with tempfile.TemporaryDirectory(prefix="tokenlm-") as folder:
        path = pathlib.Path(folder) / "recording"
        with path.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        yield str(path), digest.hexdigest()


def check_size(limits: Limits, rate: int, channels: int, seconds: float) -> None:
    """Checks a recording before its samples are kept; the length in its header is not trusted."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise unusable(f"it has {channels} channels; at most {MAX_CHANNELS} are taken")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise unusable(f"its sample rate is {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz are taken")
    if seconds > limits.max_upload_seconds:
        raise ApiError(
            413,
            f"The recording is longer than the {limits.max_upload_seconds:g} s that are "
            "taken here; 5 to 10 s are enough.",
            param="audio_sample",
            code="too_long",
        )


def unusable(reason: str) -> ApiError:
    """The error for a recording that cannot be used."""
    return ApiError(
        400,
        f"The recording cannot be used: {reason}.",
        param="audio_sample",
        code="invalid_audio",
    )
