"""What routes need from a request: the engine, and a body that fits its schema."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import takewhile
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from vision_model_repo.api.errors import UnsupportedMediaType
from vision_model_repo.api.json_bounds import SLACK, validator_of
from vision_model_repo.api.json_counter import JsonCounter
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import TooLarge
from vision_model_repo.settings import Settings

LARGE_BYTES = 2**20
SMALL_BYTES = 4096
MAX_ERRORS = 1000
"""More of them are not looked at one by one, which takes 5 us each."""

Body = TypeVar("Body", bound=BaseModel)


def engine_of(request: Request) -> Engine:
    """The engine that the server's lifespan made."""
    return cast(Engine, request.app.state.engine)


async def _get_engine(request: Request) -> Engine:
    # Not engine_of itself: FastAPI calls what is not async in a thread, and /health would wait for one.
    return engine_of(request)


EngineDependency = Annotated[Engine, Depends(_get_engine)]


def media_type(request: Request) -> str:
    """The type of the body, such as "application/json"; empty if the request does not say."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(media: str) -> bool:
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


async def read_json(request: Request, model: type[Body], *, strict: bool = True, any_type: bool = False) -> Body:
    """The body, parsed and checked by pydantic from its bytes.

    Not in another thread, however large: pydantic keeps the interpreter's lock all the while, half a ms for each MB of
    base64. What would take longer is refused while it arrives.

    Args:
        strict: whether "0.5" is no number.
        any_type: whether JSON is read whatever the content type says.

    Raises:
        UnsupportedMediaType: the body is not JSON, or compressed.
        TooLarge: it has more of anything than the schema and settings allow.
        RequestValidationError: the body does not fit the schema.
    """
    if not any_type and not is_json(media_type(request)):
        raise UnsupportedMediaType("Send a JSON body with the header Content-Type: application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body as it is, without Content-Encoding.")
    settings = engine_of(request).settings
    data = await _read_counted(request, JsonCounter(model, settings))
    try:
        return validator_of(model, settings).validate_json(data, strict=strict)
    except ValidationError as error:
        raise invalid_body(error) from None


async def _read_counted(request: Request, counter: JsonCounter) -> bytes:
    """The body, counted while it arrives."""
    chunks: list[bytes] = []
    async for chunk in request.stream():
        await counter.add_all(chunk)
        if chunks and len(chunks[-1]) + len(chunk) <= SMALL_BYTES:
            # A byte that came by itself is not to take forty.
            chunks[-1] += chunk
        else:
            chunks.append(chunk)
    if sum(map(len, chunks)) < LARGE_BYTES:
        return b"".join(chunks)
    # Without the interpreter's lock: 128 MB take a tenth of a second.
    return await asyncio.to_thread(b"".join, chunks)


def check_fields(model: type[Body], fields: Mapping[str, Any], settings: Settings) -> Body:
    """The fields of a form, checked.

    Raises:
        TooLarge: a list has more items than settings allow.
        RequestValidationError: they do not fit the schema.
    """
    try:
        return validator_of(model, settings).validate_python(fields)
    except ValidationError as error:
        raise invalid_body(error) from None


def invalid_body(error: ValidationError) -> RequestValidationError | TooLarge:
    """The same error as FastAPI would raise, without the input; or that a list is too long."""
    if (count := error.error_count()) > MAX_ERRORS:
        message = f"{count} fields are wrong, or not known to this route."
        return RequestValidationError([{"type": "too_many_errors", "loc": ("body",), "msg": message}])
    problems = error.errors(include_url=False, include_input=False)
    for problem in problems:
        if problem["type"] == "too_long" and (told := problem.get("ctx", {}))["max_length"] > SLACK:
            return _far_too_long(problem["loc"], told["actual_length"])
    return RequestValidationError(
        [{"type": each["type"], "loc": ("body", *each["loc"]), "msg": each["msg"]} for each in problems]
    )


def _far_too_long(location: Sequence[int | str], count: int) -> TooLarge:
    # What comes after may be the name of a kind of list, and no field.
    name, *path = location or ("body",)
    place = str(name) + "".join(f"[{index}]" for index in takewhile(lambda part: isinstance(part, int), path))
    return TooLarge(f"A list in {place} has {count} entries, which is far more than are accepted. Send fewer.")


def json_body(model: type[Body]) -> Callable[[Request], Awaitable[Body]]:
    """A dependency that reads a body of this model. The route describes it with `openapi.request_body`."""

    async def read(request: Request) -> Body:
        return await read_json(request, model)

    return read


def prefers(request: Request, media: str, *, over: str) -> bool:
    """Whether the Accept header names a media type, and does not like another one better."""
    qualities = dict(_quality(part) for part in request.headers.get("accept", "").split(","))
    ranges = (over, f"{over.partition('/')[0]}/*", "*/*")
    other = next((qualities[each] for each in ranges if each in qualities), 0.0)
    return qualities.get(media, 0.0) > 0 and qualities[media] >= other


def _quality(part: str) -> tuple[str, float]:
    """A media type of an Accept header, and how much it is liked, 0..1."""
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    given = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        return media, float(given)
    except ValueError:
        return media, 0.0
