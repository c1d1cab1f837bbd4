"""`/v1/audio/edits`: other words in a recording that a client sends.

Nothing of the recording is kept.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile

from inference.edit_options import edit_request
from inference.server.access import require_access
from inference.server.errors import ApiError, as_sentence, error_responses
from inference.server.service import Service, service_of
from inference.server.speech import check_unicode
from inference.server.speech_stream import Provenance
from inference.server.voices import (
    MAX_TEXT,
    ConsentClaim,
    ConsentForm,
    ConsentRecordingForm,
    UploadedRecording,
    check_claim,
    check_size,
    check_upload,
    saved_upload,
    unusable,
    upload_slot,
)
from tokenlm.audio.io import AudioError
from tokenlm.audio.recording import Recording
from tokenlm.audio.splicing import channel_gains, common_channel
from tokenlm.synthesis.editing import EditRequest
from tokenlm.synthesis.synthesizer import choose_seed

PATH = "/v1/audio/edits"
SPAN, TEXT = "X-Tokenlm-Span", "X-Tokenlm-Text"
MAX_RECORDED_TEXT = 10_000
"""Characters of what a recording says; minutes of fast speech have fewer."""
MAX_HEADER = 2000
"""Characters of the header with the new text, percent-encoded: proxies refuse long headers."""
"""Headers: seconds from and to of what is new, and what is said now, percent-encoded."""
MEDIA_TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".aiff": "audio/aiff"}
"""Of formats that have one of their own."""

logger = logging.getLogger(__name__)
router = APIRouter(dependencies=[Depends(require_access)])


@dataclass(frozen=True)
class _Edited:
    """What is sent back."""

    data: bytes
    suffix: str
    span: tuple[float, float]
    text: str


@router.post(
    PATH,
    responses={
        200: {"content": {"audio/wav": {}, "audio/flac": {}}, "description": "The recording."},
        **error_responses(400, 401, 403, 408, 413, 429, 500, 503),
    },
    response_class=Response,
    summary="Edit a recording",
)
async def edit_recording(
    request: Request,
    audio_sample: Annotated[
        UploadFile, File(description="A wav, flac or aiff file; it keeps its format.")
    ],
    consent: ConsentForm = "",
    consent_recording: ConsentRecordingForm = None,
    text: Annotated[
        str | None, Form(description="What the recording says; else it is recognised.")
    ] = None,
    replace: Annotated[
        str | None, Form(description="Old words; the field `with` has new ones.")
    ] = None,
    new: Annotated[str | None, Form(alias="with", description="Said in their place.")] = None,
    insert: Annotated[
        str | None, Form(description="New words; one of `before`, `after` and `at` says where.")
    ] = None,
    before: Annotated[str | None, Form(description="Words of the recording.")] = None,
    after: Annotated[str | None, Form(description="Words of the recording.")] = None,
    at: Annotated[float | None, Form(description="Second.", ge=0)] = None,
    delete: Annotated[str | None, Form(description="Words that are left out.")] = None,
    span: Annotated[
        str | None, Form(description="Seconds, such as 1.2-1.6, that are said again.")
    ] = None,
    continue_with: Annotated[
        str | None, Form(alias="continue", description="Words that are said after the last.")
    ] = None,
    occurrence: Annotated[
        int | None, Form(ge=1, description="Which of several places that say the words.")
    ] = None,
    seed: Annotated[
        int | None, Form(ge=0, le=2**63 - 1, description="The same seed gives the same result.")
    ] = None,
) -> Response:
    """Changes words of a recording, with the consent of the person who speaks in it.

    Beyond 50 ms around the edit the recording stays as it is, to the bit.
    """
    service = service_of(request)
    claim = check_upload(service, consent, consent_recording)
    for name, value in (
        ("text", text), ("replace", replace), ("with", new), ("insert", insert),
        ("before", before), ("after", after), ("delete", delete), ("continue", continue_with),
    ):  # fmt: skip
        most = MAX_RECORDED_TEXT if name == "text" else MAX_TEXT
        if value is not None and len(check_unicode(value, name)) > most:
            raise ApiError(413, f"{name} has more than {most} characters.", param=name)
    if (replace is None) != (new is None):
        raise ApiError(400, "replace and with go together: old words and new ones.")
    try:
        wanted = edit_request(
            replace=None if replace is None or new is None else (replace, new),
            insert=insert,
            before=before,
            after=after,
            at=at,
            delete=delete,
            span=span,
            continue_with=continue_with,
            occurrence=occurrence,
        )
    except ValueError as error:
        raise ApiError(400, as_sentence(error), code="invalid_edit") from error
    number = choose_seed(seed)
    provenance = Provenance(
        bundle=service.bundle, voice="recording", seed=number, request_id=uuid.uuid4().hex
    )
    async with upload_slot(service):
        edited = await asyncio.to_thread(_edit, service, audio_sample, wanted, text, number, claim)
    who = "somebody" if claim is None else claim.who
    logger.info(
        "%s: %.3f to %.3f s of a recording of %s edited", provenance.request_id, *edited.span, who
    )
    return Response(
        edited.data,
        media_type=MEDIA_TYPES.get(edited.suffix, "application/octet-stream"),
        headers={
            **provenance.headers,
            SPAN: f"{edited.span[0]:.3f}-{edited.span[1]:.3f}",
            TEXT: _header_text(edited.text),
        },
    )


def _header_text(text: str) -> str:
    """Percent-encoded; a long text ends with an ellipsis."""
    whole = quote(text, safe=" ")
    while len(whole) > MAX_HEADER:
        text = text[: len(text) * (MAX_HEADER - 9) // len(whole)].rstrip("…")
        whole = quote(text + "…", safe=" ")
    return whole


def _edit(
    service: Service,
    sample: UploadFile,
    request: EditRequest,
    text: str | None,
    seed: int,
    claim: ConsentClaim | None,
) -> _Edited:
    with saved_upload(sample.file, service.config.limits) as (path, digest):
        try:
            recording = Recording.load(
                path, name="it", accept=partial(check_size, service.config.limits)
            )
        except AudioError as error:
            raise unusable(str(error).rstrip(".")) from error
    if claim is not None and claim.challenge:
        # The channel that is edited, which is not the mean of all.
        waveform = recording.waveform
        edited_channel = common_channel(waveform, channel_gains(waveform))
        check_claim(
            service,
            claim,
            UploadedRecording(
                waveform=edited_channel, sample_rate=recording.sample_rate, sha256=digest
            ),
        )
    try:
        edited = service.synthesizer.edit(
            recording,
            text=text,
            **vars(request),
            seed=seed,
        )
    except ValueError as error:
        raise ApiError(400, as_sentence(error), code="invalid_edit") from error
    with tempfile.TemporaryDirectory(prefix="tokenlm-") as folder:
        target = Path(folder) / f"edited{edited.recording.suffix}"
        edited.save(target)
        return _Edited(
            target.read_bytes(),
            edited.recording.suffix,
            (edited.start_seconds, edited.end_seconds),
            edited.text,
        )
