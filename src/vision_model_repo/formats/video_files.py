"""Video files through FFmpeg, decoded frame by frame from memory or disk.

The packets of a file are counted when it is opened, without decoding, so that the number of frames is known from the
start and any frame can be sought.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import SEEK_CUR, SEEK_END, SEEK_SET
from time import monotonic
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vision_model_repo.errors import InsufficientMemory, InvalidInput, is_out_of_memory
from vision_model_repo.formats.images import has_room
from vision_model_repo.formats.sanitize.packets import CODECS, check_packet
from vision_model_repo.formats.video import Frame, Video, VideoBytes, VideoLimits, check_bytes

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,ogg,flv,asf"
"""Containers that hold their own data. Playlists are left out: they would name files and addresses for us to open."""

SEEK_SECONDS = 20.0
"""Longest time from a key frame to the frame that is wanted. Nothing can stop the thread in between."""
SLOW_PACKET_SECONDS = 10.0
"""Longest time for one packet. A frame of an honest video takes a hundredth of it; nothing can stop the decoder either,
so this ends the video after the first one."""
PACKETS_PER_FRAME = 4
"""Packets that may come for each frame that is accepted, empty ones included."""


class _Cursor:
    """A place in a file, for one reader of several."""

    def __init__(self, data: VideoBytes) -> None:
        self._data = data
        self._place = 0

    def read(self, count: int) -> bytes:
        chunk = self._data[self._place : self._place + count]
        self._place += len(chunk)
        return chunk

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._place = offset + {SEEK_SET: 0, SEEK_CUR: self._place, SEEK_END: len(self._data)}[whence]
        return self._place

    def tell(self) -> int:
        return self._place


class EncodedVideo(Video):
    """A video file: mp4, mov, webm, mkv, avi, gif and what else FFmpeg demuxes on its own.

    Args:
        data: the file.
        limits: checked before any frame is decoded, but for what only the frames tell.

    Raises:
        TooLarge: more bytes than the limit.
        InvalidInput: no such file, no picture in it, or beyond another limit.
    """

    def __init__(self, data: VideoBytes, limits: VideoLimits | None = None) -> None:
        limits = limits or VideoLimits()
        if not data:
            raise InvalidInput("The video is empty (zero bytes).")
        check_bytes(len(data), limits)
        self._data = data
        self._max_pixels = limits.max_pixels
        self._pixels = 0
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
        with self._open() as (container, stream):
            _check_pixels(stream.codec_context.width, stream.codec_context.height, limits.max_pixels)
            stamps: list[int] = []
            for number, packet in enumerate(container.demux(stream)):
                if number > PACKETS_PER_FRAME * (limits.max_frames + 1):
                    raise InvalidInput("The video has too many packets for its frames. Encode it anew.")
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
        with self._open() as (container, stream):
            begin = 0
            seekable = start > 0 and bool((np.diff(self._timestamps, prepend=-1) > 0).all())
            if seekable:
                container.seek(int(self._timestamps[start]), stream=stream)
                begin = start
            index = begin
            since = monotonic()
            for frame in _decoded(container, stream):
                if index >= stop:
                    return
                if seekable and frame.pts is not None and frame.pts < self._timestamps[start]:
                    _check_time(since, start)
                    continue
                if index >= start:
                    yield index, self._upright(frame)
                else:
                    _check_time(since, start)
                index += 1

    def _upright(self, frame: av.VideoFrame) -> Frame:
        """A frame as it is seen. One of another size than the first, as some streams have, is scaled to that."""
        _check_pixels(frame.width, frame.height, self._max_pixels)
        if not any(self._size):
            self._size = frame.width, frame.height
        pixels = cast(Frame, frame.to_ndarray(format="rgb24", width=self._size[0], height=self._size[1]))
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))

    @contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        # PyAV answers damaged bytes with FFmpeg's errors, and some files with plain Python ones of many types.
        try:
            options = {
                "format_whitelist": DEMUXERS,
                "protocol_whitelist": "",
                # FFmpeg would decode frames to learn more about them, of any size, before one can look at it.
                "codec_whitelist": "none",
            }
            with av.open(_Cursor(self._data), "r", container_options=options) as container:
                stream = _pictures(container)
                context = stream.codec_context
                context.options = {"max_pixels": str(self._max_pixels)}
                context.thread_count = 1
                self._pixels = context.width * context.height
                yield container, stream
        except InvalidInput:
            raise
        except Exception as error:
            # A decoder holds up to sixteen frames of 1.5 bytes a pixel.
            if is_out_of_memory(error) or not has_room(24 * min(self._pixels, self._max_pixels)):
                raise InsufficientMemory(
                    "The server has no memory left to decode the video. Send a smaller one, or try again later."
                ) from error
            raise InvalidInput("The video is damaged, or of a format that is not read here. Send an mp4.") from error


def _pictures(container: InputContainer) -> VideoStream:
    """The first stream of moving pictures. Raises InvalidInput if there is none that can be decoded."""
    # The cover of a piece of music is a video stream, too.
    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams:
        raise InvalidInput("The file has no video in it.")
    for stream in streams:
        # Where FFmpeg has no decoder, there is no context, whatever the types say.
        context = cast("av.VideoCodecContext | None", stream.codec_context)
        if context is not None and context.codec.name in CODECS:
            return stream
    raise InvalidInput(
        "The video has a codec that is not read here, or is encrypted. Send H.264 in an mp4, without a copy protection."
    )


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    codec, extradata = stream.codec_context.codec.name, stream.codec_context.extradata or b""
    for packet in container.demux(stream):
        check_packet(codec, packet, extradata)
        since = monotonic()
        frames = packet.decode()
        if monotonic() - since > SLOW_PACKET_SECONDS:
            raise InvalidInput("A frame of the video is too costly to decode. Encode it anew.")
        yield from frames


def _check_time(since: float, index: int) -> None:
    if monotonic() - since > SEEK_SECONDS:
        raise InvalidInput(
            f"Frame {index} is not reached within {SEEK_SECONDS:g} seconds from the key frame before it. Encode the "
            "video with a key frame every few seconds."
        )


def _check_pixels(width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise InvalidInput(f"The video has {width} x {height} pixels a frame; at most {limit} are accepted.")
