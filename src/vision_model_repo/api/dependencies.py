"""What routes need from a request: the engine, and a body that fits its schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from vision_model_repo.api.errors import UnsupportedMediaType
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import Busy

Body = TypeVar("Body", bound=BaseModel)


def engine_of(request: Request) -> Engine:
    """The engine that the server's lifespan made."""
    return cast(Engine, request.app.state.engine)


async def _get_engine(request: Request) -> Engine:
    # Not engine_of itself: FastAPI calls what is not async in a thread, and /health would wait for one.
    return engine_of(request)


EngineDependency = Annotated[Engine, Depends(_get_engine)]


@asynccontextmanager
async def admitted(request: Request) -> AsyncIterator[None]:
    """A place for work of which only the body tells, as a route whose policy is work has one. Call it once the body
    is read.

    Raises:
        Busy: every place is taken, or the server is shutting down.
        ClientDisconnect: the client has hung up, and the work is cancelled.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    with engine_of(request).admission.enter():
        async with cancelled_when_gone(gone):
            yield


@asynccontextmanager
async def cancelled_when_gone(gone: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Cancels the block as soon as its client has hung up.

    Args:
        gone: returns when that has happened.

    Raises:
        ClientDisconnect: the client has hung up.
        Busy: the block was cancelled for another reason, which is a shutdown.
    """
    work, left = asyncio.current_task(), False
    assert work is not None

    async def watch() -> None:
        nonlocal left
        await gone()
        left = True
        work.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if left:
            raise ClientDisconnect from None
        raise Busy("The server is shutting down. Try again in a moment.", retry_after=5) from None
    finally:
        watcher.cancel()
        # Whoever cancelled this, an answer can still be sent.
        while work.cancelling():
            work.uncancel()


def media_type(request: Request) -> str:
    """The type of the body, such as "application/json"; empty if the request does not say."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(media: str) -> bool:
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


async def read_json(request: Request, model: type[Body], *, strict: bool = True, any_type: bool = False) -> Body:
    """The body, parsed and checked by pydantic from its bytes.

    Not in another thread, however large: pydantic keeps the interpreter's lock all the while, half a ms for each MB.

    Args:
        strict: whether "0.5" is no number.
        any_type: whether JSON is read whatever the content type says.

    Raises:
        UnsupportedMediaType: the body is not JSON, or compressed.
        RequestValidationError: the body does not fit the schema.
    """
    if not any_type and not is_json(media_type(request)):
        raise UnsupportedMediaType("Send a JSON body with the header Content-Type: application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body as it is, without Content-Encoding.")
    data = await request.body()
    try:
        return model.model_validate_json(data, strict=strict)
    except ValidationError as error:
        raise invalid_body(error) from None


def invalid_body(error: ValidationError) -> RequestValidationError:
    """The same error as FastAPI would raise, without the input."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return RequestValidationError([{**problem, "loc": ("body", *problem["loc"])} for problem in problems])


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
