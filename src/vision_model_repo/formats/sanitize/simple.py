"""GIF and WebP: formats of which little can be dear."""

from __future__ import annotations

from vision_model_repo.errors import InvalidInput

MAX_BLOCKS = 100_000
"""Most blocks of data in front of the first picture of a GIF; a megabyte of metadata has 4,000."""


def check_gif(data: bytes) -> bytes:
    """A GIF as it is. Raises InvalidInput if too much stands in front of its first picture."""
    flags = data[10:11]
    place = 13 + (3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0)
    for _ in range(MAX_BLOCKS):
        kind = data[place : place + 1]
        if kind == b"!":
            # An extension is its label and blocks, of which an empty one is the last. Where the first one is empty,
            # Pillow takes what follows for more blocks, but for a comment.
            place += 3 if data[place + 2 : place + 3] == b"\0" and data[place + 1 : place + 2] != b"\xfe" else 2
        elif kind in (b",", b";", b""):
            return data
        else:
            place += 1
            continue
        for _ in range(MAX_BLOCKS):
            length = data[place : place + 1]
            place += 1 + (length[0] if length else 0)
            if length in (b"", b"\0"):
                break
        else:
            break
    raise InvalidInput("The GIF has too many blocks of data before its picture. Save it anew.")


def webp_pixels(data: bytes) -> int:
    """Pixels of a WebP by its header, 0 where that tells none. Its decoder allocates them when it is made.

    Layout by the WebP Container Specification and RFC 6386, section 9.1.
    """
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        return 0
    return width * height
