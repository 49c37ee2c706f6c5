"""Pictures made safe to decode: what they cost afterwards follows from their pixels.

A decoder does what a file says, and some files say a lot in few bytes: a hundred scans over one picture, a million
comments, a thousand colour profiles. Each module here reads the structure of one format, without decoding, drops what
pixels do not need, and refuses what would make decoding dear. Nothing that cameras or programs write is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from vision_model_repo.formats.sanitize.avif import check_avif
from vision_model_repo.formats.sanitize.bmp import lean_bmp
from vision_model_repo.formats.sanitize.jpeg import lean_jpeg
from vision_model_repo.formats.sanitize.png import lean_png
from vision_model_repo.formats.sanitize.simple import check_gif, webp_pixels
from vision_model_repo.formats.sanitize.tiff import lean_tiff

_SANITIZERS: dict[str, Callable[[bytes], bytes]] = {
    "JPEG": lean_jpeg,
    "PNG": lean_png,
    "TIFF": lean_tiff,
    "GIF": check_gif,
}


__all__ = ["check_avif", "sanitize", "webp_pixels"]


def sanitize(data: bytes, format_name: str, *, max_pixels: int) -> bytes:
    """The same picture, of a format as Pillow names it, without what its pixels do not need.

    WebP and AVIF come back as they are: their decoders skip what they do not need. WebP draws no more than the canvas;
    what an AVIF codes is for `check_avif`, once the size of the picture is known.

    Args:
        max_pixels: larger ones are to be refused by the caller.

    Raises:
        InvalidInput: decoding it would cost far more than its pixels tell.
    """
    if format_name == "BMP":
        return lean_bmp(data, max_pixels)
    lean = _SANITIZERS.get(format_name)
    return lean(data) if lean else data
