"""The work that every peer does for a request: decode a picture, and answer with a box around its middle."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

# What this project's server does too; it saves a peer up to half of its time.
Image.core.set_blocks_max(16)


def detect(picture: bytes) -> dict[str, Any]:
    """The answer about an encoded picture."""
    height, width = np.asarray(Image.open(BytesIO(picture)).convert("RGB")).shape[:2]
    return {"boxes": [[width / 4, height / 4, 3 * width / 4, 3 * height / 4]], "scores": [1.0], "labels": ["object"]}


def detect_base64(text: str) -> dict[str, Any]:
    return detect(base64.b64decode(text))
