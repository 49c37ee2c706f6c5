"""JPEG: how many scans there are, and the segments that pixels need."""

from __future__ import annotations

import re

import numpy as np

from vision_model_repo.errors import InvalidInput

MAX_SCANS = 32
"""Most passes over a picture. Usual encoders make up to 10, up to 18 for CMYK, the most eager optimizers fewer than 30;
libjpeg does the work of every one over the whole picture, even where it has no data."""

MAX_SEGMENTS = 8192
"""Most segments in front of the first scan. 128 MB of the longest ones are 2048."""

# Fill bytes, FF too, may stand in front of a marker; FF 00 is a byte of data. So libjpeg finds the next marker, too.
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_SOS, _EOI = 0xDA, 0xD9
_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a segment: TEM, RST and SOI."""


def lean_jpeg(data: bytes) -> bytes:
    """A JPEG without comments, colour profiles and further metadata, but with its orientation.

    Raises:
        InvalidInput: it has no scan, or too many scans or segments.
    """
    parts, place, kept_exif, kept_xmp = [b"\xff\xd8"], 2, False, False
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, place)
        # Pillow would look on for a scan, byte by byte.
        if found is None or data[found.end() - 1] == _EOI:
            raise InvalidInput("The image is damaged or truncated.")
        marker, place = data[found.end() - 1], found.end()
        if marker in _ALONE:
            continue
        end = place + int.from_bytes(data[place : place + 2], "big")
        if marker == _SOS:
            check_scans(data, found.start())
            return b"".join([*parts, data[found.end() - 2 :]])
        body = data[place + 2 : place + 34]
        exif = marker == 0xE1 and body.startswith(b"Exif\0\0")
        xmp = marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0")
        # Of the application's segments, libjpeg reads JFIF's and Adobe's; the orientation may be in Exif or XMP.
        if (not 0xE0 <= marker <= 0xEF and marker != 0xFE) or marker in (0xE0, 0xEE):
            parts.append(data[found.end() - 2 : end])
        elif (exif and not kept_exif) or (xmp and not kept_xmp):
            parts.append(data[found.end() - 2 : end])
            kept_exif, kept_xmp = kept_exif or exif, kept_xmp or xmp
        place = end
    raise InvalidInput(f"The JPEG has more than {MAX_SEGMENTS} segments before its picture. Save it anew.")


def check_scans(data: bytes, start: int, end: int | None = None) -> None:
    """Raises InvalidInput if the JPEG in `data[start:end]` has too many scans."""
    end = len(data) if end is None else min(end, len(data))
    # Most files need no more than this: it counts what looks like a scan, thumbnails and further pictures included.
    if _count_pairs(data, start, end, 0xDAFF) <= MAX_SCANS:
        return
    scans = segments = 0
    while found := _MARKER.search(data, start, end):
        marker, start = data[found.end() - 1], found.end()
        if marker == _EOI:
            return
        # Restart markers are many in honest files, and are skipped without counting.
        if marker in _ALONE:
            continue
        start += int.from_bytes(data[start : start + 2], "big")
        segments += 1
        scans += marker == _SOS
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            raise InvalidInput(
                f"The JPEG has more than {MAX_SCANS} scans, which makes it too costly to decode. Save it anew, "
                "progressive with the usual scans or not progressive."
            )


def _count_pairs(data: bytes, start: int, end: int, pair: int) -> int:
    """How often two bytes, the first one the lower of `pair`, follow each other, sooner than bytes.count."""
    count = 0
    for offset in (start, start + 1):
        pairs = np.frombuffer(data, "<u2", max(0, end - offset) // 2, min(offset, len(data)))
        count += int(np.count_nonzero(pairs == pair))
    return count
