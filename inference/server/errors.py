"""Errors as OpenAI's API gives them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
        problem = dict(error.errors()[0])
        problem["loc"] = problem["loc"][problem["loc"][0] in ("body", "query", "path", "header") :]
        param = None
        kind = request.headers.get("content-type", "")
        if not problem["loc"] and not _JSON.match(kind):
            message = (
                "The body is a JSON object, sent with the header Content-Type: application/json; "
                f"this one came with {kind[:80] or 'none'}."
            )
        elif problem["type"] == "json_invalid":
            message = (
                f"The body is not JSON: {problem.get('ctx', {}).get('error', 'it is damaged')}."
            )
        else:
            message, param = describe_problem(problem)
        return ApiError(400, message, param=param).response()

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


ALTERNATIVES = ("(text)", "(lines)", "(name)", "(id)", "(design)")
"""Tags of the kinds of one field, which stand in the places that pydantic gives."""

_OBJECT = "it is a JSON object."
_SENTENCES = {
    "missing": "it is missing.",
    "union_tag_not_found": "it is missing.",
    "extra_forbidden": "there is no such field.",
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "list_type": "it is a list.",
    "string_type": "it is a string.",
}


def describe_problem(
    problem: Mapping[str, Any], *, whole: str = "The body"
) -> tuple[str, str | None]:
    """A sentence about a mistake in a request, and the path of its field, if it is in one.

    Args:
        problem: one of the `errors()` of pydantic's ValidationError.
        whole: what has the fields.
    """
    kind, facts = problem["type"], problem.get("ctx", {})
    path = _path(problem["loc"])
    if kind.startswith("union_tag"):  # a message by its type
        path = f"{path}.type".removeprefix(".")
    text = _SENTENCES.get(kind)
    if kind == "union_tag_invalid":
        text = f"there is no {facts['tag'][:80]!r}; there are {facts['expected_tags']}."
    elif text is None:
        text = str(problem["msg"]).removeprefix("Value error, ")
        text = f"it {text.removeprefix('Input ')}" if text.startswith("Input ") else text
        text += "" if text.endswith((".", "?", "!")) else "."
    if path:
        return f"{path}: {text}", path
    return (f"{whole} {text.removeprefix('it ')}" if text.startswith("it ") else text), None


def _path(places: Sequence[str | int]) -> str:
    """A place such as `input[2].voice`."""
    path = ""
    for place in places:
        if isinstance(place, int):
            path += f"[{place}]"
        elif place not in ALTERNATIVES:
            path += f".{place}" if path else place
    return path
