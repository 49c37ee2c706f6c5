"""Bodies of requests: JSON read leniently, as the reference reads it, or a form with metadata and files."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile

from vision_model_repo.api.dependencies import check_fields, engine_of, media_type
from vision_model_repo.api.errors import UnsupportedMediaType
from vision_model_repo.api.forms import open_form, read_file
from vision_model_repo.api.json_counter import JsonCounter
from vision_model_repo.api.openapi import content, schema_of
from vision_model_repo.api.pixano.media import Media
from vision_model_repo.api.pixano.wire import WireModel
from vision_model_repo.errors import InvalidInput

Body = TypeVar("Body", bound=WireModel)

FORM = "multipart/form-data"
UPLOADED = "uploaded"
"""Stands for media that come as files, which schemas want to be text."""


async def read_form(request: Request, model: type[Body], field: str, *, most: int) -> tuple[Body, list[Media]]:
    """A form: `metadata`, a JSON object of all but the media, and the media as files of one field.

    Args:
        field: of the files; the schema has a field of this name, or `video` for frames.
        most: files accepted.

    Raises:
        UnsupportedMediaType: the body is no form.
        InvalidInput: metadata or files are missing or cannot be read.
        TooLarge: metadata has more of anything than the schema and settings allow.
        RequestValidationError: metadata does not fit the schema.
    """
    if media_type(request) != FORM:
        raise UnsupportedMediaType(f"Send a form, {FORM}, with the field metadata and files as {field}.")
    settings = engine_of(request).settings
    async with open_form(request, max_files=most + 1) as form:
        metadata = await _metadata(form, JsonCounter(model, settings))
        files: list[Media] = [await read_file(field, file) for file in form.getlist(field)]
    if not files:
        raise InvalidInput(f"The form has no file {field}.")
    if len(files) > most:
        raise InvalidInput(f"The form has {len(files)} files {field}; at most {most} are accepted.")
    name = "video" if field == "frames" else field
    stand_in = UPLOADED if field == "image" else [UPLOADED] * len(files)
    return check_fields(model, {**metadata, name: stand_in}, settings), files


async def _metadata(form: FormData, counter: JsonCounter) -> dict[str, Any]:
    part = form.get("metadata")
    if part is None:
        raise InvalidInput("The form has no field metadata. It is a JSON object with model and all but the media.")
    text = await part.read() if isinstance(part, UploadFile) else part.encode(errors="replace")
    await counter.add_all(text)
    try:
        metadata = from_json(text)
    except ValueError:
        raise InvalidInput("metadata is not valid JSON.") from None
    if not isinstance(metadata, dict):
        raise InvalidInput("metadata is JSON, but no object.")
    return metadata


def describe_form(model: type[WireModel], field: str) -> dict[str, Any]:
    """`openapi_extra` of a route that calls `read_form`."""
    files: dict[str, Any] = {"type": "string", "format": "binary", "description": "Media file."}
    if field != "image":
        files = {"type": "array", "items": files, "description": "Media files, in order."}
    metadata = {
        "type": "string",
        "description": f"JSON object: {model.__name__} without its media.",
        "examples": ['{"model": "sam3"}'],
    }
    schema = {
        "type": "object",
        "required": ["metadata", field],
        "properties": {"metadata": metadata, field: {**files, "examples": ["a.jpg"]}},
    }
    return content({FORM: schema})


def describe_json(model: type[WireModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that calls `read_json`."""
    return content({"application/json": schema_of(model)})
