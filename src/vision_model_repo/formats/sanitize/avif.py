"""AVIF: whether its coded pictures are as many and as large as its boxes say.

Boxes by ISO/IEC 14496-12 and 23008-12.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.sanitize.av1 import coded_pixels

MAX_BOXES = 100_000
MAX_PIECES = 1024
"""Most coded pictures of one: cells of a grid, and their transparency."""
CODED_RATIO = 8
"""Coded pixels for each pixel shown: up to four layers of colour, and as many of transparency."""
CODED_SLACK = 2**20

Extent = tuple[int, int]
"""Where bytes are in the file: from, and how many."""


@dataclass(slots=True)
class _Items:
    """What the meta box tells of the pictures.

    Attributes:
        primary: the item that is shown.
        extents: where their bytes are.
        parts: items of which an item is made, as a grid of its cells.
        auxiliary: items and what they belong to, as transparency does.
        data_box: where the meta box holds data itself.
    """

    primary: int = 0
    extents: dict[int, list[Extent]] = field(default_factory=dict)
    parts: dict[int, Sequence[int]] = field(default_factory=dict)
    auxiliary: dict[int, Sequence[int]] = field(default_factory=dict)
    data_box: int = 0


def check_avif(data: bytes, shown: int) -> None:
    """Refuses an AVIF that codes far more than it shows.

    Args:
        shown: pixels of the picture, as its decoder will give it.

    Raises:
        InvalidInput: it does.
    """
    try:
        coded = 0
        for kind, start, end in _boxes(data, 0, len(data)):
            if kind == b"meta":
                coded = max(coded, _still(data, start, end))
            elif kind == b"moov":
                coded = max(coded, _moving(data, start, end))
    except (struct.error, IndexError):
        raise InvalidInput("The image is damaged or truncated.") from None
    if coded > CODED_RATIO * shown + CODED_SLACK:
        raise InvalidInput(f"The AVIF shows {shown} pixels and codes {coded}, which makes it too costly. Save it anew.")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of the contents of every box in a stretch."""
    for _ in range(MAX_BOXES):
        if start + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, start)
        begin = start + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, begin)
            begin += 8
        stop = end if length == 0 else start + length
        if stop < begin or stop > end:
            return
        yield kind, begin, stop
        start = stop
    raise InvalidInput(f"The AVIF has more than {MAX_BOXES} boxes. Save it anew.")


def _still(data: bytes, start: int, end: int) -> int:
    """Pixels that the still picture which a meta box describes codes."""
    items = _Items()
    found = list(_boxes(data, start + 4, end))
    for kind, begin, _ in found:
        if kind == b"idat":
            items.data_box = begin
    for kind, begin, stop in found:
        if kind == b"pitm":
            (items.primary,) = struct.unpack_from(">I" if data[begin] else ">H", data, begin + 4)
        elif kind == b"iref":
            _read_references(data, begin, stop, items)
        elif kind == b"iloc":
            _read_locations(data, begin, items)
    whole = {items.primary, *(item for item, owners in items.auxiliary.items() if items.primary in owners)}
    cells = [item for each in whole for item in (each, *items.parts.get(each, ()))]
    # Transparency may belong to the cells of a grid instead of the whole.
    belonging: dict[int, list[int]] = {}
    for item, owners in items.auxiliary.items():
        for owner in owners:
            belonging.setdefault(owner, []).append(item)
    cells += [item for cell in cells for item in belonging.get(cell, ()) if item not in whole]
    extents = [tuple(items.extents.get(item, ())) for item in cells]
    return sum(times * coded for coded, times in _coded(data, Counter(extents)))


def _coded(data: bytes, pieces: Counter[tuple[Extent, ...]]) -> Iterator[tuple[int, int]]:
    """Pixels that each piece of the file codes, and how many times it is decoded."""
    if len(pieces) > MAX_PIECES:
        raise InvalidInput(f"The AVIF has more than {MAX_PIECES} coded pictures. Save it anew.")
    left = 2 * len(data)
    for extents, times in pieces.items():
        left -= sum(length or len(data) for _, length in extents)
        if left < 0:
            raise InvalidInput("The pieces of the AVIF overlap. Save it anew.")
        coded = b"".join(data[at : at + length] if length else data[at:] for at, length in extents)
        yield coded_pixels(coded), times


def _read_references(data: bytes, start: int, end: int, items: _Items) -> None:
    code = "I" if data[start] else "H"
    size = struct.calcsize(">" + code)
    for kind, begin, _ in _boxes(data, start + 4, end):
        number, count = struct.unpack_from(f">{code}H", data, begin)
        targets = struct.unpack_from(f">{count}{code}", data, begin + size + 2)
        if kind == b"dimg":
            items.parts[number] = targets
        elif kind in (b"auxl", b"prem"):
            items.auxiliary[number] = targets


def _read_locations(data: bytes, start: int, items: _Items) -> None:
    version, sizes, more = data[start], data[start + 4], data[start + 5]
    offset_size, length_size, base_size, index_size = sizes >> 4, sizes & 15, more >> 4, more & 15
    place = start + 6

    def take(size: int) -> int:
        nonlocal place
        if place + size > len(data):
            raise IndexError
        place += size
        return int.from_bytes(data[place - size : place], "big")

    for _ in range(take(4 if version == 2 else 2)):
        number = take(4 if version == 2 else 2)
        in_data_box = version > 0 and take(2) & 15 == 1
        take(2)
        base = take(base_size) + (items.data_box if in_data_box else 0)
        extents: list[Extent] = []
        for _ in range(take(2)):
            if version > 0:
                take(index_size)
            extents.append((base + take(offset_size), take(length_size)))
        items.extents[number] = extents


def _moving(data: bytes, start: int, end: int) -> int:
    """Pixels that the first pictures of a sequence code, one of each track."""
    coded = 0
    for kind, begin, stop in _boxes(data, start, end):
        if kind != b"trak":
            continue
        found = dict(_leaves(data, begin, stop))
        if b"stsz" not in found:
            continue
        fixed, count = struct.unpack_from(">II", data, found[b"stsz"] + 4)
        length = fixed or (struct.unpack_from(">I", data, found[b"stsz"] + 12)[0] if count else 0)
        if b"stco" in found:
            (offset,) = struct.unpack_from(">I", data, found[b"stco"] + 8)
        else:
            (offset,) = struct.unpack_from(">Q", data, found[b"co64"] + 8) if b"co64" in found else (0,)
        coded += coded_pixels(data[offset : offset + length])
    return coded


def _leaves(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    for kind, begin, stop in _boxes(data, start, end):
        if kind in (b"mdia", b"minf", b"stbl"):
            yield from _leaves(data, begin, stop)
        else:
            yield kind, begin
