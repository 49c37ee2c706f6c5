from __future__ import annotations

import base64
import struct
import warnings
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.images import decode_base64, decode_image, encode_jpeg, encode_png, use_block_cache

LIMIT = 1_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, (x + y) * 2], axis=-1).astype(np.uint8)


def encoded(picture: Image.Image | np.ndarray, name: str, **options: Any) -> bytes:
    buffer = BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, name, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return decode_image(data, max_pixels=LIMIT)


def png(width: int, height: int, *, bits: int = 8, color: int = 2, rows: bytes = b"") -> bytes:
    """A PNG written by hand: of any claimed size, and with depths that Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


class TestBase64:
    data = bytes(range(256)) * 3

    @pytest.mark.parametrize(
        "text",
        [
            base64.b64encode(data).decode(),
            base64.urlsafe_b64encode(data).decode(),
            base64.b64encode(data[:-1]).decode().rstrip("="),
            base64.encodebytes(data).decode(),
            "data:image/png;base64," + base64.b64encode(data).decode(),
            "DATA:image/png;BASE64,\r\n" + base64.b64encode(data).decode() + "\n",
        ],
        ids=["standard", "url-safe", "unpadded", "line breaks", "data prefix", "shouted data prefix"],
    )
    def test_is_read_in_all_its_spellings(self, text: str) -> None:
        assert decode_base64(text) in (self.data, self.data[:-1])

    @pytest.mark.parametrize("text", ["hello world!", "a", "ab=c", "====", "é", "\ud800", "{}", "data:image/png,abc"])
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="base64"):
            decode_base64(text)


class TestPixels:
    @pytest.mark.parametrize("name", FORMATS)
    def test_every_format_comes_back(self, name: str) -> None:
        image = gradient()
        result = decoded(encoded(image, name))
        assert result.shape == image.shape and result.dtype == np.uint8
        assert result.flags.c_contiguous and result.flags.writeable
        assert np.abs(result.astype(int) - image).mean() < (0.01 if name in ("PNG", "BMP", "TIFF") else 16)

    def test_encoders_give_what_the_decoder_takes(self) -> None:
        image = gradient()
        assert np.array_equal(decoded(encode_png(image)), image)
        assert np.abs(decoded(encode_jpeg(image, quality=95)).astype(int) - image).mean() < 4
        assert np.array_equal(decoded(encode_png(image[..., 0]))[..., 1], image[..., 0])

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    def test_is_turned_upright_by_its_exif_orientation(self, name: str, orientation: int) -> None:
        marked = np.zeros((48, 80, 3), np.uint8)
        marked[:16, :16] = 255
        exif = Image.Exif()
        exif[0x0112] = orientation
        result = decoded(encoded(marked, name, exif=exif.tobytes()))
        # Where the first row and the first column of the stored picture are seen, by the EXIF standard.
        row, column = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "lt", 6: "rt", 7: "rb", 8: "lb"}[orientation]
        assert result.shape[:2] == ((48, 80) if orientation <= 4 else (80, 48))
        corner = result[:16, :, 0] if "t" in row + column else result[-16:, :, 0]
        corner = corner[:, :16] if "l" in row + column else corner[:, -16:]
        assert corner.mean() > 240 and result.mean() < 40

    def test_broken_exif_is_ignored(self) -> None:
        image = gradient()
        assert np.array_equal(decoded(encoded(image, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff junk")), image)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"progressive": True},
            {"subsampling": "4:4:4"},
            {"subsampling": "4:2:2", "quality": 30},
            {"restart_marker_rows": 1},
            {"keep_rgb": True},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_a_jpeg_has_the_pixels_that_pillow_gives_it(self, mode: str, options: dict[str, Any]) -> None:
        data = encoded(Image.fromarray(gradient(41, 67)).convert(mode), "JPEG", **options)
        result = decoded(data)
        assert np.array_equal(result, np.array(Image.open(BytesIO(data)).convert("RGB")))
        assert result.flags.c_contiguous and result.flags.writeable

    def test_a_jpeg_with_stray_bytes_is_decoded_as_pillow_does(self) -> None:
        data = encoded(gradient(), "JPEG")
        scan = data.index(b"\xff\xda")
        stray = data[:scan] + b"\0\0\0" + data[scan:]
        assert np.array_equal(decoded(stray), decoded(data))

    def test_cmyk(self) -> None:
        red = Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK")
        for name in ("JPEG", "TIFF"):
            assert np.allclose(decoded(encoded(red, name)), (255, 0, 0), atol=4)

    def test_sixteen_bit_gray_spans_black_to_white(self) -> None:
        ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
        for data in (encoded(ramp, "PNG"), encoded(ramp, "TIFF"), encoded(ramp.astype(">u2"), "TIFF")):
            assert np.array_equal(decoded(data)[..., 0].ravel(), np.arange(256))
        assert np.array_equal(decoded(encoded(ramp.astype(np.int32), "TIFF"))[..., 2].ravel(), np.arange(256))

    def test_sixteen_bit_colour_keeps_its_high_bits(self) -> None:
        row = b"\0" + struct.pack(">6H", 0xFFFF, 0x8000, 0, 0x1234, 0xABCD, 0x00FF)
        assert decoded(png(2, 1, bits=16, rows=row)).tolist() == [[[255, 128, 0], [0x12, 0xAB, 0]]]

    def test_floating_point_gray(self) -> None:
        unit = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
        expected = np.rint(unit * 255)
        assert np.array_equal(decoded(encoded(unit, "TIFF"))[..., 0], expected)
        assert np.array_equal(decoded(encoded(unit * 900 - 300, "TIFF"))[..., 0], expected)
        holed = unit.copy()
        holed[3, 3], holed[4, 4] = np.nan, np.inf
        assert decoded(encoded(holed, "TIFF"))[[3, 4], [3, 4], 0].tolist() == [0, 255]
        assert not decoded(encoded(np.full((4, 4), 7, np.float32), "TIFF")).any()

    def test_palette(self) -> None:
        image = np.zeros((6, 6, 3), np.uint8)
        image[2:, :] = (200, 30, 60)
        quantized = Image.fromarray(image).quantize(4)
        for name in ("PNG", "GIF", "BMP", "TIFF"):
            assert np.allclose(decoded(encoded(quantized, name)), image, atol=1)

    def test_transparent_parts_are_white(self) -> None:
        rgba = np.zeros((4, 4, 4), np.uint8)
        rgba[:2] = (200, 0, 0, 255)
        rgba[2:] = (200, 0, 0, 51)
        for name in ("PNG", "WEBP", "TIFF"):
            result = decoded(encoded(rgba, name, **({"lossless": True} if name == "WEBP" else {})))
            assert np.allclose(result[:2], (200, 0, 0), atol=1) and np.allclose(result[2:], (244, 204, 204), atol=1)
        gray = Image.merge("LA", (Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 0)))
        assert (decoded(encoded(gray, "PNG")) == 255).all()

    def test_transparent_palette_entries_and_keyed_colours_are_white(self) -> None:
        palette = Image.new("P", (4, 4), 1)
        palette.putpalette([0, 0, 0, 10, 20, 30])
        palette.paste(0, (0, 0, 2, 4))
        for data in (encoded(palette, "PNG", transparency=0), encoded(palette, "GIF", transparency=0)):
            result = decoded(data)
            assert (result[:, :2] == 255).all() and (result[:, 2:] == (10, 20, 30)).all()
        keyed = decoded(encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3)))
        assert (keyed == 255).all()

    @pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
    def test_first_frame_of_several(self, name: str) -> None:
        frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "green")]
        data = encoded(frames[0], name, save_all=True, append_images=frames[1:])
        assert np.allclose(decoded(data), (255, 0, 0), atol=6)


def test_pillow_keeps_as_many_blocks_as_it_is_told() -> None:
    before = Image.core.get_blocks_max()
    try:
        Image.core.reset_stats()
        use_block_cache(4)
        for _ in range(5):
            decoded(encoded(gradient(), "PNG"))
        stats = Image.core.get_stats()
        assert stats["reused_blocks"] > 0 and stats["blocks_cached"] > 0
    finally:
        use_block_cache(before)


class TestRefusals:
    def test_nothing(self) -> None:
        with pytest.raises(InvalidInput, match="empty"):
            decoded(b"")

    @pytest.mark.parametrize(
        "data", [b"just some text", b"%PDF-1.7 ", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"8BPS\0\1", b"\xff"]
    )
    def test_what_is_no_image_of_these_formats(self, data: bytes) -> None:
        with pytest.raises(InvalidInput, match="format"):
            decoded(data * 20)

    @pytest.mark.parametrize("name", FORMATS)
    def test_truncated(self, name: str) -> None:
        data = encoded(gradient(), name)
        with pytest.raises(InvalidInput, match="damaged or truncated"):
            decoded(data[: len(data) // 2])

    @pytest.mark.parametrize("side", [1001, 50_000, 2**31 - 1])
    def test_a_bomb_is_recognised_by_its_header(self, side: int) -> None:
        with pytest.raises(InvalidInput, match=f"{side} x {side} pixels; at most 1000000"):
            decoded(png(side, side))

    def test_the_limit_counts_pixels_inclusively(self) -> None:
        assert decode_image(encoded(gradient(), "PNG"), max_pixels=2400).shape == (40, 60, 3)
        with pytest.raises(InvalidInput, match="at most 2399"):
            decode_image(encoded(gradient(), "PNG"), max_pixels=2399)

    def test_pillows_own_limit_neither_warns_nor_refuses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert decode_image(encoded(gradient(), "PNG"), max_pixels=2400).shape == (40, 60, 3)

    def test_a_webp_beyond_pillows_hard_limit_is_refused(self) -> None:
        extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (16382).to_bytes(3, "little") * 2
        data = b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended
        with pytest.raises(InvalidInput):
            decoded(data)

    @pytest.mark.parametrize("name", FORMATS)
    def test_mutated_bytes_are_decoded_or_refused_and_nothing_else(self, name: str) -> None:
        random = np.random.default_rng(list(name.encode()))
        sound = encoded(gradient(), name)
        outcomes = set()
        for _ in range(250):
            data = bytearray(sound)
            for _ in range(random.integers(1, 5)):
                place = int(random.integers(min(len(data), random.choice([32, len(data)]))))
                if random.random() < 0.7:
                    data[place] = int(random.integers(256))
                else:
                    del data[place : place + int(random.integers(1, 20))]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    result = decoded(bytes(data))
                except InvalidInput:
                    outcomes.add("refused")
                else:
                    assert result.dtype == np.uint8 and result.ndim == 3 and result.shape[2] == 3
                    outcomes.add("decoded")
        assert "refused" in outcomes
