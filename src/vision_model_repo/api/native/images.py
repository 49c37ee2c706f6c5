"""Images of a request: what they look like on the wire, and how they become pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from vision_model_repo.api.concurrency import gather_or_cancel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import InvalidInput, TooLarge, VisionError
from vision_model_repo.formats.images import decode_base64, decode_image

# How many images of the largest size one request may hold decoded: a few hundred kilobytes of PNG can unpack to
# gigabytes, image by image within the limit.
LARGEST_IMAGES_A_REQUEST = 8
KIND = "An image is a base64 string, an http(s) URL, or an object with data and format."


class ImageSource(BaseModel):
    """An image and how it is given."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field(description="Base64 or URL of the image.", examples=["https://example.com/image.jpg"])
    format: Literal["base64", "url"] = Field("base64", description="What `data` is.", examples=["url"])


def _form(value: object) -> str | None:
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict | ImageSource) else None


WireImage = Annotated[
    Annotated[str, Tag("string")] | Annotated[ImageSource, Tag("object")],
    Discriminator(_form, custom_error_type="image", custom_error_message=KIND),
]
Source = str | ImageSource | bytes
"""An image as it came: wire form, or the bytes of an uploaded file."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it came, encoded, and its pixels, (H, W, 3) uint8 RGB."""

    encoded: bytes
    pixels: NDArray[np.uint8]


async def read_images(sources: Sequence[Source], engine: Engine) -> list[Picture]:
    """Fetches and decodes all images of a request side by side.

    Raises:
        InvalidInput: an image cannot be had or decoded; the message names its index.
        TooLarge: together they have too many pixels.
    """
    pixels_left = LARGEST_IMAGES_A_REQUEST * engine.settings.max_image_pixels

    async def read(index: int, source: Source) -> Picture:
        nonlocal pixels_left
        try:
            picture = await _read_image(source, engine)
        except VisionError as error:
            raise InvalidInput(f"images[{index}]: {error.message}") from error
        pixels_left -= picture.pixels.size // 3
        if pixels_left < 0:
            raise TooLarge("images: together they have too many pixels for one request. Send fewer or smaller ones.")
        return picture

    return await gather_or_cancel(partial(read, index, source) for index, source in enumerate(sources))


async def _read_image(source: Source, engine: Engine) -> Picture:
    encoded = source.data if isinstance(source, ImageSource) else source
    if isinstance(encoded, str) and _is_url(source, encoded):
        encoded = await engine.downloader.get(encoded)
    return await engine.pixels.run(_decode, encoded, engine.settings.max_image_pixels)


def _is_url(source: Source, text: str) -> bool:
    if isinstance(source, ImageSource):
        return source.format == "url"
    # A colon is no base64, so this can be nothing else; other schemes are refused by the downloader.
    return "://" in text[:16]


def _decode(encoded: str | bytes, max_pixels: int) -> Picture:
    data = decode_base64(encoded) if isinstance(encoded, str) else encoded
    return Picture(data, decode_image(data, max_pixels=max_pixels))
