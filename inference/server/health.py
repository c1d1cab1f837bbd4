"""`/health`, `/metrics` and `/v1/models`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from inference.server.access import needs_key
from inference.server.encoders import available_formats
from inference.server.errors import documented
from inference.server.service import service_of
from tokenlm import __version__

router = APIRouter()
guarded_router = APIRouter(dependencies=[Depends(needs_key)])


class Health(BaseModel):
    """Whether the server takes requests."""

    status: Literal["ok", "stopping"]
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


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get(
    "/health",
    response_model=Health,
    responses={503: {"model": Health, "description": "The server is about to stop."}},
    summary="Whether the server takes requests",
)
async def health(request: Request) -> JSONResponse:
    """Says 200 while requests are taken and 503 once the server is told to stop."""
    service = service_of(request)
    stopping = service.admission.is_draining
    told = Health(
        status="stopping" if stopping else "ok",
        version=__version__,
        bundle=service.bundle,
        live_streams=service.admission.num_live,
        queue_length=service.admission.num_waiting,
        needs_key=service.keys.needed,
    )
    return JSONResponse(told.model_dump(), 503 if stopping else 200)


@guarded_router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Figures, as Prometheus reads them.", "content": {"text/plain": {}}},
        **documented(401, 403),
    },
    summary="Figures for Prometheus",
)
async def metrics(request: Request) -> Response:
    """Gives requests, first audio, real-time factor, live streams, queue, memory."""
    return Response(service_of(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)


@guarded_router.get("/v1/models", responses=documented(401, 403), summary="List models")
async def list_models(request: Request) -> ModelList:
    """Lists the bundle of this server."""
    service = service_of(request)
    manifest = service.synthesizer.components.manifest
    return ModelList(
        data=[
            Model(
                id=service.bundle,
                description=manifest.description,
                language=manifest.language,
                sample_rate=service.engine.sample_rate,
                lookahead_ms=service.synthesizer.lookahead_ms,
                response_formats=available_formats(),
            )
        ]
    )
