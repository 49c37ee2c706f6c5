"""The body of a request to track: JSON, or a form with the video as a file."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import FormData

from vision_model_repo.api.dependencies import engine_of, is_json, media_type, read_json
from vision_model_repo.api.errors import UnsupportedMediaType
from vision_model_repo.api.forms import open_form, read_file, read_video_file
from vision_model_repo.api.native.body import FORM, JSON, read_fields
from vision_model_repo.api.native.tracking import TrackingOptions
from vision_model_repo.api.native.video import VideoGiven
from vision_model_repo.api.openapi import content, schema_of
from vision_model_repo.errors import InvalidInput

OptionsT = TypeVar("OptionsT", bound=TrackingOptions)

FILES: dict[str, Any] = {
    "video": {
        "type": "string",
        "format": "binary",
        "description": "The video file, or as text its URL.",
        "examples": ["clip.mp4"],
    },
    "frames": {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "Instead of a video file, its frames as image files of one size.",
        "examples": [["0.jpg", "1.jpg"]],
    },
}


async def read_tracking(
    request: Request, body: type[OptionsT], options: type[OptionsT]
) -> tuple[OptionsT, VideoGiven | None]:
    """Reads a request, and the video as it came, if there is one.

    Args:
        body: schema of the JSON, with the field `video`.
        options: schema of a form's fields.

    Raises:
        UnsupportedMediaType: the body is neither JSON nor a form.
        RequestValidationError: it does not fit the schema.
        InvalidInput: there is more than one video.
    """
    media = media_type(request)
    if is_json(media):
        given = await read_json(request, body)
        return given, getattr(given, "video", None)
    if media != FORM:
        raise UnsupportedMediaType(f"Send the body as {JSON} or {FORM}, and say so in Content-Type.")
    # One more than may be, so that the refusal is in the words of the video's own check.
    settings = engine_of(request).settings
    async with open_form(request, max_files=settings.max_video_frames + 1) as form:
        video = await _video(form)
        return await read_fields(form, options, settings, files=FILES), video


def describe_tracking(body: type[TrackingOptions], options: type[TrackingOptions]) -> dict[str, Any]:
    """`openapi_extra` of a route that calls `read_tracking`."""
    schema = schema_of(options)
    return content({JSON: schema_of(body), FORM: {**schema, "properties": {**FILES, **schema["properties"]}}})


async def _video(form: FormData) -> VideoGiven | None:
    files, frames = form.getlist("video"), form.getlist("frames")
    if len(files) > 1 or (files and frames):
        raise InvalidInput("The form has more than one video. Send one file as video, or its pictures as frames.")
    if frames:
        return [await read_file(f"frames[{index}]", file) for index, file in enumerate(frames)]
    if not files:
        return None
    return files[0] if isinstance(files[0], str) else await read_video_file(files[0])
