"""`/health`, `/metrics`, `/v1/models` and `/v1/audio/models`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from inference.server.access import access_of, require_access
from inference.server.errors import error_responses
from inference.server.service import Service, service_of
from tokenlm import __version__
from tokenlm.audio.encoders import available_formats

router = APIRouter()
guarded_router = APIRouter(dependencies=[Depends(require_access)])


class Health(BaseModel):
    """Whether the server takes requests and can speak."""

    status: Literal["ok", "failing", "stopping"]
    reason: str | None = None
    """Why it is not ok."""
    version: str
    bundle: str
    live_streams: int
    queue_length: int
    needs_key: bool


class Model(BaseModel):
    """A model, which here is a bundle."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "tokenlm"
    description: str
    language: str
    sample_rate: int
    lookahead_ms: float
    response_formats: tuple[str, ...]
    voice_attributes: dict[str, str]
    """By which voices can be designed, and what they mean."""
    word_times: bool
    instructions: bool
    """Whether it follows them."""


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


class ModelName(BaseModel):
    """A model as Open WebUI lists it."""

    id: str
    name: str


class ModelNames(BaseModel):
    """All models, as Open WebUI lists them."""

    models: list[ModelName]


@router.get(
    "/health",
    response_model=Health,
    responses={503: {"model": Health, "description": "It is about to stop, or cannot speak."}},
    summary="Whether the server takes requests and can speak",
)
async def health(request: Request) -> JSONResponse:
    """Says 200 while the server speaks; 503 once it is told to stop, and while its models fail."""
    service = service_of(request)
    reason = service.health.reason
    status: Literal["ok", "failing", "stopping"] = "ok" if reason is None else "failing"
    if service.admission.is_draining:
        status, reason = "stopping", "the server is about to stop."
    else:
        service.health.retry()
    body = Health(
        status=status,
        reason=reason,
        version=__version__,
        bundle=service.bundle,
        live_streams=service.admission.num_live,
        queue_length=service.admission.num_waiting,
        needs_key=access_of(request).needs_key,
    )
    return JSONResponse(body.model_dump(), 200 if status == "ok" else 503)


@guarded_router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Figures, as Prometheus reads them.", "content": {"text/plain": {}}},
        **error_responses(401, 403),
    },
    summary="Figures for Prometheus",
)
async def metrics(request: Request) -> Response:
    """Gives requests, first audio, real-time factor, live streams, queue, memory."""
    return Response(service_of(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)


@guarded_router.get("/v1/models", responses=error_responses(401, 403), summary="List models")
async def list_models(request: Request) -> ModelList:
    """Lists the bundle of this server, by its own name and by its further ones."""
    service = service_of(request)
    return ModelList(data=[_model(service, name) for name in service.model_names])


@guarded_router.get(
    "/v1/models/{model_id:path}",
    responses=error_responses(401, 403, 404),
    summary="Describe a model",
)
async def get_model(request: Request, model_id: str) -> Model:
    """Describes the bundle of this server, by any of its names."""
    service = service_of(request)
    service.check_model(model_id)
    return _model(service, model_id)


@guarded_router.get(
    "/v1/audio/models", responses=error_responses(401, 403), summary="List models for Open WebUI"
)
async def name_models(request: Request) -> ModelNames:
    """Lists the names of the bundle of this server, as Open WebUI asks for them."""
    names = service_of(request).model_names
    return ModelNames(models=[ModelName(id=name, name=name) for name in names])


def _model(service: Service, name: str) -> Model:
    manifest = service.synthesizer.components.manifest
    return Model(
        id=name,
        description=manifest.description,
        language=manifest.language,
        sample_rate=service.engine.sample_rate,
        voice_attributes=service.voice_attributes,
        lookahead_ms=service.synthesizer.lookahead_ms,
        response_formats=available_formats(),
        word_times=service.times_words,
        instructions=service.follows_instructions,
    )
