"""Videos of a request: a file, or its frames as pictures, and how they come to be had frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.native.images import ImageSource, Source, WireImage, is_url
from vision_model_repo.engine.concurrency import gather_or_cancel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.manager import MEGABYTE
from vision_model_repo.errors import Busy, InsufficientMemory, InvalidInput, TooLarge, VisionError
from vision_model_repo.formats.images import decode_base64
from vision_model_repo.formats.video import PictureSequence, Video, VideoBytes, open_video

KIND = "A video is a base64 string, an http(s) URL, an object with data and format, or a list of images."
EXAMPLES = [
    "AAAAIGZ0eXBpc29tAAACAGlzb21pc28y...",
    {"data": "https://example.com/clip.mp4", "format": "url"},
    ["iVBORw0KGgoAAAANSUhEUg...", "iVBORw0KGgoAAAANSUhEUg..."],
]


class VideoSource(BaseModel):
    """A video file and how it is given."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field(description="Base64 or URL of the file.", examples=["https://example.com/clip.mp4"])
    format: Literal["base64", "url"] = Field("base64", description="What `data` is.", examples=["url"])


def _form(value: object) -> str | None:
    if isinstance(value, list):
        return "frames"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict | VideoSource) else None


WireVideo = Annotated[
    Annotated[str, Tag("string")]
    | Annotated[VideoSource, Tag("object")]
    | Annotated[list[WireImage], AtMost(lambda limits: limits.max_video_frames), Tag("frames")],
    Discriminator(_form, custom_error_type="video", custom_error_message=KIND),
]
VideoGiven = str | VideoSource | VideoBytes | Sequence[Source]
"""A video as it came: wire form, an uploaded file, or its frames."""


async def read_video(given: VideoGiven, engine: Engine, frames_per_second: float) -> Video:
    """Fetches a video and opens it.

    Args:
        frames_per_second: pace of play of one that comes as pictures.

    Raises:
        InvalidInput: it cannot be had or read; the message names the frame.
        TooLarge: it is larger than settings allow.
    """
    limits = engine.video_limits
    if isinstance(given, str | VideoSource | VideoBytes):
        is_file = isinstance(given, VideoBytes)
        data = given if is_file else await _read("video", given, engine, engine.settings.max_video_mb)
        return await engine.pixels.run(open_video, data, limits)
    if len(given) > limits.max_frames:
        raise InvalidInput(f"The video has {len(given)} frames; at most {limits.max_frames} are accepted.")
    pictures = await _read_pictures(given, engine)
    return await engine.pixels.run(PictureSequence, pictures, limits, frames_per_second=frames_per_second)


async def _read_pictures(given: Sequence[Source], engine: Engine) -> list[bytes]:
    bytes_left = engine.video_limits.max_bytes

    async def read(index: int, source: Source) -> bytes:
        nonlocal bytes_left
        picture = await _read(f"video[{index}]", source, engine, engine.settings.max_url_mb)
        bytes_left -= len(picture)
        if bytes_left < 0:
            raise TooLarge(f"The video has more than {engine.settings.max_video_mb} MB. Send a shorter or smaller one.")
        return picture

    return await gather_or_cancel(partial(read, index, source) for index, source in enumerate(given))


async def _read(name: str, given: Source | VideoSource, engine: Engine, max_mb: int) -> bytes:
    """The bytes of a file. An image that is stored is already checked, and given as it came."""
    try:
        if isinstance(given, bytes):
            return given
        if isinstance(given, ImageSource) and given.format == "id":
            return engine.images.get(given.data).encoded
        data = given if isinstance(given, str) else given.data
        if is_url(data, None if isinstance(given, str) else given.format):
            seconds = engine.settings.video_url_timeout_seconds if isinstance(given, str | VideoSource) else None
            return await engine.downloader.get(data, max_bytes=max_mb * MEGABYTE, timeout_seconds=seconds)
        return await engine.pixels.run(decode_base64, data)
    except (InsufficientMemory, Busy):
        raise
    except VisionError as error:
        raise InvalidInput(f"{name}: {error.message}") from error
