"""Pictures whose decoding would cost far more than their pixels tell are refused, or decoded without what is dear."""

from __future__ import annotations

import struct
import time
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.hostile import bombs
from tests.hostile.bombs import encoded
from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.images import decode_image
from vision_model_repo.formats.sanitize import check_avif, jpeg, sanitize, tiff

LIMIT = 4_000_000


def decoded(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decode_image(data, max_pixels=LIMIT)


def gradient(height: int = 40, width: int = 60) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 4, y * 6, (x + y) * 2], axis=-1).astype(np.uint8))


def by_pillow(data: bytes) -> np.ndarray:
    return np.array(Image.open(BytesIO(data)).convert("RGB"))


# What is small and says a lot. Each would cost seconds to minutes at the size that a request may have.

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "scans": (lambda: bombs.jpeg_of_scans(64, 64, 40), "more than 32 scans"),
    "scans in colour": (lambda: bombs.jpeg_of_scans(64, 64, 40, colour=True), "more than 32 scans"),
    "scans without data": (lambda: bombs.jpeg_of_empty_scans(64, 64, 40), "more than 32 scans"),
    "scans behind fill bytes": (lambda: bombs.jpeg_of_scans(64, 64, 40, between=b"\xff\xff\xff"), "more than 32 scans"),
    "scans behind restarts": (
        lambda: bombs.jpeg_of_scans(64, 64, 40, between=b"\xff\xd0"),
        "more than 32 scans",
    ),
    "scans behind a hidden end": (
        lambda: bombs.jpeg_of_scans(64, 64, 40, between=bombs.segment(0xFE, b"\xff\xd9")),
        "more than 32 scans",
    ),
    "scans in a TIFF": (lambda: bombs.jpeg_tiff(64, 64, 1, 40), "more than 32 scans"),
    "scans in strips of a TIFF": (lambda: bombs.jpeg_tiff(64, 64, 4, 40), "more than 32 scans"),
    "comments in a JPEG": (lambda: bombs.jpeg_of_segments(10_000), "segments"),
    "chunks": (lambda: bombs.png_of_chunks(210_000), "chunks"),
    "chunks behind the data": (lambda: bombs.png_of_chunks(210_000, after=True), "chunks"),
    "comments in a GIF": (lambda: bombs.gif_of_extensions(110_000, b"!\xfe\x01a\0"), "blocks"),
    "a long comment in a GIF": (lambda: bombs.gif_of_extensions(1, b"!\xfe" + b"\x01a" * 110_000 + b"\0"), "blocks"),
    "jumps in a BMP": (lambda: bombs.bmp_of_runs(100, 100, b"\0\2\0\0" * 110_000), "run-length"),
    "strips": (lambda: bombs.gray_tiff(1, 20_000, 20_000, b"\0"), "in 20000 strips"),
    "strips without lengths": (
        lambda: bombs.gray_tiff(1, 20_000, 20_000, b"\0", extra=[bombs.same(279, 0, 1)]),
        "in 20000 strips",
    ),
    "more strips than any picture has": (lambda: bombs.gray_tiff(9000, 150_000, 150_000, bytes(9000)), "150000 values"),
    "strips that overlap": (
        lambda: bombs.gray_tiff(100, 5000, 5000, zlib.compress(bytes(100)) + bytes(200_000), compression=8),
        "more bytes than the file",
    ),
    "a large tile": (lambda: bombs.tiff_of_one_tile(16, 2**12, 2**11), "tiles of 4096 x 2048"),
    "tags": (lambda: bombs.tiff_of_tags(5000), "tags"),
    "depths": (lambda: bombs.tiff_with_values(258, 3, 300_000, 2), "values of tag 258"),
    "an AVIF that lies": (lambda: bombs.avif_that_lies((2048, 1024), (64, 64)), "codes 2097152"),
    "a grid that lies": (lambda: bombs.avif_that_lies((512, 512), (64, 64), (4, 4)), "codes 4194304"),
    "frames in an AVIF": (lambda: bombs.avif_of_frames(256, 256, 100), "codes 6553600"),
    "units in an AVIF": (lambda: bombs.avif(b"\x12\0" * 20_000, bombs.av1_of(64, 64)[1], (64, 64)), "units"),
    "a canvas": (lambda: bombs.webp_on_canvas(13_000, 13_000), "169000000 pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_dear_is_refused(name: str) -> None:
    make, words = REFUSED[name]
    data = make()
    started = time.process_time()
    with pytest.raises(InvalidInput, match=words):
        decoded(data)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("fill bytes alone", b"\xff\xd8\xff" + b"\xff" * 4_000_000),
        ("no scan", b"\xff\xd8\xff\xd9" + b"\xff" * 2_000_000),
        ("no scan and no end", b"\xff\xd8\xff\xe0\0\2" + bytes(4_000_000)),
        ("chunks with odd names", bombs.png_of_chunks(210_000, b"a1_d")),
        ("blocks behind an empty one", bombs.gif_of_extensions(1, b"!\1\0" + b"\x01," * 110_000)),
        ("a directory that ends early", bombs.tiff_with_values(282, 5, 100_000, 8)[:-1]),
        (
            "runs of a depth that has none",
            bombs.bmp_of_runs(1000, 1000, b"\1\5\0\0" * 1000).replace(b"\1\0\x08\0", b"\1\0\4\0", 1),
        ),
        ("runs from the top", bombs.bmp_of_runs(1000, -1000, b"\1\5\0\0" * 1000)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_pillow_would_search_for_long_is_refused_at_once(name: str, data: bytes) -> None:
    started = time.process_time()
    with suppress(InvalidInput):
        decoded(data)
    assert time.process_time() - started < 0.6


def test_a_directory_that_ends_early_is_checked_all_the_same() -> None:
    # The directory is the last thing in the file, and says that it has one tag more.
    tags = [bombs.long(256, 4), bombs.long(257, 4), bombs.short(258, 8), bombs.short(259, 1), bombs.short(262, 1)]
    strips = b"\x08\0\0\0" * 300_000
    data = bombs.tiff([*tags, (273, 4, 300_000, struct.pack("<I", 8)), bombs.long(279, 16)], strips)
    place = struct.unpack_from("<I", data, 4)[0]
    early = data[:place] + struct.pack("<H", 8) + data[place + 2 : place + 2 + 7 * 12]
    with pytest.raises(InvalidInput, match="300000 values of tag 273"):
        decoded(early)


LEAN: dict[str, Callable[[], bytes]] = {
    "fill bytes": lambda: bombs.jpeg_of_fill_bytes(2_000_000),
    "Exif many times": lambda: bombs.jpeg_of_segments(500, b"Exif\0\0" + bytes(60_000), 0xE1),
    "Photoshop's blocks": lambda: bombs.jpeg_of_segments(
        100, b"Photoshop 3.0\0" + b"8BIM\0\1\0\0\0\0\0\0" * 5000, 0xED
    ),
    "colour profiles": lambda: bombs.png_of_profiles(400),
    "texts": lambda: bombs.png_of_texts(400),
    "empty data": lambda: bombs.png_of_empty_data(100_000),
    "data behind the picture": lambda: bombs.png_of_too_much_data(50),
    "long Exif": lambda: bombs.png(before=bombs.chunk(b"eXIf", bombs.exif_of_entries(100_000))),
    "fractions": lambda: bombs.tiff_with_values(282, 5, 200_000, 8),
    "values that no pixel needs": lambda: bombs.tiff_with_values(65000, 4, 500_000, 4),
}


@pytest.mark.parametrize("name", LEAN)
def test_what_pixels_do_not_need_costs_nothing(name: str) -> None:
    data = LEAN[name]()
    started = time.process_time()
    assert decoded(data).shape in ((16, 16, 3), (4, 4, 3))
    assert time.process_time() - started < 0.5


# Honest pictures


@pytest.mark.parametrize("scans", [0, 1, jpeg.MAX_SCANS - 6])
def test_usual_numbers_of_scans_are_decoded(scans: int) -> None:
    # Gray ones have six scans as they come.
    assert decoded(bombs.jpeg_of_scans(64, 48, scans)).shape == (48, 64, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_progressive_pictures_of_every_kind_are_decoded(mode: str) -> None:
    data = encoded(gradient().convert(mode), "JPEG", progressive=True)
    assert np.array_equal(decoded(data), by_pillow(data))


def test_a_thumbnail_and_what_follows_the_picture_are_no_scans() -> None:
    sound = encoded(gradient(), "JPEG", progressive=True)
    many = b"\xff\xda\0\x08" * 200
    embedded = sound[:2] + bombs.segment(0xE5, many) + bombs.segment(0xE1, b"thumbnail" + many) + sound[2:]
    for data in (embedded, sound + many, embedded + sound * 20):
        assert np.array_equal(decoded(data), decoded(sound))


def test_pictures_of_an_mpo_are_counted_one_by_one() -> None:
    picture = gradient()
    data = encoded(picture, "MPO", save_all=True, append_images=[picture] * 50)
    assert np.array_equal(decoded(data), by_pillow(data))


def test_strips_of_a_tiff_are_counted_one_by_one() -> None:
    data = encoded(gradient(480, 320), "TIFF", compression="jpeg", strip_size=320 * 8 * 3)
    assert data.count(b"\xff\xda") > jpeg.MAX_SCANS
    assert np.array_equal(decoded(data), by_pillow(data))


def test_a_profile_and_comments_do_not_change_pixels() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, options in (("JPEG", {"comment": b"x" * 300}), ("PNG", {}), ("TIFF", {}), ("WEBP", {}), ("AVIF", {})):
        plain, dressed = encoded(gradient(), name), encoded(gradient(), name, icc_profile=profile, **options)
        assert np.array_equal(decoded(dressed), decoded(plain)), name


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF"])
def test_the_orientation_is_kept_among_other_metadata(name: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x9286] = 6, "maker", b"x" * 1000
    options: dict[str, Any] = {"exif": exif.tobytes(), "dpi": (300, 300)}
    assert decoded(encoded(gradient(), name, **options)).shape == (60, 40, 3)


def test_the_orientation_in_xmp_is_kept() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert decoded(encoded(gradient(), "JPEG", xmp=xmp)).shape == (60, 40, 3)
    text = bombs.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    assert decoded(bombs.png(60, 40, before=text)).shape == (60, 40, 3)


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("width", "height"), [(1, 50_000), (50_000, 1), (500, 100)])
def test_a_png_of_any_form_is_decoded(width: int, height: int, interlace: int) -> None:
    rows = zlib.compress(bytes(2 * (width + 8) * (height + 8)))
    data = bombs.png(width, height, idat=bombs.chunk(b"IDAT", rows), interlace=interlace)
    assert decoded(data).shape == (height, width, 3)


def test_a_png_in_many_pieces_is_decoded() -> None:
    body = zlib.compress(bytes(101 * 100), 0)
    pieces = b"".join(bombs.chunk(b"IDAT", body[at : at + 1]) for at in range(len(body)))
    assert not decoded(bombs.png(100, 100, idat=pieces)).any()


def test_only_the_first_of_many_frames_is_decoded() -> None:
    frames = [Image.new("RGB", (64, 64), (index, 0, 255 - index)) for index in range(200)]
    for name in ("GIF", "PNG", "WEBP"):
        data = encoded(frames[0], name, save_all=True, append_images=frames[1:])
        assert np.abs(decoded(data).astype(int) - (0, 0, 255)).max() < 10, name


def test_a_frame_larger_than_its_canvas_counts_with_its_own_size() -> None:
    with pytest.raises(InvalidInput, match="3000 x 3000 pixels"):
        decoded(bombs.gif_with_frame(3000, 3000))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_is_decoded_in_any_order_of_bytes(order: str, big: bool) -> None:
    picture = gradient()
    data = encoded(picture, "TIFF", big_tiff=big)
    if order == ">":
        sixteen = Image.fromarray(np.arange(64, dtype=">u2").reshape(8, 8) * 1000)
        data = encoded(sixteen, "TIFF", big_tiff=big)
        assert decoded(data)[..., 0].ravel().tolist() == np.rint(np.arange(64) * 1000 / 257).tolist()
    else:
        assert np.array_equal(decoded(data), np.asarray(picture))


def test_a_tiff_of_pages_below_others_and_with_itself_as_next_is_decoded() -> None:
    data = bombs.gray_tiff(4, 4, 1, bytes(16), extra=[bombs.long(330, 24), bombs.long(34665, 24)])
    looped = bytearray(data)
    place = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, place)
    struct.pack_into("<I", looped, place + 2 + 12 * count, place)
    assert decoded(bytes(looped)).shape == (4, 4, 3)


def test_a_tiff_of_small_tiles_and_of_single_rows_is_decoded() -> None:
    assert decoded(bombs.tiff_of_one_tile(40, 64, 64)).shape == (40, 40, 3)
    assert decoded(bombs.gray_tiff(300, 5000, 5000, bytes(300))).shape == (5000, 300, 3)
    assert tiff.FREE_PIECES + 64_000_000 // tiff.PIECE_PIXELS > 64_000_000 // 256 > tiff.MAX_PIECES


@pytest.mark.parametrize("kind", [6, 8, 9, 11, 12])
def test_numbers_of_other_types_do_not_hide_what_they_tell(kind: int) -> None:
    value = struct.pack({6: "<b", 8: "<h", 9: "<i", 11: "<f", 12: "<d"}[kind], 7)
    strip = bombs.jpeg_of_scans(64, 64, 40)
    with pytest.raises(InvalidInput, match="Tag 259 of the TIFF"):
        decoded(bombs.gray_tiff(64, 64, 1, strip, extra=[(259, kind, 1, value)]))


def test_equal_tiles_may_share_their_bytes() -> None:
    assert decoded(bombs.gray_tiff(64, 640, 80, zlib.compress(bytes(64 * 8)), compression=8)).shape == (640, 64, 3)


@pytest.mark.parametrize("options", [{}, {"quality": 100}, {"range": "limited"}, {"tile_rows": 2}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_avifs_of_every_kind_are_decoded(mode: str, options: dict[str, Any]) -> None:
    assert decoded(encoded(gradient(200, 300).convert(mode), "AVIF", speed=10, **options)).shape == (200, 300, 3)


def test_an_avif_of_frames_and_one_of_a_grid_are_decoded() -> None:
    frames = [Image.new("RGB", (700, 500), (index, 0, 0)) for index in range(12)]
    moving = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:], speed=10)
    assert decoded(moving).shape == (500, 700, 3)
    assert decoded(bombs.avif_that_lies((512, 512), (512, 512), (2, 3))).shape == (1024, 1536, 3)


@pytest.mark.parametrize("size", [(64, 64), (65, 33), (1000, 700), (16, 2000)])
def test_the_coded_size_of_an_avif_is_what_it_shows(size: tuple[int, int]) -> None:
    from vision_model_repo.formats.sanitize.av1 import coded_pixels

    coded, _ = bombs.av1_of(*size)
    assert coded_pixels(coded) == size[0] * size[1]


def test_an_avif_with_other_boxes_before_its_pictures_is_judged_all_the_same() -> None:
    data = bombs.avif_that_lies((2048, 1024), (64, 64))
    with pytest.raises(InvalidInput, match="codes"):
        check_avif(data + bombs.box(b"free", bytes(100)), 64 * 64)


def test_a_reference_to_other_items_does_not_hide_the_picture() -> None:
    data = bombs.avif_that_lies((2048, 1024), (64, 64))
    # The picture says that it is made of an item that is not there.
    place = data.index(b"meta") - 4
    size = struct.unpack_from(">I", data, place)[0]
    hidden = bombs.full_box(b"iref", 0, bombs.box(b"dimg", struct.pack(">HHH", 1, 1, 9)))
    meta = bytearray(data[place : place + size] + hidden)
    struct.pack_into(">I", meta, 0, len(meta))
    at = meta.index(b"iloc") + 8 + 2 + 2 + 2 + 2
    struct.pack_into(">I", meta, at + 2, struct.unpack_from(">I", meta, at + 2)[0] + len(hidden))
    with pytest.raises(InvalidInput, match="codes 2097152"):
        check_avif(data[:place] + meta + data[place + size :], 64 * 64)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "GIF", "BMP", "AVIF", "WEBP"])
def test_any_beginning_of_a_file_is_read_without_another_error(name: str) -> None:
    data = encoded(gradient(), name)
    for end in range(0, len(data), 1 + len(data) // 200):
        try:
            sanitize(data[:end], name, max_pixels=LIMIT)
            check_avif(data[:end], 1)
        except InvalidInput:
            pass


# Run-length coded BMPs


def runs_of(rows: np.ndarray, bits: int, dice: np.random.Generator) -> bytes:
    """Codes rows of values with all that the format has: runs, stretches as they are, jumps, and ends of rows."""
    coded = bytearray()
    for row in rows:
        x = 0
        while x < len(row):
            if row[x:].max() == 0:
                break
            gap = int(np.argmax(row[x:] > 0))
            if gap and dice.random() < 0.5:
                gap = min(gap, 255)
                coded += bytes((0, 2, gap, 0))
                x += gap
                continue
            length = 1
            while x + length < len(row) and row[x + length] == row[x] and length < 255:
                length += 1
            if length < 3 and len(row) - x >= 5:
                some = row[x : x + int(dice.integers(3, min(255, len(row) - x)))]
                body = some if bits == 8 else np.append(some, [0] * (len(some) % 2)).reshape(-1, 2) @ (16, 1)
                coded += bytes((0, len(some))) + bytes(int(value) for value in body) + bytes(len(body) % 2)
                x += len(some)
                continue
            coded += bytes((length, row[x] if bits == 8 else row[x] * 17))
            x += length
        coded += b"\0\0"
    return bytes(coded) + b"\0\1"


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (64, 61), (200, 3)])
def test_run_length_coded_bmps_are_decoded(bits: int, height: int, width: int) -> None:
    dice = np.random.default_rng(height)
    rows = dice.integers(0, 1 << bits, (height, width), dtype=np.uint8)
    rows[dice.random((height, width)) < 0.5] = 0
    rows[height // 2 :] //= (1 << bits) // 4
    rows = np.repeat(rows, 2, axis=1)[:, :width]
    palette = np.array([(i % 251, i * 2 % 251, i * 3 % 251) for i in range(1 << bits)], np.uint8)
    data = bombs.bmp_of_runs(width, height, runs_of(rows, bits, dice), bits=bits)
    head = 54 + (4 << bits)
    data = data[:54] + b"".join(bytes((*color[::-1], 0)) for color in palette.tolist()) + data[head:]
    # The first row is the lowest.
    assert np.array_equal(decoded(data), palette[rows[::-1]])


@pytest.mark.parametrize("bits", [4, 8])
def test_pillow_reads_run_length_coded_bmps_in_the_same_way(bits: int) -> None:
    dice = np.random.default_rng(bits)
    rows = dice.integers(1, 1 << bits, (40, 60), dtype=np.uint8)
    data = bombs.bmp_of_runs(60, 40, runs_of(rows, bits, dice), bits=bits)
    assert np.array_equal(decoded(data), by_pillow(data))


def test_runs_beyond_the_row_and_the_picture_are_cut() -> None:
    assert decoded(bombs.bmp_of_runs(10, 2, b"\xff\5" * 3 + b"\0\0" + b"\xff\5" + b"\0\0" * 5)).shape == (2, 10, 3)
    assert decoded(bombs.bmp_of_runs(10, 2, b"\0\2\xff\xff\5\5")).shape == (2, 10, 3)
    assert decoded(bombs.bmp_of_runs(10, 2, b"\0\1")).shape == (2, 10, 3)
    for truncated in (b"", b"\5", b"\xff\5", b"\xff\5\0\0\5\5"):
        with pytest.raises(InvalidInput, match="truncated"):
            decoded(bombs.bmp_of_runs(10, 2, truncated))


def test_many_runs_take_little_time() -> None:
    data = bombs.bmp_of_runs(2000, 1000, (b"\1\5" * 2000 + b"\0\0") * 1000 + b"\1\5" * 1_000_000)
    started = time.process_time()
    assert decoded(data).shape == (1000, 2000, 3)
    assert time.process_time() - started < 1
