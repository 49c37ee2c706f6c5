"""Clips as mp4, through FFmpeg."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from typing import Any, cast

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.clips import ClipWriter, no_frame
from vision_model_repo.formats.video import Frame

ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""Best first; any browser plays the first two."""


class Mp4Writer(ClipWriter):
    """An mp4, encoded as its frames come.

    Args:
        frames_per_second: pace of play.

    Raises:
        InvalidInput: FFmpeg has no encoder for it.
    """

    def __init__(self, frames_per_second: float) -> None:
        self._buffer = BytesIO()
        self._container = cast(OutputContainer, av.open(self._buffer, "w", format="mp4"))
        rate = Fraction(frames_per_second).limit_denominator(1000)
        self._stream: Any = self._container.add_stream(_encoder(), rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._empty = True

    def add(self, frame: Frame) -> None:
        # Chroma is kept for squares of two by two pixels: an odd last row or column is repeated.
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        if self._empty:
            self._stream.height, self._stream.width = frame.shape[:2]
            self._empty = False
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def finish(self) -> bytes:
        if self._empty:
            raise no_frame()
        self._container.mux(self._stream.encode())
        self._container.close()
        return self._buffer.getvalue()


def _encoder() -> str:
    for name in ENCODERS:
        try:
            av.Codec(name, "w")
        except UnknownCodecError:
            continue
        return name
    raise InvalidInput("This server's FFmpeg has no encoder for mp4. Ask for a GIF.")
