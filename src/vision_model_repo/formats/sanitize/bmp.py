"""BMP: run-length coded ones are unpacked here, since Pillow does so in Python, pixel by pixel.

Layout and escapes by Microsoft's description of BITMAPINFOHEADER and "Bitmap Compression".
"""

from __future__ import annotations

import re
import struct

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.errors import InvalidInput

FREE_ESCAPES = 100_000
ESCAPE_PIXELS = 4
MAX_ESCAPES = 1_000_000
"""Ends of rows, jumps and stretches without runs are read one by one. There may be one for every few pixels."""

_RUNS = re.compile(rb"(?:[\x01-\xff][\x00-\xff])++", re.DOTALL)
_RLE8, _RLE4 = 1, 2


def lean_bmp(data: bytes, max_pixels: int) -> bytes:
    """A BMP without run-length coding.

    Raises:
        InvalidInput: it is truncated, or has too many escapes.
    """
    if len(data) < 54:
        return data
    offset, header, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    if header < 40 or compression not in (_RLE8, _RLE4) or width * height > max_pixels:
        # The decoder knows the other kinds, and the caller the size.
        return data
    if (compression, bits) not in ((_RLE8, 8), (_RLE4, 4)) or width <= 0 or height <= 0:
        raise InvalidInput("The BMP is run-length coded in a way that the format does not have. Send a PNG.")
    pixels = _unpack(data[offset:], width, height, nibbles=compression == _RLE4)
    stride = -(-width // 4) * 4
    rows = np.zeros((height, stride), np.uint8)
    rows[:, :width] = pixels
    colors = struct.unpack_from("<I", data, 46)[0] or 1 << bits
    head = bytearray(data[: 14 + header])
    struct.pack_into("<HII", head, 28, 8, 0, stride * height)
    struct.pack_into("<I", head, 46, colors)
    palette = data[14 + header : offset]
    return b"".join([head, palette, rows.data])


def _unpack(data: bytes, width: int, height: int, *, nibbles: bool) -> NDArray[np.uint8]:
    """The pixels of a run-length coded bitmap, (height, width); what is skipped is 0. Raises what `lean_bmp` does."""
    pixels = np.zeros((height, width), np.uint8)
    x = y = place = 0
    for _ in range(min(MAX_ESCAPES, FREE_ESCAPES + width * height // ESCAPE_PIXELS)):
        if found := _RUNS.match(data, place):
            place = found.end()
            values = _repeat(np.frombuffer(found.group(), np.uint8), width - x, nibbles=nibbles)
            pixels[y, x : x + len(values)] = values
            x += len(values)
        if place + 1 >= len(data):
            if y < height - 1 or x < width:
                raise InvalidInput("The image is damaged or truncated.")
            return pixels
        code = data[place + 1]
        place += 2
        if code == 0:
            x, y = 0, y + 1
        elif code == 2:
            x, y = x + data[place] if place < len(data) else x, y + (data[place + 1] if place + 1 < len(data) else 0)
            place += 2
        elif code > 2:
            length = -(-code // 2) if nibbles else code
            values = np.frombuffer(data[place : place + length], np.uint8)
            if nibbles:
                values = np.stack([values >> 4, values & 15], axis=-1).ravel()[:code]
            values = values[: max(0, width - x)]
            pixels[y, x : x + len(values)] = values
            x += len(values)
            place += length + length % 2
        if code == 1 or y >= height:
            return pixels
        x = min(x, width)
    raise InvalidInput("The BMP is run-length coded, in too many pieces. Send a PNG.")


def _repeat(runs: NDArray[np.uint8], room: int, *, nibbles: bool) -> NDArray[np.uint8]:
    """Pixels of pairs of count and value, as many as there is room for in the row."""
    # One run has a pixel or more.
    counts, values = runs[0::2][:room], runs[1::2][:room]
    ends = np.minimum(np.cumsum(counts, dtype=np.int64), room)
    counts = np.diff(ends, prepend=0)
    if not nibbles:
        return np.repeat(values, counts)
    odd = (np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)) & 1
    both = np.repeat(values, counts)
    return np.where(odd, both & 15, both >> 4).astype(np.uint8)
