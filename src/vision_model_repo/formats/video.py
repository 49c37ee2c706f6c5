"""Videos in and out: frames as (H, W, 3) uint8 RGB arrays, decoded one at a time and never kept.

A video is held as the bytes it came in, hundreds of times less than its frames. Its packets are counted when it is
opened, without decoding, so that the number of frames is known from the start and any frame can be sought.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import Any, Literal, cast

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image

from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.formats.images import decode_image

Frame = NDArray[np.uint8]
ClipKind = Literal["mp4", "gif"]

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,ogg,flv,asf"
"""Containers that hold their own data. Playlists are left out: they would name files and addresses for us to open."""
BACKWARD_CHUNK = 8
"""Frames that are decoded ahead and held while a video is read backwards."""
ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""Encoders of an mp4, best first; any browser plays the first two."""
GIF_SIDE = 480
"""Longest side of a GIF in pixels: every frame of it is held until it is written."""


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
        for end in range(stop, start, -BACKWARD_CHUNK):
            yield from reversed(list(self._forward(max(start, end - BACKWARD_CHUNK), end)))

    @abstractmethod
    def _forward(self, start: int, stop: int) -> Generator[tuple[int, Frame]]: ...


class EncodedVideo(Video):
    """A video file in memory: mp4, mov, webm, mkv, avi, gif and what else FFmpeg demuxes on its own.

    Args:
        data: the file.
        limits: checked before any frame is decoded, but for what only the frames tell.

    Raises:
        TooLarge: more bytes than the limit.
        InvalidInput: no such file, no picture in it, or beyond another limit.
    """

    def __init__(self, data: bytes, limits: VideoLimits | None = None) -> None:
        limits = limits or VideoLimits()
        if not data:
            raise InvalidInput("The video is empty (zero bytes).")
        _check_bytes(len(data), limits)
        self._data = data
        self._max_pixels = limits.max_pixels
        self.nbytes = len(data)
        self._timestamps, self.frames_per_second = self._index(limits)
        self.frame_count = len(self._timestamps)
        self._size = 0, 0
        _, first = next(self._forward(0, 1), (0, None))
        if first is None:
            raise InvalidInput("The video is damaged: none of its frames can be decoded.")
        self.height, self.width = first.shape[:2]

    def _index(self, limits: VideoLimits) -> tuple[NDArray[np.int64], float]:
        """Timestamps of all frames in the order of play, -1 where they have none, and frames a second."""
        with self._open() as container:
            stream = container.streams.video[0]
            _check_pixels(stream.codec_context.width, stream.codec_context.height, limits.max_pixels)
            stamps: list[int] = []
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    stamps.append(-1 if packet.pts is None else packet.pts)
                if len(stamps) > limits.max_frames:
                    raise InvalidInput(f"The video has more than {limits.max_frames} frames. Send a shorter one.")
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            unit = float(stream.time_base or 0)
        self.nbytes += 8 * len(stamps)
        timestamps = np.sort(np.array(stamps, np.int64))
        played = (timestamps[-1] - timestamps[0]) * unit if len(stamps) else 0.0
        if max(played, len(stamps) / rate if played <= 0 else 0.0) > limits.max_seconds:
            raise InvalidInput(f"The video plays for more than {limits.max_seconds:g} seconds. Send a shorter one.")
        return timestamps, rate

    def _forward(self, start: int, stop: int) -> Generator[tuple[int, Frame]]:
        with self._open() as container:
            stream = container.streams.video[0]
            begin = 0
            seekable = start > 0 and bool((np.diff(self._timestamps, prepend=-1) > 0).all())
            if seekable:
                container.seek(int(self._timestamps[start]), stream=stream)
                begin = start
            index = begin
            for frame in container.decode(stream):
                if index >= stop:
                    return
                if seekable and frame.pts is not None and frame.pts < self._timestamps[start]:
                    continue
                if index >= start:
                    yield index, self._upright(frame)
                index += 1

    def _upright(self, frame: av.VideoFrame) -> Frame:
        """A frame as it is seen. One of another size than the first, as some streams have, is scaled to that."""
        _check_pixels(frame.width, frame.height, self._max_pixels)
        if not any(self._size):
            self._size = frame.width, frame.height
        pixels = cast(Frame, frame.to_ndarray(format="rgb24", width=self._size[0], height=self._size[1]))
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))

    @contextmanager
    def _open(self) -> Iterator[InputContainer]:
        # PyAV answers damaged bytes with FFmpeg's errors, and some files with plain Python ones.
        try:
            options = {"format_whitelist": DEMUXERS, "protocol_whitelist": ""}
            with av.open(BytesIO(self._data), "r", container_options=options) as container:
                if not container.streams.video:
                    raise InvalidInput("The file has no video in it.")
                context = container.streams.video[0].codec_context
                context.options = {"max_pixels": str(self._max_pixels)}
                context.thread_count = 1
                yield container
        except InvalidInput:
            raise
        except (FFmpegError, ValueError, IndexError, OverflowError) as error:
            raise InvalidInput("The video is damaged, or of a format that is not read here. Send an mp4.") from error


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
        _check_bytes(self.nbytes, limits)
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


class ClipWriter:
    """Encodes frames one by one: mp4 as they come, GIF all at the end, scaled down.

    Args:
        kind: "mp4" or "gif".
        frames_per_second: pace of play.
    """

    def __init__(self, kind: ClipKind, frames_per_second: float) -> None:
        self._gif = kind == "gif"
        self._rate = min(max(frames_per_second, 0.1), 240.0)
        self._buffer = BytesIO()
        self._pictures: list[Image.Image] = []
        self._container: OutputContainer | None = None
        self._stream: Any = None

    def add(self, frame: Frame) -> None:
        """Takes the next frame, (H, W, 3) uint8 RGB; all have one size."""
        if self._gif:
            self._pictures.append(_palette(frame))
            return
        # Chroma is kept for squares of two by two pixels: an odd last row or column is repeated.
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        if self._container is None:
            self._container = cast(OutputContainer, av.open(self._buffer, "w", format="mp4"))
            rate = Fraction(self._rate).limit_denominator(1000)
            self._stream = self._container.add_stream(_encoder(), rate=rate)
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def finish(self) -> bytes:
        """The file. Raises InvalidInput if there was no frame."""
        if self._gif and self._pictures:
            first, *others = self._pictures
            first.save(
                self._buffer, "GIF", save_all=True, append_images=others, duration=round(1000 / self._rate), loop=0
            )
        elif self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
        else:
            raise InvalidInput("A clip needs at least one frame.")
        return self._buffer.getvalue()


def encode_clip(frames: Iterable[Frame], frames_per_second: float, kind: ClipKind = "mp4") -> bytes:
    """An mp4 (H.264 where FFmpeg can) or an endless GIF of frames of one size."""
    writer = ClipWriter(kind, frames_per_second)
    for frame in frames:
        writer.add(frame)
    return writer.finish()


def _encoder() -> str:
    for name in ENCODERS:
        try:
            av.Codec(name, "w")
        except UnknownCodecError:
            continue
        return name
    raise InvalidInput("This server's FFmpeg has no encoder for mp4. Ask for a GIF.")


def _palette(frame: Frame) -> Image.Image:
    picture = Image.fromarray(frame)
    picture.thumbnail((GIF_SIDE, GIF_SIDE))
    return picture.quantize(method=Image.Quantize.FASTOCTREE)


def _check_bytes(count: int, limits: VideoLimits) -> None:
    if count > limits.max_bytes:
        raise TooLarge(
            f"The video has {-(-count // 2**20)} MB; at most {limits.max_bytes // 2**20} MB are accepted. "
            "Send a shorter or smaller one."
        )


def _check_pixels(width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise InvalidInput(f"The video has {width} x {height} pixels a frame; at most {limit} are accepted.")
