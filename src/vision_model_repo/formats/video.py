"""Videos: frames as (H, W, 3) uint8 RGB arrays, decoded one at a time and never kept.

A video is held as the bytes it came in, hundreds of times less than its frames. What needs FFmpeg is in modules of its
own, which are imported when the first video file comes: FFmpeg takes a tenth of a second to load.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.formats.images import decode_image

Frame = NDArray[np.uint8]
VideoBytes = bytes | mmap
"""A video file in memory, or on disk and read from there."""

BACKWARD_FRAMES = 8
BACKWARD_BYTES = 64 * 2**20
"""What is decoded ahead and held while a video is read backwards: so many frames, and more of small ones. Each time,
everything since the last key frame is decoded anew."""


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """What is accepted as a video.

    Attributes:
        max_bytes: of the file, or of all pictures of a sequence.
        max_frames: in all.
        max_pixels: of one frame.
        max_seconds: of play.
    """

    max_bytes: int = 512 * 2**20
    max_frames: int = 20_000
    max_pixels: int = 4096 * 2304
    max_seconds: float = 1200.0


class Video(ABC):
    """Frames to be had one by one, as often as wanted.

    Attributes:
        frame_count: number of frames.
        height, width: of every frame in pixels, upright.
        frames_per_second: pace of play.
        nbytes: memory held.
    """

    frame_count: int
    height: int
    width: int
    frames_per_second: float
    nbytes: int

    def frames(
        self, start: int = 0, stop: int | None = None, *, backward: bool = False
    ) -> Generator[tuple[int, Frame]]:
        """Frames `start` to `stop` - 1 with their indices, the last one first where backward.

        The iterator may be advanced in any thread, one at a time. Raises InvalidInput at a frame that is damaged.
        """
        stop = self.frame_count if stop is None else min(stop, self.frame_count)
        if not backward:
            yield from self._forward(start, stop)
            return
        held = max(BACKWARD_FRAMES, BACKWARD_BYTES // max(1, 3 * self.height * self.width))
        for end in range(stop, start, -held):
            yield from reversed(list(self._forward(max(start, end - held), end)))

    @abstractmethod
    def _forward(self, start: int, stop: int) -> Generator[tuple[int, Frame]]: ...


class PictureSequence(Video):
    """A video given as its frames, each an encoded picture that is decoded when its turn comes.

    Args:
        pictures: encoded images, all of one size.
        limits: max_seconds is not looked at, since pictures have no pace.
        frames_per_second: at which to show them.

    Raises:
        TooLarge: more bytes than the limit.
        InvalidInput: no picture, too many, or the first is none.
    """

    def __init__(
        self, pictures: Sequence[bytes], limits: VideoLimits | None = None, *, frames_per_second: float = 10.0
    ) -> None:
        limits = limits or VideoLimits()
        if not pictures:
            raise InvalidInput("The video has no frames. Send at least one.")
        if len(pictures) > limits.max_frames:
            raise InvalidInput(f"The video has {len(pictures)} frames; at most {limits.max_frames} are accepted.")
        self.nbytes = sum(map(len, pictures))
        check_bytes(self.nbytes, limits)
        self._pictures = pictures
        self._max_pixels = limits.max_pixels
        self.frame_count = len(pictures)
        self.frames_per_second = frames_per_second
        self.height, self.width = 0, 0
        _, first = next(self._forward(0, 1))
        self.height, self.width = first.shape[:2]

    def _forward(self, start: int, stop: int) -> Generator[tuple[int, Frame]]:
        for index in range(start, stop):
            try:
                frame = decode_image(self._pictures[index], max_pixels=self._max_pixels)
            except InvalidInput as error:
                raise InvalidInput(f"Frame {index}: {error.message}") from None
            if self.width and frame.shape[:2] != (self.height, self.width):
                raise InvalidInput(
                    f"Frame {index} has {frame.shape[1]} x {frame.shape[0]} pixels and frame 0 has {self.width} x "
                    f"{self.height}. All frames of a video must have one size."
                )
            yield index, frame


def open_video(data: VideoBytes, limits: VideoLimits | None = None) -> Video:
    """A video file as frames. Raises what `formats.video_files.EncodedVideo` raises."""
    from vision_model_repo.formats.video_files import EncodedVideo

    return EncodedVideo(data, limits)


def check_bytes(count: int, limits: VideoLimits) -> None:
    """Raises TooLarge for more bytes than are accepted as a video."""
    if count > limits.max_bytes:
        raise TooLarge(
            f"The video has {-(-count // 2**20)} MB; at most {limits.max_bytes // 2**20} MB are accepted. "
            "Send a shorter or smaller one."
        )
