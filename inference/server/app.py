"""The web application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.server import errors, health, speech, voices, websocket
from inference.server.auth import Keys
from inference.server.bodies import BodyGate
from inference.server.hosts import HostGate, Hosts
from inference.server.paths import PathGate
from inference.server.response import FOREIGN_WORDS
from inference.server.service import Service, SpeechEngine
from inference.server.settings import ServeConfig
from tokenlm import __version__
from tokenlm.synthesis import Synthesizer

_log = logging.getLogger("uvicorn.error")
PAGE = Path(__file__).with_name("page")
EXPOSED_HEADERS = (
    "X-Synthesised",
    "X-Tokenlm-Bundle",
    "X-Tokenlm-Voice",
    "X-Tokenlm-Seed",
    "X-Request-Id",
    "X-Sample-Rate",
    FOREIGN_WORDS,
    "Retry-After",
)
SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
)
"""The page loads nothing from elsewhere, and no other page may hold it."""


def build_app(
    config: ServeConfig,
    synthesizer: Synthesizer,
    make_engine: Callable[[], SpeechEngine],
    *,
    keys: Keys | None = None,
) -> FastAPI:
    """Builds the application; `app.state.service` is there while it runs.

    Args:
        config: its settings.
        synthesizer: the models.
        make_engine: called when the application starts, in its event loop.
        keys: of clients; by default those of the environment.
    """
    chosen = Keys.from_environment(config) if keys is None else keys

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = make_engine()
        service = app.state.service = Service(config, synthesizer, engine, chosen)
        for sentence in service.look_around():
            _log.warning("%s", sentence)
        try:
            await service.self_check.run()
            yield
        finally:
            await service.self_check.close()
            await engine.close(0.0)

    app = FastAPI(
        title="tokenlm",
        version=__version__,
        description="Text-to-speech; every sound that comes from here is synthesised.",
        lifespan=lifespan,
        docs_url=None,  # the pages of FastAPI load scripts from elsewhere
        redoc_url=None,
    )
    errors.install(app)
    for router in (
        health.router,
        health.guarded_router,
        speech.router,
        voices.router,
        websocket.router,
    ):
        app.include_router(router)
    page: set[str] = set()
    if config.page:
        page = {"/", *(f"/{path.name}" for path in PAGE.iterdir())}
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_middleware(BodyGate, limits=config.limits, upload_path=voices.PATH)
    app.add_middleware(PathGate, routes=lambda: app.routes, page=page)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=list(EXPOSED_HEADERS),
        )
    app.add_middleware(HostGate, hosts=Hosts(config))
    app.add_middleware(Counted)
    app.openapi = lambda: _describe(app)
    return app


class Counted:
    """Middleware that counts requests, and adds the headers that keep browsers careful."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499  # what others call it when the client left before there was an answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *SAFE_HEADERS]}
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500 if status == 499 else status
            raise
        finally:
            # A path of the client's own choice would make a figure of its own, without end.
            path = scope["path"] if scope["path"] in _SENT_TO else "other"
            route = getattr(scope.get("route"), "path", None) or path
            metrics = scope["app"].state.service.metrics
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.requests.labels(route=route, method=method, status=str(status)).inc()


_SENT_TO = frozenset({speech.PATH, voices.PATH})
"""Where bodies are refused before a route is found."""
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; mistakes are status 400 here, where FastAPI writes 422."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(name, None)
        app.openapi_schema = found
    return app.openapi_schema
