"""Images of a request: what they look like on the wire, and how they become pixels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from vision_model_repo.engine.concurrency import gather_or_cancel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import Busy, InsufficientMemory, InvalidInput, TooLarge, VisionError
from vision_model_repo.formats.images import decode_base64, decode_image

KIND = "An image is a base64 string, an http(s) URL, or an object with data and format."


class ImageSource(BaseModel):
    """An image and how it is given."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field(
        description="Base64 or URL of the image, or the image_id that `POST /images` gave it.",
        examples=["https://example.com/image.jpg"],
    )
    format: Literal["base64", "url", "id"] = Field("base64", description="What `data` is.", examples=["url"])


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
    """An image, decoded.

    Attributes:
        encoded: as it came.
        pixels: (H, W, 3) uint8 RGB, for all to read and nobody to change.
        digest: of the pixels, where it is known already.
        seconds: that fetching and decoding took.
    """

    encoded: bytes
    pixels: NDArray[np.uint8]
    digest: str | None = None
    seconds: float = 0.0


async def read_images(sources: Sequence[Source], engine: Engine) -> list[Picture]:
    """Fetches and decodes all images of a request side by side.

    Raises:
        InvalidInput: an image cannot be had or decoded; the message names its index. An unknown id is such a case
            too: what the address of the request names is there, so it is no 404.
        TooLarge: together they have too many pixels.
    """
    # A few hundred kilobytes of PNG can unpack to gigabytes, image by image within the limit.
    pixels_left = engine.settings.max_request_pixels

    async def read(index: int, source: Source) -> Picture:
        nonlocal pixels_left
        try:
            picture = await read_image(source, engine)
        except (InsufficientMemory, Busy):
            raise
        except VisionError as error:
            raise InvalidInput(f"images[{index}]: {error.message}") from error
        pixels_left -= picture.pixels.size // 3
        if pixels_left < 0:
            raise TooLarge("images: together they have too many pixels for one request. Send fewer or smaller ones.")
        return picture

    return await gather_or_cancel(partial(read, index, source) for index, source in enumerate(sources))


async def read_image(source: Source, engine: Engine) -> Picture:
    """Fetches and decodes an image; one that is stored is there already.

    Raises:
        InvalidInput: the image cannot be had or decoded.
        NotFound: no image is stored under the id.
    """
    started = time.perf_counter()
    encoded = source.data if isinstance(source, ImageSource) else source
    if isinstance(source, ImageSource) and source.format == "id":
        stored = engine.images.get(source.data)
        return Picture(stored.encoded, stored.pixels, stored.digest)
    if isinstance(encoded, str) and is_url(encoded, source.format if isinstance(source, ImageSource) else None):
        encoded = await engine.downloader.get(encoded)
    picture = await engine.pixels.run(_decode, encoded, engine.settings.max_image_pixels)
    return replace(picture, seconds=time.perf_counter() - started)


def is_url(text: str, said: str | None) -> bool:
    """Whether what stands for a file is its URL, by what the request says of it, or by its look."""
    if said is not None:
        return said == "url"
    # A colon is no base64, so this can be nothing else; other schemes are refused by the downloader.
    return "://" in text[:16]


def _decode(encoded: str | bytes, max_pixels: int) -> Picture:
    data = decode_base64(encoded) if isinstance(encoded, str) else encoded
    return Picture(data, decode_image(data, max_pixels=max_pixels))
