"""Pictures, encoded as requests have them."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A file of that kind, with options of Pillow's `save`."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int = 16, height: int = 8, color: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """A picture of one colour."""
    return encoded(Image.new("RGB", (width, height), color))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pixels_of(picture: bytes) -> np.ndarray:
    """(H, W, C) as stored."""
    return np.asarray(Image.open(BytesIO(picture)))


IMAGE = b64(png())
"""A picture 16 pixels wide and 8 high."""
