"""TIFF: the tags that pixels need, and how many strips or tiles there are, of what size."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.sanitize.jpeg import check_scans

MAX_TAGS = 4096
"""Most tags, which is libtiff's limit, too."""
MAX_PIECES = 100_000
"""Most strips or tiles: a picture of 64 megapixels in tiles of 64 x 64 has 16,000."""
FREE_PIECES = 10_000
PIECE_PIXELS = 256
"""A picture may have so many strips or tiles, and one more for every so many pixels: single rows are common."""
MAX_VALUES = 3 * 65536
"""Most values of another tag; the colours of a palette are that many."""
TILE_SLACK = 4 * 2**20
"""Pixels that tiles may have beyond four times those of the picture."""

_WIDTH, _HEIGHT, _COMPRESSION, _PLANAR, _SAMPLES, _ROWS = 256, 257, 259, 284, 277, 278
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_PIECES = {273: 279, 324: 325}
"""Tag of the offsets of strips and tiles, and of their lengths."""
_COUNTED = {
    _WIDTH,
    _HEIGHT,
    _COMPRESSION,
    _PLANAR,
    _SAMPLES,
    _ROWS,
    _TILE_WIDTH,
    _TILE_HEIGHT,
    *_PIECES,
    *_PIECES.values(),
}
"""Tags that are looked at here, and that decoders would take as numbers of other types, too."""
_JPEG, _OLD_JPEG = 7, 6
# Of the baseline, and what decoders of compressed data look for. Without the rest there is no metadata, no second
# page, and no directory below this one.
_NEEDED = {
    *(256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
    *(332, 334, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True, slots=True)
class _Form:
    """How numbers are written: the order of bytes, and whether it is a BigTIFF."""

    order: str
    big: bool

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))

    @property
    def count(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @property
    def offset(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "I"))


def lean_tiff(data: bytes) -> bytes:
    """A TIFF of its first page, with the tags that pixels need.

    Raises:
        InvalidInput: it has no directory, or decoding would cost far more than its pixels tell.
    """
    form = _Form("<" if data[:2] == b"II" else ">", data[2:4] in (b"\x2b\0", b"\0\x2b"))
    try:
        start = int(form.offset.unpack_from(data, 8 if form.big else 4)[0])
        (count,) = form.count.unpack_from(data, start)
        if count > MAX_TAGS:
            raise InvalidInput(f"The TIFF has {count} tags; at most {MAX_TAGS} are accepted. Save it anew.")
    except struct.error:
        raise InvalidInput("The image is damaged or truncated.") from None
    first = start + form.count.size
    # Pillow goes on with a directory that ends early.
    whole = min(count, max(0, len(data) - first) // form.entry.size)
    entries = [form.entry.unpack_from(data, first + index * form.entry.size) for index in range(whole)]
    needed: dict[int, tuple[int, int, int, bytes]] = {}
    for entry in entries:
        if entry[0] in _NEEDED:
            needed.setdefault(entry[0], entry)
    _check(data, form, needed)
    directory = form.count.pack(len(needed)) + b"".join(form.entry.pack(*entry) for entry in needed.values())
    directory += bytes(form.offset.size)
    return b"".join([data[:start], directory, data[start + len(directory) :]])


def _check(data: bytes, form: _Form, tags: dict[int, tuple[int, int, int, bytes]]) -> None:
    for number, kind, count, _ in tags.values():
        if number in _COUNTED and kind not in _INTEGERS:
            raise InvalidInput(f"Tag {number} of the TIFF is of a wrong type. Save it anew.")
        limit = MAX_PIECES if number in (*_PIECES, *_PIECES.values()) else MAX_VALUES
        # Bytes are taken as they are; numbers become objects one by one, and fractions are dear.
        if (count > limit and _SIZES.get(kind, 1) > 1) or (count > 64 and kind in (5, 10)):
            raise InvalidInput(
                f"The TIFF has {count} values of tag {number}; at most {limit} are accepted. Save it anew."
            )

    def values(number: int) -> Sequence[int]:
        return _values(data, form, tags.get(number))

    def value(number: int, default: int) -> int:
        return next(iter(values(number)), default)

    width, height = value(_WIDTH, 0), value(_HEIGHT, 0)
    pieces = max((tags[offsets][2] for offsets in _PIECES if offsets in tags), default=0)
    if pieces > FREE_PIECES + width * height // PIECE_PIXELS:
        raise InvalidInput(
            f"The TIFF has {width} x {height} pixels in {pieces} strips or tiles. Save it anew, in larger ones."
        )
    if _TILE_WIDTH in tags and 324 in tags:
        across, down = max(1, value(_TILE_WIDTH, 1)), max(1, value(_TILE_HEIGHT, 1))
        padded = -(-width // across) * across * -(-height // down) * down
        if padded > 4 * width * height + TILE_SLACK:
            raise InvalidInput(
                f"The TIFF has {width} x {height} pixels in tiles of {across} x {down}. Save it anew, in smaller tiles."
            )
    for offsets, lengths in _PIECES.items():
        if offsets in tags:
            _check_pieces(data, value(_COMPRESSION, 1), values(offsets), values(lengths))


def _check_pieces(data: bytes, compression: int, offsets: Sequence[int], lengths: Sequence[int]) -> None:
    # Equal tiles may share their bytes, as blank ones do, but not all of them half the file.
    if sum(min(length, len(data)) for length in lengths) > 4 * len(data) + 64 * 2**20:
        raise InvalidInput("The TIFF says that its strips or tiles have more bytes than the file. Save it anew.")
    if compression == _OLD_JPEG:
        check_scans(data, 0)
    if compression != _JPEG:
        return
    # libtiff looks for the end itself where a length is missing, none, or of a single strip.
    known = len(lengths) == len(offsets) > 1
    pieces = {(offset, length if known and length else None) for offset, length in zip(offsets, lengths, strict=False)}
    if not known:
        pieces = {(offset, None) for offset in offsets}
    seen = 0
    for offset, length in pieces:
        end = len(data) if length is None else min(offset + length, len(data))
        seen += max(0, end - offset)
        if len(pieces) > 1 and seen > 4 * len(data) + 64 * 2**20:
            raise InvalidInput("The strips or tiles of the TIFF overlap. Save it anew.")
        check_scans(data, offset, end)


def _values(data: bytes, form: _Form, entry: tuple[int, int, int, bytes] | None) -> Sequence[int]:
    """The values of a tag of whole numbers; none where it is missing or broken."""
    if entry is None or (code := _INTEGERS.get(entry[1])) is None:
        return ()
    _, kind, count, body = entry
    size = count * _SIZES[kind]
    if size > len(body):
        (offset,) = form.offset.unpack(body)
        body = data[offset : offset + size]
    count = min(count, len(body) // _SIZES[kind])
    return struct.unpack_from(f"{form.order}{count}{code}", body)
