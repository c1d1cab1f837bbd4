"""The web application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles

from inference.engine import StreamEngine
from inference.server import consents, edits, health, speech, voices, websocket
from inference.server.access import Access
from inference.server.errors import add_error_handlers
from inference.server.gateway import Gateway
from inference.server.service import Service
from inference.server.settings import ServeConfig
from tokenlm import __version__
from tokenlm.synthesis import Synthesizer

PAGE = Path(__file__).with_name("page")
EXPOSED_HEADERS = (
    "X-Synthesised",
    "X-Tokenlm-Bundle",
    "X-Tokenlm-Voice",
    "X-Tokenlm-Seed",
    "X-Request-Id",
    "X-Sample-Rate",
    edits.SPAN,
    edits.TEXT,
    speech.FOREIGN_WORDS,
    "Retry-After",
)
"""Headers of responses that pages of other origins may read."""
BODY_SLACK_BYTES = 65_536
"""Of a body besides the text or recording in it: names, other fields, boundaries."""

logger = logging.getLogger(__name__)


def build_app(
    config: ServeConfig,
    synthesizer: Synthesizer,
    make_engine: Callable[[], StreamEngine] | None = None,
    *,
    keys: Sequence[str] | None = None,
) -> FastAPI:
    """Builds the application; `app.state.service` exists while it runs.

    Args:
        config: its settings.
        synthesizer: the models.
        make_engine: called when the application starts, in its event loop; None takes an engine as
            the settings say.
        keys: API keys; None takes those of the environment.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if make_engine is None:
            engine = StreamEngine(
                synthesizer, tokens=config.tokens(), max_streams=config.limits.max_streams
            )
        else:
            engine = make_engine()
        service = app.state.service = Service(config, synthesizer, engine)
        for sentence in service.startup_warnings():
            logger.warning("%s", sentence)
        try:
            await service.health.run()
            yield
        finally:
            await service.health.close()
            await engine.close(0.0)

    app = FastAPI(
        title="tokenlm",
        version=__version__,
        description="Text-to-speech; every sound that comes from here is synthesised.",
        lifespan=lifespan,
        docs_url=None,  # the pages of FastAPI load scripts from elsewhere
        redoc_url=None,
    )
    app.state.access = access = Access(config, keys)
    add_error_handlers(app)
    for router in (
        health.router,
        health.guarded_router,
        speech.router,
        voices.router,
        consents.router,
        edits.router,
        websocket.router,
    ):
        app.include_router(router)
    page_paths: set[str] = set()
    if config.page:
        page_paths = {"/", *(f"/{path.name}" for path in PAGE.iterdir())}
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_middleware(
        Gateway,
        config=config,
        access=access,
        page_paths=page_paths,
        body_limits={
            # A character is at most 4 bytes of UTF-8, or 12 of JSON escapes.
            speech.PATH: 12 * config.limits.max_text_characters + BODY_SLACK_BYTES,
            # A recording, and one of the spoken consent to it.
            voices.PATH: 2 * config.limits.max_upload_bytes + BODY_SLACK_BYTES,
            edits.PATH: 2 * config.limits.max_upload_bytes + BODY_SLACK_BYTES,
        },
        exposed_headers=EXPOSED_HEADERS,
    )
    app.openapi = lambda: _openapi(app)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, without the status 422 of FastAPI, which is 400 here."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema
