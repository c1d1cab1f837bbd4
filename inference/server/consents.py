"""`/v1/audio/voice_consents`: what is asked for before a voice is made, sentences to be said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from inference.consent.challenge import LIFETIME_SECONDS, MAX_NAME
from inference.consent.evidence import ConsentError
from inference.server.access import require_access
from inference.server.errors import ApiError, as_sentence, error_responses
from inference.server.service import RequestBody, service_of
from inference.server.speech import check_unicode

PATH = "/v1/audio/voice_consents"

router = APIRouter(dependencies=[Depends(require_access)])


class ConsentPolicy(BaseModel):
    """What this server asks for before it makes a voice of somebody."""

    policy: Literal["required", "recorded", "off"]
    """Spoken by the person, stated in writing, or nothing."""
    public_key: str | None
    """Of the signatures of evidence, Ed25519 in base 64; none before the first voice is made."""
    operator: str | None
    operator_statement: str | None
    """What the operator states of all voices; stored in each of them."""


class ConsentRequest(RequestBody):
    """Who is to say a sentence."""

    who: Annotated[
        str, Field(max_length=MAX_NAME, description="The person whose voice it is, by name.")
    ]


class ConsentChallenge(BaseModel):
    """A sentence to be said by the person whose voice it is."""

    id: str
    """To be sent with the recording; it is used once."""
    object: Literal["audio.voice_consent"] = "audio.voice_consent"
    who: str
    sentence: str
    words: list[str]
    """Drawn for this occasion; they are part of the sentence."""
    expires_at: int
    """Seconds since 1970."""
    expires_in: int
    """Seconds from now."""


@router.get(PATH, responses=error_responses(401, 403), summary="What is asked for")
async def read_policy(request: Request) -> ConsentPolicy:
    """Says what this server asks for before it makes a voice of somebody."""
    manager = service_of(request).consent
    return ConsentPolicy(
        policy=manager.policy,
        public_key=manager.public_key,
        operator=manager.config.operator or None,
        operator_statement=manager.config.operator_statement or None,
    )


@router.post(
    PATH, status_code=201, responses=error_responses(400, 401, 403, 503), summary="Draw a sentence"
)
async def draw_sentence(request: Request, body: ConsentRequest) -> ConsentChallenge:
    """Draws a sentence that the person is to say within five minutes, once."""
    service = service_of(request)
    service.admission.check_open()
    if not service.config.uploads:
        raise ApiError(403, "Voices of this server cannot be changed by clients.")
    try:
        challenge = service.consent.challenges.issue(check_unicode(body.who, "who"))
    except ConsentError as error:
        raise ApiError(400, as_sentence(error), param="who") from error
    left = challenge.expires_at - datetime.now(UTC).timestamp()
    return ConsentChallenge(
        id=challenge.id,
        who=challenge.who,
        sentence=challenge.sentence,
        words=list(challenge.words),
        expires_at=int(challenge.expires_at),
        expires_in=int(min(max(left, 0.0), LIFETIME_SECONDS)),
    )
