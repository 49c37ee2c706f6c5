"""The one mapping from errors to HTTP answers, which protocols write each in its own form.

VisionError              its own status   "a sentence"
RequestValidationError   422              [{"type", "loc", "msg"}, ...]
HTTPException            its own status   the router's own 404 and 405, "Not Found"
out of memory            507              "a sentence"
anything else            500              "... error id ..."; the log has the rest
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from vision_model_repo.errors import Busy, InsufficientMemory, VisionError, is_out_of_memory

logger = logging.getLogger(__name__)

# A list of ten thousand wrong values deserves an answer that a person can read.
MAX_PROBLEMS = 20
MAX_NAME = 100


class Unauthorized(VisionError):
    """No API key, or a wrong one."""

    status = 401


class TooManyRequests(Busy):
    """One caller asks too often."""

    status = 429


class SlowBody(VisionError):
    """The body of a request arrives too slowly."""

    status = 408


class UnsupportedMediaType(VisionError):
    """The body is not of a type that the route reads."""

    status = 415


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="A sentence that says what is wrong and what to do next.", examples=["No job 'x'."])


class FieldProblem(BaseModel):
    """What is wrong with one field of the body or query."""

    type: str = Field(description="Kind of the problem, for programs.", examples=["less_than_equal"])
    loc: list[str | int] = Field(description="Where: body or query, then the path.", examples=[["body", "threshold"]])
    msg: str = Field(description="What is wrong, for people.", examples=["Input should be less than or equal to 1"])


class ValidationProblem(BaseModel):
    """Why a body or query does not fit the schema."""

    detail: list[FieldProblem] = Field(description=f"The first {MAX_PROBLEMS} problems.")


def describe(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the errors that a route may answer with."""
    # References, not models: FastAPI would build a validator for every error of every route. `openapi` defines them.
    names = {status: (ValidationProblem if status == 422 else Problem).__name__ for status in statuses}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}},
        }
        for status, name in names.items()
    }


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered.

    Attributes:
        detail: a sentence, or what is wrong field by field.
        headers: to send along.
    """

    status: int
    detail: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal_of(error: Exception) -> Refusal:
    """What to tell of an error; unexpected ones are logged under the id that is told."""
    if isinstance(error, RequestValidationError):
        return Refusal(422, field_problems(error.errors()))
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, error.detail, error.headers or {})
    if not isinstance(error, VisionError) and is_out_of_memory(error):
        logger.error("A request ran out of memory", exc_info=error)
        error = InsufficientMemory("The server has no memory left for this. Send less at once, or try again later.")
    if not isinstance(error, VisionError):
        error_id = uuid4().hex[:12]
        logger.error("Internal error %s", error_id, exc_info=error)
        return Refusal(500, f"Internal error. The server's log has it under error id {error_id}.")
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return Refusal(error.status, error.message, headers)


def write_detail(refusal: Refusal) -> Response:
    """`{"detail": ...}`, which is how FastAPI tells it."""
    return JSONResponse({"detail": refusal.detail}, refusal.status, refusal.headers)


def field_problems(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Pydantic's errors without the input, which may be an image, a secret, or a number that JSON does not know."""
    return [
        {
            "type": error["type"],
            "loc": [part if isinstance(part, int) else str(part)[:MAX_NAME] for part in error["loc"]],
            "msg": error["msg"],
        }
        for error in errors[:MAX_PROBLEMS]
    ]


def install(app: FastAPI, write: Callable[[Refusal, Scope], Response]) -> None:
    """Answers the errors that routes raise. What middleware raises is answered by middleware."""

    async def answer(request: Request, error: Exception) -> Response:
        return write(refusal_of(error), request.scope)

    for kind in (VisionError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
