"""Damaged and malicious pictures and videos, and what becomes of them in this process.

Whatever comes, the answer is pixels or a refusal in a sentence, within seconds: no crash, no other error.
"""

from __future__ import annotations

import lzma
import random
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile import bombs, videos
from vision_model_repo.errors import VisionError
from vision_model_repo.formats.images import decode_image
from vision_model_repo.formats.video import VideoLimits, open_video

IMAGE_SECONDS = 3.0
"""Longest time for a picture of up to a megapixel, on a machine that has other things to do."""
VIDEO_SECONDS = 10.0
IMAGE_PIXELS = 4_000_000
VIDEO_LIMITS = VideoLimits(max_frames=500, max_pixels=640 * 480, max_seconds=60)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO")


@dataclass
class Findings:
    """What a campaign saw.

    Attributes:
        decoded, refused: how many files were.
        failures: names of files that were neither, or took too long, and why.
        slowest: name and seconds of the slowest one.
    """

    decoded: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: tuple[str, float] = "", 0.0

    def note(self, name: str, decode: Callable[[], object], limit: float) -> None:
        """Decodes one file and takes down what happened."""
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                decode()
            self.decoded += 1
        except VisionError as error:
            self.refused += 1
            if error.status not in (400, 413):
                self.failures.append(f"{name}: {error.status} {error.message}")
        except Exception as error:
            self.failures.append(f"{name}: {type(error).__name__}: {error}")
        seconds = time.perf_counter() - started
        self.slowest = max(self.slowest, (name, seconds), key=lambda each: each[1])
        if seconds > limit:
            self.failures.append(f"{name}: {seconds:.1f} s")


def run_images_in_process(seed: int, count: int, *, with_bombs: bool = True) -> Findings:
    """Decodes as many mutated pictures, and every bomb, in this process."""
    findings = Findings()
    for name, data in mutated_images(seed, count, with_bombs=with_bombs):
        findings.note(name, lambda data=data: decode_image(data, max_pixels=IMAGE_PIXELS), IMAGE_SECONDS)
    return findings


def run_videos_in_process(seed: int, count: int, *, with_bombs: bool = True) -> Findings:
    """Opens as many mutated videos, and every bomb, in this process, and decodes some frames."""
    findings = Findings()
    for name, data in mutated_videos(seed, count, with_bombs=with_bombs):
        findings.note(name, lambda data=data: _watch(data), VIDEO_SECONDS)
    return findings


def _watch(data: bytes) -> None:
    video = open_video(data, VIDEO_LIMITS)
    for _ in video.frames(0, 12):
        pass
    for _ in video.frames(max(0, video.frame_count - 4), backward=True):
        pass


def mutated_images(seed: int, count: int, *, with_bombs: bool = True) -> Iterator[tuple[str, bytes]]:
    """Names and bytes: first the bombs, then mutations of pictures of every format."""
    for name, make in IMAGE_BOMBS.items() if with_bombs else ():
        yield f"bomb {name}", make()
    yield from _mutations(seed, count, sound_images())


def mutated_videos(seed: int, count: int, *, with_bombs: bool = True) -> Iterator[tuple[str, bytes]]:
    """Names and bytes: first the bombs, then mutations of videos in every container."""
    for name, make in videos.VIDEO_BOMBS.items() if with_bombs else ():
        yield f"bomb {name}", make()
    yield from _mutations(seed, count, sound_videos())


def _mutations(seed: int, count: int, sound: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    names = list(sound)
    for index in range(count):
        dice = random.Random(f"{seed}/{index}")
        name = names[index % len(names)]
        kind, data = mutate(sound[name], sound[dice.choice(names)], dice)
        yield f"{name} {kind} seed {seed} index {index}", data


def mutate(data: bytes, other: bytes, dice: random.Random) -> tuple[str, bytes]:
    """A damaged copy, and how it was damaged. Headers are hit more often than their share of the bytes."""
    kind = dice.choice(("bits", "bytes", "length", "cut", "delete", "repeat", "splice", "truncate"))
    broken = bytearray(data)

    def place() -> int:
        return dice.randrange(dice.choice((min(len(broken), 64), min(len(broken), 700), len(broken))))

    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = place()
        if kind == "bits":
            broken[at] ^= 1 << dice.randrange(8)
        elif kind == "bytes":
            broken[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        elif kind == "length":
            size = dice.choice((2, 4, 8))
            value = dice.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2 ** (8 * size) - 1, dice.getrandbits(16)))
            broken[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, dice.choice(("big", "little")))
        elif kind == "delete":
            del broken[at : at + dice.randint(1, 20)]
            broken = broken or bytearray(b"\0")
    at = place()
    if kind == "cut":
        del broken[at : at + dice.randrange(1, 1 + len(broken) // 2)]
    elif kind == "repeat":
        stretch = broken[at : at + dice.randint(1, 200)]
        broken[at:at] = stretch * dice.randint(1, 50)
    elif kind == "splice":
        start = dice.randrange(len(other))
        broken[at : at + dice.randint(0, 200)] = other[start : start + dice.randint(1, 2000)]
    elif kind == "truncate":
        del broken[dice.randrange(len(broken)) :]
    return kind, bytes(broken)


def _gradient(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, (x + y) * 2], axis=-1).astype(np.uint8)


@cache
def sound_images() -> dict[str, bytes]:
    """Small pictures of every format, and of most ways in which one is written."""
    picture = Image.fromarray(_gradient())
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    made: dict[str, bytes] = {name: bombs.encoded(picture, name) for name in FORMATS}
    ways: dict[str, tuple[str, str, dict[str, Any]]] = {
        "progressive JPEG": ("RGB", "JPEG", {"progressive": True, "exif": exif}),
        "CMYK JPEG": ("CMYK", "JPEG", {}),
        "restarting JPEG": ("L", "JPEG", {"restart_marker_rows": 1}),
        "palette PNG": ("P", "PNG", {"transparency": 0}),
        "APNG": ("RGBA", "PNG", frames),
        "16-bit PNG": ("I;16", "PNG", {}),
        "lossless WEBP": ("RGBA", "WEBP", {"lossless": True, "exif": exif}),
        "moving WEBP": ("RGB", "WEBP", frames),
        "moving GIF": ("P", "GIF", frames),
        "moving AVIF": ("RGB", "AVIF", frames),
        "transparent AVIF": ("RGBA", "AVIF", {"exif": exif}),
        "two-page TIFF": ("RGB", "TIFF", frames),
        "two-picture MPO": ("RGB", "MPO", frames),
        **{
            f"{name} TIFF": ("1" if name.startswith("group") else "RGB", "TIFF", {"compression": name})
            for name in "jpeg tiff_lzw tiff_adobe_deflate packbits zstd lzma group3 group4".split()
        },
    }
    for name, (mode, form, options) in ways.items():
        given = (
            Image.fromarray(_gradient()[..., 0].astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
        )
        made[name] = bombs.encoded(given, form, **options)
    made["BMP of runs"] = bombs.bmp_of_runs(60, 40, b"\x1e\x05\x1e\x07\0\0" * 40 + b"\0\1")
    made["tiled TIFF"] = bombs.tiff_of_one_tile(40, 64, 64)
    made["AVIF of a grid"] = bombs.avif_that_lies((64, 64), (64, 64), (2, 2))
    return made


@cache
def sound_videos() -> dict[str, bytes]:
    """Short videos in every container that FFmpeg can write and we read."""
    made = {}
    for form, codec in (
        ("mp4", "libx264"),
        ("mov", "mjpeg"),
        ("webm", "libvpx-vp9"),
        ("webm", "libvpx"),
        ("matroska", "libx264"),
        ("avi", "mpeg4"),
        ("mpegts", "libx264"),
        ("flv", "flv"),
        ("mpeg", "mpeg1video"),
        ("gif", "gif"),
    ):
        made[f"{codec} {form}"] = videos.encoded(form, codec, frames=10, size=(128, 96))
    return made


IMAGE_BOMBS: dict[str, Callable[[], bytes]] = {
    "JPEG of 300 scans": lambda: bombs.jpeg_of_scans(1000, 1000, 300, colour=True),
    "JPEG of 300 scans behind segments": lambda: bombs.jpeg_of_scans(
        1000, 1000, 300, between=bombs.segment(0xFE, b"\xff\xd9")
    ),
    "JPEG of 2000 empty scans": lambda: bombs.jpeg_of_empty_scans(1000, 1000, 2000),
    "JPEG of a million comments": lambda: bombs.jpeg_of_segments(1_000_000),
    "JPEG of 8 MB of fill bytes": lambda: bombs.jpeg_of_fill_bytes(8 * 2**20),
    "JPEG of 20 MB of Exif": lambda: bombs.jpeg_of_segments(300, b"Exif\0\0" + bytes(65000), 0xE1),
    "JPEG of Photoshop's blocks": lambda: bombs.jpeg_of_segments(
        200, b"Photoshop 3.0\0" + b"8BIM\0\1\0\0\0\0\0\0" * 5000, 0xED
    ),
    "PNG of a million chunks": lambda: bombs.png_of_chunks(1_000_000),
    "PNG of a million chunks at its end": lambda: bombs.png_of_chunks(1_000_000, after=True),
    "PNG of a million empty data": lambda: bombs.png_of_empty_data(1_000_000),
    "PNG of 2000 profiles": lambda: bombs.png_of_profiles(2000),
    "PNG of 500 texts": lambda: bombs.png_of_texts(500),
    "PNG of a gigabyte too much": lambda: bombs.png_of_too_much_data(1000),
    "PNG of one column, interlaced": lambda: bombs.png(1, 4_000_000, interlace=1),
    "PNG of long Exif": lambda: bombs.png(before=bombs.chunk(b"eXIf", bombs.exif_of_entries(500_000))),
    "GIF of 3 million comments": lambda: bombs.gif_of_extensions(3_000_000, b"!\xfe\x01a\0"),
    "GIF of one long comment": lambda: bombs.gif_of_extensions(1, b"!\xfe" + b"\x01a" * 3_000_000 + b"\0"),
    "GIF with a large frame": lambda: bombs.gif_with_frame(60_000, 60_000),
    "BMP of 8 million runs": lambda: bombs.bmp_of_runs(2000, 2000, b"\x01\x05" * 8_000_000),
    "BMP of rows to fill": lambda: bombs.bmp_of_runs(60_000, 60, b"\x01\x05\0\0" * 60),
    "TIFF of a million strips": lambda: bombs.gray_tiff(1, 1_000_000, 1_000_000, bytes(1)),
    "TIFF of 300,000 packed strips": lambda: bombs.gray_tiff(
        1, 300_000, 300_000, lzma.compress(bytes(1)), compression=34925
    ),
    "TIFF of strips that overlap": lambda: bombs.gray_tiff(
        100, 50_000, 50_000, zlib.compress(bytes(100)) + bytes(2**20), compression=8, extra=[bombs.short(266, 2)]
    ),
    "TIFF of a large tile": lambda: bombs.tiff_of_one_tile(16, 2**15, 2**13),
    "TIFF of a million tags": lambda: bombs.tiff_of_tags(1_000_000),
    "TIFF of many fractions": lambda: bombs.tiff_with_values(282, 5, 2_000_000, 8),
    "TIFF of many depths": lambda: bombs.tiff_with_values(258, 3, 4_000_000, 2),
    "TIFF of many scans": lambda: bombs.jpeg_tiff(1000, 1000, 10, 90),
    "WebP on a large canvas": lambda: bombs.webp_on_canvas(13_000, 13_000),
    "WebP of a million chunks": lambda: bombs.webp_on_canvas(16, 16, chunks=bombs.riff(b"abcd", b"") * 1_000_000),
    "AVIF that lies": lambda: bombs.avif_that_lies((4096, 4096), (64, 64)),
    "AVIF grid that lies": lambda: bombs.avif_that_lies((1024, 1024), (64, 64), (8, 8)),
    "AVIF of 200 frames": lambda: bombs.avif_of_frames(512, 512, 200),
    "AVIF of a million units": lambda: bombs.avif(b"\x12\0" * 1_000_000, bombs.av1_of(64, 64)[1], (64, 64)),
}
