"""Frames as a clip for people: an mp4 or a GIF."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from io import BytesIO
from typing import Literal

from PIL import Image

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.video import Frame

ClipKind = Literal["mp4", "gif"]

GIF_SIDE = 480
"""Longest side of a GIF in pixels."""
GIF_FRAMES = 1000
"""Most frames of a GIF: all of them are held until it is written."""


class ClipWriter(ABC):
    """Encodes frames one by one."""

    @abstractmethod
    def add(self, frame: Frame) -> None:
        """Takes the next frame, (H, W, 3) uint8 RGB; all have one size."""

    @abstractmethod
    def finish(self) -> bytes:
        """The file. Raises InvalidInput if there was no frame."""


class GifWriter(ClipWriter):
    """An endless GIF, scaled down.

    Args:
        frames_per_second: pace of play.
    """

    def __init__(self, frames_per_second: float) -> None:
        self._rate = frames_per_second
        self._pictures: list[Image.Image] = []

    def add(self, frame: Frame) -> None:
        """Raises InvalidInput for one frame too many."""
        check_length("gif", len(self._pictures) + 1)
        picture = Image.fromarray(frame)
        picture.thumbnail((GIF_SIDE, GIF_SIDE))
        self._pictures.append(picture.quantize(method=Image.Quantize.FASTOCTREE))

    def finish(self) -> bytes:
        if not self._pictures:
            raise no_frame()
        buffer = BytesIO()
        first, *others = self._pictures
        first.save(buffer, "GIF", save_all=True, append_images=others, duration=round(1000 / self._rate), loop=0)
        return buffer.getvalue()


def clip_writer(kind: ClipKind, frames_per_second: float) -> ClipWriter:
    """A writer of clips of a kind; FFmpeg is loaded with the first mp4."""
    rate = min(max(frames_per_second, 0.1), 240.0)
    if kind == "gif":
        return GifWriter(rate)
    from vision_model_repo.formats.mp4 import Mp4Writer

    return Mp4Writer(rate)


def encode_clip(frames: Iterable[Frame], frames_per_second: float, kind: ClipKind = "mp4") -> bytes:
    """An mp4 (H.264 where FFmpeg can) or an endless GIF of frames of one size."""
    writer = clip_writer(kind, frames_per_second)
    for frame in frames:
        writer.add(frame)
    return writer.finish()


def check_length(kind: ClipKind, frames: int) -> None:
    """Raises InvalidInput for more frames than such a clip may have."""
    if kind == "gif" and frames > GIF_FRAMES:
        raise InvalidInput(f"A GIF has at most {GIF_FRAMES} frames. Ask for an mp4, or for fewer frames.")


def no_frame() -> InvalidInput:
    return InvalidInput("A clip needs at least one frame.")
