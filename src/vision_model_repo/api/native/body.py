"""The body of an inference request: JSON, or a form with files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from fastapi import Request
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile

from vision_model_repo.api.dependencies import check_fields, engine_of, is_json, media_type, read_json
from vision_model_repo.api.errors import UnsupportedMediaType
from vision_model_repo.api.forms import open_form, read_file
from vision_model_repo.api.json_bounds import lists_of
from vision_model_repo.api.json_counter import JsonCounter
from vision_model_repo.api.native.images import Source
from vision_model_repo.api.native.inference import Inference, task_of
from vision_model_repo.api.native.task import NativeTask, Options
from vision_model_repo.api.openapi import content, schema_of
from vision_model_repo.errors import InvalidInput
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.settings import Settings

OptionsT = TypeVar("OptionsT", bound=Options)

JSON = "application/json"
FORM = "multipart/form-data"


async def read_inference(request: Request, spec: ModelSpec, accepted: Sequence[str]) -> Inference:
    """Reads and checks a request for a model.

    Args:
        accepted: media types that the route reads.

    Raises:
        UnsupportedMediaType: the body has none of these types.
        RequestValidationError: it does not fit the schema of the model's task.
        InvalidInput, TooLarge: it makes no sense, names a mask that is not kept, or passes a limit.
    """
    task, media = task_of(spec), media_type(request)
    if is_json(media) and JSON in accepted:
        options: Options = await read_json(request, task.body)
        sources: Sequence[Source] = options.images  # type: ignore[attr-defined]
    elif media == FORM and FORM in accepted:
        options, sources = await _read_form(request, task.options)
    else:
        raise UnsupportedMediaType(f"Send the body as {' or '.join(accepted)}, and say so in Content-Type.")
    inference = Inference(engine_of(request), spec, options, sources)
    inference.check()
    task.recall(options, inference.engine.masks)
    return inference


def describe_body(tasks: Sequence[NativeTask[Any, Any, Any, Any]], accepted: Sequence[str]) -> dict[str, Any]:
    """`openapi_extra` of a route that calls `read_inference` for any of these tasks."""
    writers = {JSON: lambda task: schema_of(task.body), FORM: lambda task: _form_schema(task.options)}
    schemas = {media: [writers[media](task) for task in tasks] for media in accepted}
    return content({media: each[0] if len(each) == 1 else {"anyOf": each} for media, each in schemas.items()})


def _form_schema(options: type[Options]) -> dict[str, Any]:
    schema = schema_of(options)
    images = {
        "type": "array",
        "minItems": 1,
        "items": {"type": "string", "format": "binary"},
        "description": "One or more image files.",
        "examples": [["a.jpg"]],
    }
    required = ["images", *schema.get("required", [])]
    return {**schema, "required": required, "properties": {"images": images, **schema["properties"]}}


async def _read_form(request: Request, model: type[Options]) -> tuple[Options, list[bytes]]:
    settings = engine_of(request).settings
    async with open_form(request, max_files=settings.max_images) as form:
        images = [await read_file(f"images[{index}]", file) for index, file in enumerate(form.getlist("images"))]
        if not images:
            raise InvalidInput("images is empty. Send one or more files as the form field images.")
        return await read_fields(form, model, settings, files=("images",)), images


async def read_fields(form: FormData, model: type[OptionsT], settings: Settings, *, files: Collection[str]) -> OptionsT:
    """Form fields, without those that are files. Where a list may be, a value that is a JSON list is one.

    Raises:
        InvalidInput: a field is a file.
        TooLarge: a list has more items than settings allow.
        RequestValidationError: the fields do not fit the schema.
    """
    given: dict[str, list[UploadFile | str]] = {}
    for name, value in form.multi_items():
        if name not in files:
            given.setdefault(name, []).append(value)
    counter = JsonCounter(model, settings)
    fields: dict[str, Any] = {}
    for name, values in given.items():
        read = [await _value(name, value, counter if name in lists_of(model) else None) for value in values]
        single = len(read) == 1 and (name not in model.repeated or isinstance(read[0], list))
        fields[name] = read[0] if single else read
    return check_fields(model, fields, settings)


async def _value(name: str, value: UploadFile | str, counter: JsonCounter | None) -> Any:
    if isinstance(value, UploadFile):
        raise InvalidInput(f"{name[:100]} is a file. Only images and videos are sent as files.")
    if counter is None or not value.lstrip().startswith("["):
        return value
    await counter.add_text(value)
    try:
        return from_json(value)
    except ValueError:
        # A prompt may begin with a bracket; where a list is needed, the schema says so.
        return value
