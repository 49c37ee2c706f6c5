"""Media of a request: URLs, data URIs, and files that settings let callers name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import InvalidInput, NotAllowed, TooLarge, VisionError
from vision_model_repo.formats.images import decode_base64, decode_image

MEGABYTE = 2**20

Media = str | bytes
"""As it came: text, or an uploaded file."""


async def read_media(media: Media, engine: Engine, name: str) -> bytes:
    """The bytes that a request gives or names.

    Raises:
        InvalidInput, TooLarge: they cannot be had; the message begins with the name.
        NotAllowed: a file outside the folders that settings open.
    """
    limits = engine.settings
    return await _read(media, engine, name, limits.max_url_mb, limits.url_timeout_seconds)


async def read_video(media: Media, engine: Engine, name: str) -> bytes:
    """Like `read_media`, up to the size of a video."""
    limits = engine.settings
    return await _read(media, engine, name, limits.max_video_mb, limits.video_url_timeout_seconds)


async def _read(media: Media, engine: Engine, name: str, max_mb: int, seconds: float) -> bytes:
    if isinstance(media, bytes):
        return media
    try:
        if _is_url(media):
            return await engine.downloader.get(media, max_bytes=max_mb * MEGABYTE, timeout_seconds=seconds)
        if _is_file(media, engine):
            return await engine.pixels.run(_read_file, media, engine.settings.media_roots, max_mb)
        return await engine.pixels.run(decode_base64, media)
    except VisionError as error:
        raise type(error)(f"{name}: {error.message}") from error


async def read_picture(media: Media, engine: Engine, name: str) -> NDArray[np.uint8]:
    """The pixels of an image, (H, W, 3) RGB, upright. Raises what `read_media` does, InvalidInput for no image."""
    # Base64 is decoded where the image is: once to another thread and back, and not twice.
    given = await read_media(media, engine, name) if _is_named(media, engine) else media
    try:
        return await engine.pixels.run(_decode, given, engine.settings.max_image_pixels)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}") from error


def _decode(media: Media, max_pixels: int) -> NDArray[np.uint8]:
    return decode_image(decode_base64(media) if isinstance(media, str) else media, max_pixels=max_pixels)


def _is_named(media: Media, engine: Engine) -> bool:
    """Whether a request says where media are, in place of the media themselves."""
    return isinstance(media, str) and (_is_url(media) or _is_file(media, engine))


def _is_url(text: str) -> bool:
    return "://" in text[:16]


def _is_file(text: str, engine: Engine) -> bool:
    return bool(engine.settings.media_roots) and text[:5].lower() != "data:" and _is_path(text)


def _is_path(text: str) -> bool:
    """Whether text may name a file. Base64 of an image is longer than any path, and has no dot."""
    return len(text) < 4096 and "\0" not in text and ("." in text or len(text) < 256)


def _read_file(text: str, roots: tuple[Path, ...], max_mb: int) -> bytes:
    # Resolved first: neither ".." nor a link leads out of the folders.
    path = Path(text).resolve()
    if not any(path.is_relative_to(root.resolve()) for root in roots):
        raise NotAllowed("The path is outside the folders that this server reads from (MEDIA_ROOTS).")
    try:
        if path.stat().st_size > max_mb * MEGABYTE:
            raise TooLarge(f"The file is larger than {max_mb} MB.")
        return path.read_bytes()
    except OSError:
        raise InvalidInput("There is no such file, or it cannot be read.") from None
