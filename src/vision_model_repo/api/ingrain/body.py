"""Bodies and images of requests, read as leniently as the reference reads them, and safely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from vision_model_repo.api.dependencies import read_json
from vision_model_repo.api.ingrain.schemas import IngrainModel
from vision_model_repo.api.native.images import read_image
from vision_model_repo.engine.concurrency import gather_or_cancel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import Busy, InsufficientMemory, InvalidInput, TooLarge, VisionError
from vision_model_repo.settings import Settings

Body = TypeVar("Body", bound=IngrainModel)
Image = NDArray[np.uint8]

CONNECTION_HEADERS = frozenset(
    {
        *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""About the connection, which is the server's own affair; such a header is left out."""


async def read_body(request: Request, model: type[Body]) -> Body:
    """A JSON body, whatever its content type says: clients that set other headers lose theirs."""
    return await read_json(request, model, strict=False, any_type=True)


def listed(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def check_images(images: Sequence[str], limits: Settings) -> None:
    """Raises InvalidInput for none, and TooLarge for too many."""
    if not images:
        raise InvalidInput("image is empty. Give at least one image.")
    if len(images) > limits.max_images:
        raise TooLarge(f"There are {len(images)} images; at most {limits.max_images} are accepted in one request.")


async def read_images(images: Sequence[str], headers: Mapping[str, Any] | None, engine: Engine) -> list[Image]:
    """Fetches and decodes all images of a request side by side.

    Raises:
        InvalidInput: one cannot be had or decoded; the message names its index.
        TooLarge: together they have too many pixels.
    """
    sent = download_headers(headers or {})
    pixels_left = engine.settings.max_request_pixels

    async def read(index: int, image: str) -> Image:
        nonlocal pixels_left
        try:
            data = await engine.downloader.get(image, sent) if "://" in image[:16] else image
            pixels = (await read_image(data, engine)).pixels
        except (InsufficientMemory, Busy):
            raise
        except VisionError as error:
            raise InvalidInput(f"image[{index}]: {error.message}") from error
        pixels_left -= pixels.size // 3
        if pixels_left < 0:
            raise TooLarge("The images have too many pixels together for one request. Send fewer or smaller ones.")
        return pixels

    return await gather_or_cancel(partial(read, index, image) for index, image in enumerate(images))


def download_headers(given: Mapping[str, Any]) -> dict[str, str]:
    """Headers as they are sent. Raises InvalidInput for what cannot be one."""
    headers = {}
    for name, value in given.items():
        text = value if isinstance(value, str) else str(value)
        plain = name.replace("-", "").isalnum() and (name + text).isascii() and (not text or text.isprintable())
        if not plain or len(text) > 8192:
            raise InvalidInput("imageDownloadHeaders has a name or a value that no HTTP header can have.")
        if name.lower() not in CONNECTION_HEADERS:
            headers[name.title()] = text.strip()
    return headers
