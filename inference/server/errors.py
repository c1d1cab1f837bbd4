"""Errors as OpenAI's API gives them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

_JSON = re.compile(r"\s*application/([\w.+-]+\+)?json\b", re.IGNORECASE)


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Body of every refusal."""

    error: ErrorDetail


class ApiError(Exception):
    """An error that is sent to the client."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def type(self) -> str:
        """The error type of OpenAI's API."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        return kinds.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )

    def body(self) -> dict[str, Any]:
        """Returns the body of the response."""
        detail = ErrorDetail(message=self.message, type=self.type, param=self.param, code=self.code)
        return ErrorBody(error=detail).model_dump()

    def response(self) -> JSONResponse:
        """Returns the response."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Entries of the OpenAPI document for errors with these statuses."""
    reasons = {
        400: "The request cannot be understood, or asks for what the bundle cannot do.",
        401: "The key is missing or wrong.",
        403: "This is not allowed.",
        404: "There is no such thing.",
        408: "The body of the request took too long to come.",
        409: "The name is taken.",
        413: "The request is larger than the server takes.",
        429: "The server has too much to do; the header Retry-After says when to come back.",
        500: "The models failed.",
        503: "The server is about to stop.",
    }
    return {status: {"model": ErrorBody, "description": reasons[status]} for status in statuses}


def add_error_handlers(app: FastAPI) -> None:
    """Makes an app describe all errors in this form."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        problem = error.errors()[0]
        kind = request.headers.get("content-type", "")
        if problem["loc"] == ("body",) and not _JSON.match(kind):
            message = (
                "The body is a JSON object, sent with the header Content-Type: application/json; "
                f"this one came with {kind[:80] or 'none'}."
            )
        elif problem["type"] == "json_invalid":
            message = (
                f"The body is not JSON: {problem.get('ctx', {}).get('error', 'it is damaged')}."
            )
        else:
            message = _describe(problem)
        return ApiError(400, message).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 404:
            message = f"There is nothing at {request.url.path}."
        elif error.status_code == 405:
            message = f"{request.url.path} does not take the method {request.method}."
        return ApiError(error.status_code, message, headers=error.headers).response()

    @app.exception_handler(Exception)
    async def internal_error(request: Request, error: Exception) -> JSONResponse:
        # The caller raises the error again: it is logged, and the connection is closed, which the
        # client has to know.
        message = "The server failed at this request; others go on."
        return ApiError(500, message, headers={"Connection": "close"}).response()


def as_sentence(error: Exception) -> str:
    """The message of an error with a capital letter at its start and a full stop at its end."""
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _describe(problem: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"] if part != "body")
    text = str(problem["msg"]).removeprefix("Value error, ")
    if problem["loc"] == ("body",) and problem["type"] == "model_attributes_type":
        text = "The body is a JSON object."
    return f"{place}: {text}" if place else text
