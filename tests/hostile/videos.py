"""Small videos whose decoding would cost far more than their size tells, or that are none which is read here."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np

from tests.hostile import bombs


def encoded(
    form: str,
    codec: str,
    *,
    frames: int = 8,
    size: tuple[int, int] = (64, 48),
    options: dict[str, str] | None = None,
) -> bytes:
    """A video of frames that grow lighter."""
    buffer = BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height = size
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        stream.options = options or {}
        for index in range(frames):
            pixels = np.full((size[1], size[0], 3), 5 * index % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def of_packets(form: str, codec: str, size: tuple[int, int], packets: list[bytes], like: bytes | None = None) -> bytes:
    """A file of packets as they are given; the codec's configuration comes from another file."""
    buffer = BytesIO()
    with av.open(buffer, "w", format=form) as container:
        if like is not None:
            with av.open(BytesIO(like), "r") as other:
                stream: Any = container.add_stream_from_template(other.streams.video[0])
        else:
            stream = container.add_stream(codec, rate=Fraction(25))
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p"
        for index, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.duration = stream, index, index, 1
            packet.time_base = Fraction(1, 25)
            packet.is_keyframe = index == 0
            container.mux(packet)
    return buffer.getvalue()


def patched(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    """An mp4 with other bytes at an offset behind the name of a box."""
    place = data.index(box) + 4 + offset
    return data[:place] + value + data[place + len(value) :]


def mp4_of_codec(name: bytes) -> bytes:
    """An mp4 that says it has another codec than it has."""
    data = encoded("mp4", "libx264")
    place = data.index(b"stsd")
    return data[:place] + data[place:].replace(b"avc1", name, 1)


def mp4_of_samples(count: int) -> bytes:
    """A small mp4 that says that it has very many frames of one byte each."""
    data = patched(encoded("mp4", "libx264"), b"stsz", 4, struct.pack(">II", 1, count))
    data = patched(data, b"stsc", 8, struct.pack(">III", 1, count, 1))
    return patched(data, b"stts", 4, struct.pack(">III", 1, count, 1))


VIDEO_BOMBS: dict[str, Callable[[], bytes]] = {
    "mp4 of an unknown codec": lambda: mp4_of_codec(b"zzzz"),
    "mp4 that is encrypted": lambda: mp4_of_codec(b"encv"),
    "mp4 of 100 million frames": lambda: mp4_of_samples(100_000_000),
    "JPEGs of 300 scans": lambda: of_packets("avi", "mjpeg", (600, 400), [bombs.jpeg_of_scans(600, 400, 300)] * 10),
}
