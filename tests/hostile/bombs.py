"""Small pictures whose decoding would cost far more than their size and their pixels tell.

Every function takes how large the attack is to be: tests use small ones with small limits, measurements large ones.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from PIL import Image

Tag = tuple[int, int, int, bytes]
"""A TIFF tag: its number, type, count of values, and their bytes."""


def encoded(picture: Image.Image, name: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


# JPEG


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_of_scans(width: int, height: int, scans: int, *, between: bytes = b"", colour: bool = False) -> bytes:
    """A progressive JPEG whose last scan, a few bytes, comes many times.

    Args:
        between: what stands in front of every repeated scan.
    """
    data = encoded(Image.new("RGB" if colour else "L", (width, height), 99), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + (between + data[last:-2]) * scans + b"\xff\xd9"


def jpeg_of_empty_scans(width: int, height: int, scans: int) -> bytes:
    """A sequential JPEG of three components whose scans hold no data, so that the decoder makes it up."""
    data = encoded(Image.new("RGB", (width, height)), "JPEG", subsampling="4:4:4")
    start = data.index(b"\xff\xda")
    scan = segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
    return data[:start] + scan * scans + b"\xff\xd9"


def jpeg_of_segments(count: int, body: bytes = b"", marker: int = 0xFE) -> bytes:
    """A small JPEG with many segments in front of its picture."""
    data = encoded(Image.new("L", (16, 16)), "JPEG")
    return data[:2] + segment(marker, body) * count + data[2:]


def jpeg_of_fill_bytes(count: int, fill: bytes = b"\xff") -> bytes:
    data = encoded(Image.new("L", (16, 16)), "JPEG")
    return data[:2] + fill * count + data[2:]


# PNG


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int = 16,
    height: int = 16,
    *,
    before: bytes = b"",
    after: bytes = b"",
    idat: bytes | None = None,
    **kind: int,
) -> bytes:
    """A gray PNG of zeros with chunks before and after its data."""
    interlace = kind.get("interlace", 0)
    header = struct.pack(">IIBBBBB", width, height, kind.get("bits", 8), kind.get("color", 0), 0, 0, interlace)
    body = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height))) if idat is None else idat
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + body + after + chunk(b"IEND")


def png_of_profiles(count: int, megabytes: int = 1) -> bytes:
    """Many colour profiles of zeros, each a thousand times larger than it looks."""
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(megabytes * 2**20 - 1), 9))
    return png(before=profile * count)


def png_of_texts(count: int) -> bytes:
    return png(before=chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**20 - 1), 9)) * count)


def png_of_chunks(count: int, kind: bytes = b"tIME", *, after: bool = False) -> bytes:
    return png(**{"after" if after else "before": chunk(kind) * count})  # type: ignore[arg-type]


def png_of_empty_data(count: int) -> bytes:
    return png(idat=chunk(b"IDAT") * count + chunk(b"IDAT", zlib.compress(bytes(17 * 16))))


def png_of_too_much_data(megabytes: int) -> bytes:
    """A picture of 16 x 16 pixels whose data unpacks to megabytes."""
    packer = zlib.compressobj(9)
    body = b"".join([packer.compress(bytes(2**20)) for _ in range(megabytes)] + [packer.flush()])
    return png(idat=chunk(b"IDAT", body))


def exif_of_entries(count: int) -> bytes:
    """Metadata in the form of a BigTIFF, with more entries than a TIFF can have."""
    return (
        b"II\x2b\0\x08\0\0\0" + struct.pack("<QQ", 16, count) + struct.pack("<HHQQ", 0x100, 3, 1, 1) * count + bytes(8)
    )


# GIF and BMP


def gif_of_extensions(count: int, block: bytes = b"!\x01\0") -> bytes:
    data = encoded(Image.new("L", (16, 16)), "GIF")
    place = data.index(b"!") if b"!" in data[13:] else data.index(b",")
    return data[:place] + block * count + data[place:]


def gif_with_frame(width: int, height: int) -> bytes:
    """A canvas of 1 x 1 pixel with a larger frame on it."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame + b";"


def bmp_of_runs(width: int, height: int, runs: bytes, *, bits: int = 8) -> bytes:
    """A run-length coded BMP."""
    palette = bytes(i % 251 for i in range(4 << bits))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, {8: 1, 4: 2}[bits], len(runs), 0, 0, 0, 0)
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(runs), 0, 0, offset) + header + palette + runs


# TIFF


def tiff(tags: Sequence[Tag], data: bytes = b"", *, big: bool = False) -> bytes:
    """A TIFF of one directory. `data` lies behind the header, at 8, or 16 where it is a BigTIFF."""
    start = (16 if big else 8) + len(data) + len(data) % 2
    size, head = (20, 8) if big else (12, 2)
    place = start + head + size * len(tags) + (8 if big else 4)
    entries, values = [], []
    inline = 8 if big else 4
    for number, kind, count, body in tags:
        if len(body) <= inline:
            value = body.ljust(inline, b"\0")
        else:
            value = struct.pack("<Q" if big else "<I", place)
            values.append(body)
            place += len(body)
        entries.append(struct.pack("<HHQ" if big else "<HHI", number, kind, count) + value)
    first = b"II\x2b\0\x08\0\0\0" + struct.pack("<Q", start) if big else b"II*\0" + struct.pack("<I", start)
    count = struct.pack("<Q" if big else "<H", len(tags))
    return first + data + bytes(len(data) % 2) + count + b"".join(entries) + bytes(inline) + b"".join(values)


def short(number: int, *values: int) -> Tag:
    return number, 3, len(values), struct.pack(f"<{len(values)}H", *values)


def long(number: int, *values: int) -> Tag:
    return number, 4, len(values), struct.pack(f"<{len(values)}I", *values)


def same(number: int, value: int, count: int) -> Tag:
    return number, 4, count, struct.pack("<I", value) * count


def gray_tiff(
    width: int,
    height: int,
    strips: int,
    strip: bytes,
    *,
    compression: int = 1,
    claimed: int | None = None,
    extra: Sequence[Tag] = (),
) -> bytes:
    """A gray TIFF, all of whose strips are the same bytes of the file.

    Args:
        claimed: how many bytes each strip is said to have.
    """
    tags = [
        long(256, width),
        long(257, height),
        short(258, 8),
        short(259, compression),
        short(262, 1),
        same(273, 8, strips),
        short(277, 1),
        long(278, -(-height // strips)),
        same(279, len(strip) if claimed is None else claimed, strips),
    ]
    own = {tag[0] for tag in extra}
    return tiff(sorted([*(tag for tag in tags if tag[0] not in own), *extra]), strip)


def tiff_of_one_tile(side: int, tile_width: int, tile_height: int) -> bytes:
    """A small picture in one large tile of zeros."""
    packer = zlib.compressobj(9)
    row = bytes(tile_width)
    strip = b"".join([packer.compress(row) for _ in range(tile_height)] + [packer.flush()])
    tags = [
        long(256, side),
        long(257, side),
        short(258, 8),
        short(259, 8),
        short(262, 1),
        short(277, 1),
        long(322, tile_width),
        long(323, tile_height),
        long(324, 8),
        long(325, len(strip)),
    ]
    return tiff(tags, strip)


def tiff_of_tags(count: int) -> bytes:
    """A BigTIFF with one tag many times."""
    tags = [short(256, 4), short(257, 4), short(258, 8), short(259, 1), short(262, 1), long(273, 16), long(279, 16)]
    big = [(n, k, c, b.ljust(8, b"\0")) for n, k, c, b in tags]
    return tiff([*big, *([short(65000, 1)] * count)], bytes(16), big=True)


def tiff_with_values(number: int, kind: int, count: int, size: int) -> bytes:
    """A small TIFF with one tag of very many values."""
    return gray_tiff(4, 4, 1, bytes(16), extra=[(number, kind, count, b"\x01\0\0\0\x01\0\0\0"[:size] * count)])


def jpeg_tiff(width: int, height: int, strips: int, scans: int) -> bytes:
    """A TIFF whose strips are one progressive JPEG."""
    rows = height // strips
    return gray_tiff(width, height, strips, jpeg_of_scans(width, rows, scans), compression=7)


# WebP


def riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def webp_on_canvas(width: int, height: int, *, chunks: bytes = b"") -> bytes:
    """A frame of 16 x 16 pixels on a larger canvas."""
    still = encoded(Image.new("RGB", (16, 16)), "WEBP")[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4) + still
    body = riff(b"VP8X", b"\x02\0\0\0" + canvas) + riff(b"ANIM", bytes(6)) + chunks + riff(b"ANMF", frame)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


# AVIF


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", len(body) + 8) + kind + body


def full_box(kind: bytes, version: int, *parts: bytes) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *parts)


def av1_of(width: int, height: int) -> tuple[bytes, bytes]:
    """The coded picture of a flat AVIF, and its av1C box."""
    data = encoded(Image.new("RGB", (width, height), (9, 99, 200)), "AVIF", quality=1, speed=10)
    place = data.index(b"av1C") - 4
    configuration = data[place : place + int.from_bytes(data[place : place + 4], "big")]
    return data[data.index(b"mdat") + 4 :], configuration


def avif(coded: bytes, configuration: bytes, size: tuple[int, int], *, grid: tuple[int, int] | None = None) -> bytes:
    """An AVIF of one coded picture, of whatever size it is said to have.

    Args:
        grid: rows and columns of a grid, all of whose cells are that one picture.
    """
    width, height = size
    cells = grid[0] * grid[1] if grid else 1
    ids = range(1, cells + 1)
    extents = [(number, 0, len(coded)) for number in ids]
    sizes = full_box(b"ispe", 0, struct.pack(">II", width, height))
    whole = b""
    properties = [sizes, configuration, full_box(b"pixi", 0, bytes([3, 8, 8, 8]))]
    associations = [struct.pack(">HB", number, 3) + bytes([1, 0x82, 3]) for number in ids]
    entries = [full_box(b"infe", 2, struct.pack(">HH", number, 0), b"av01\0") for number in ids]
    references = b""
    primary = 1
    if grid:
        rows, columns = grid
        primary = cells + 1
        whole = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, columns * width, rows * height)
        properties.append(full_box(b"ispe", 0, struct.pack(">II", columns * width, rows * height)))
        associations.append(struct.pack(">HB", primary, 2) + bytes([4, 3]))
        entries.append(full_box(b"infe", 2, struct.pack(">HH", primary, 0), b"grid\0"))
        extents.append((primary, len(coded), len(whole)))
        cell_ids = struct.pack(f">{cells}H", *ids)
        references = full_box(b"iref", 0, box(b"dimg", struct.pack(">HH", primary, cells), cell_ids))

    def meta(base: int) -> bytes:
        locations = b"".join(
            struct.pack(">HHHII", number, 0, 1, base + offset, length) for number, offset, length in extents
        )
        return full_box(
            b"meta",
            0,
            full_box(b"hdlr", 0, bytes(4) + b"pict" + bytes(13)),
            full_box(b"pitm", 0, struct.pack(">H", primary)),
            full_box(b"iloc", 0, b"\x44\0", struct.pack(">H", len(extents)), locations),
            full_box(b"iinf", 0, struct.pack(">H", len(entries)), *entries),
            references,
            box(
                b"iprp",
                box(b"ipco", *properties),
                full_box(b"ipma", 0, struct.pack(">I", len(associations)), *associations),
            ),
        )

    first = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    base = len(first) + len(meta(0)) + 8
    return first + meta(base) + box(b"mdat", coded, whole)


def avif_that_lies(actual: tuple[int, int], said: tuple[int, int], grid: tuple[int, int] | None = None) -> bytes:
    """An AVIF whose coded picture is larger than its boxes say."""
    return avif(*av1_of(*actual), said, grid=grid)


def avif_of_frames(width: int, height: int, frames: int) -> bytes:
    """An AVIF whose coded picture comes many times in one item."""
    coded, configuration = av1_of(width, height)
    return avif(coded * frames, configuration, (width, height))
