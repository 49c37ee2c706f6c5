"""PNG: the chunks that pixels need."""

from __future__ import annotations

import re

from vision_model_repo.errors import InvalidInput

MAX_CHUNKS = 200_000
"""Most chunks. A file of 128 MB in data of 8 KB, as libpng writes it, has 16,000."""

_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_NAME = re.compile(rb"\w{4}")
"""What Pillow takes for the name of a chunk."""
_SIGNATURE = 8
_FRAME = 12
"""Bytes of a chunk around its body: length, name and checksum."""


def lean_png(data: bytes) -> bytes:
    """A PNG of its first picture alone, without texts, colour profiles and empty data, but with its orientation.

    Raises:
        InvalidInput: it has too many chunks.
    """
    parts, place, kept, begin, dropped = [data[:_SIGNATURE]], _SIGNATURE, set[bytes](), _SIGNATURE, False
    for _ in range(MAX_CHUNKS):
        kind = data[place + 4 : place + 8]
        if not _NAME.fullmatch(kind):
            break
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + _FRAME + length
        need = kind in _NEEDED and (length > 0 or kind != b"IDAT")
        # The orientation is in Exif, or in the XMP that a text holds.
        once = kind == b"eXIf" or (kind == b"iTXt" and data[place + 8 : place + 25] == b"XML:com.adobe.xmp")
        if not need and not (once and kind not in kept):
            parts.append(data[begin:place])
            begin, dropped = end, True
        kept.add(kind)
        place = end
        if kind == b"IEND":
            break
    else:
        raise InvalidInput(f"The PNG has more than {MAX_CHUNKS} chunks. Save it anew.")
    return b"".join([*parts, data[begin:]]) if dropped else data
