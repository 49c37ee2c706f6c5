"""Pictures to send, each one new to the server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.demo.scenes import render, sample_scene
from vision_model_repo.formats.images import encode_jpeg, encode_png

JPEG_BYTES = 100_000
JPEG_SIZE = (1280, 853)
GRAIN = 4.0
"""Noise of a camera, in grey levels; the rendered scenes are too clean to make files of a usual size."""


def fresh_pictures(width: int, height: int, *, scenes: int = 4) -> Iterator[bytes]:
    """PNG files without end. No two have the same pixels, so that nothing remembered helps."""
    images = [render(sample_scene(seed), width, height).image for seed in range(scenes)]
    for number in count():
        image = images[number % scenes].copy()
        # The corner shows the number in base 256: a difference that no answer depends on.
        image[0, 0] = number & 255, number >> 8 & 255, number >> 16 & 255
        yield encode_png(image)


def fresh_base64(width: int, height: int) -> Iterator[str]:
    """The same as base64, as JSON bodies carry them."""
    return (base64.b64encode(picture).decode() for picture in fresh_pictures(width, height))


def photographs(number: int) -> list[bytes]:
    """JPEG files of 1280 x 853 pixels and about 100 KB, each with a grain of its own."""
    clean = render(sample_scene(0), *JPEG_SIZE).image.astype(np.float32)
    rng = np.random.default_rng(0)
    return [_photograph(clean + rng.normal(0, GRAIN, clean.shape)) for _ in range(number)]


def _photograph(image: NDArray[np.floating]) -> bytes:
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    return min(
        (encode_jpeg(pixels, quality) for quality in range(76, 88, 2)), key=lambda file: abs(len(file) - JPEG_BYTES)
    )


def padded_photographs(number: int) -> list[bytes]:
    """As large as `photographs`, but with 8 x 8 pixels: all the work of serving and none of decoding."""
    small = [encode_jpeg(np.full((8, 8, 3), 10 * value, np.uint8)) for value in range(number)]
    return [file + bytes(JPEG_BYTES - len(file)) for file in small]
