from __future__ import annotations

import struct
import tracemalloc
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.formats.clips import ClipKind, encode_clip
from vision_model_repo.formats.images import encode_png
from vision_model_repo.formats.video import PictureSequence, VideoLimits, open_video

FRAMES = 40


def numbered(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame whose grey tells its number, with a red top left quarter."""
    frame = np.full((height, width, 3), 6 * index, np.uint8)
    frame[: height // 2, : width // 2] = 200, 20, 20
    return frame


def number_of(frame: np.ndarray) -> int:
    return round(float(frame[-8:, -8:].mean()) / 6)


def clip(frames: int = FRAMES, kind: ClipKind = "mp4") -> bytes:
    return encode_clip((numbered(index) for index in range(frames)), 10, kind)


def encoded(form: str, codec: str) -> bytes:
    buffer = BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 5_000_000
        for index in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(index), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "codec"),
    [("mp4", "libx264"), ("mov", "libx264"), ("webm", "libvpx-vp9"), ("matroska", "libx264"), ("avi", "mpeg4")],
)
def test_frames_come_in_order_and_number(form: str, codec: str) -> None:
    video = open_video(encoded(form, codec))
    assert (video.frame_count, video.width, video.height) == (FRAMES, 64, 48)
    assert video.frames_per_second == pytest.approx(10)
    assert [(index, number_of(frame)) for index, frame in video.frames()] == [(n, n) for n in range(FRAMES)]


@pytest.mark.parametrize(("form", "codec"), [("mp4", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4")])
def test_a_stretch_of_frames_is_sought_forwards_and_backwards(form: str, codec: str) -> None:
    video = open_video(encoded(form, codec))
    assert [(index, number_of(frame)) for index, frame in video.frames(17, 29)] == [(n, n) for n in range(17, 29)]
    backwards = [(index, number_of(frame)) for index, frame in video.frames(3, 30, backward=True)]
    assert backwards == [(n, n) for n in reversed(range(3, 30))]


def test_a_gif_is_a_video_and_a_clip_can_be_one() -> None:
    data = clip(8, "gif")
    assert Image.open(BytesIO(data)).info["duration"] == 100
    video = open_video(data)
    assert [number_of(frame) for _, frame in video.frames()] == list(range(8))


def test_a_clip_is_h264_at_its_pace_with_even_sides() -> None:
    data = encode_clip([numbered(index, 49, 65) for index in range(12)], 12.5)
    with av.open(BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 66, 50)
        assert stream.average_rate == Fraction(25, 2)


def turned(data: bytes, cosine: int, sine: int) -> bytes:
    """An mp4 whose track header asks for its pictures to be turned, as phones write it."""
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    rotated = struct.pack(">9i", cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    place = data.index(matrix, data.index(b"tkhd"))
    return data[:place] + rotated + data[place + len(matrix) :]


@pytest.mark.parametrize(
    ("cosine", "sine", "size", "corner"),
    [(0, 1, (64, 48), (0, -1)), (-1, 0, (48, 64), (-1, -1)), (0, -1, (64, 48), (-1, 0))],
)
def test_a_phone_held_upright_gives_upright_frames(
    cosine: int, sine: int, size: tuple[int, int], corner: tuple[int, int]
) -> None:
    # A matrix with sine 1 turns a quarter clockwise, so that the top left comes to the top right.
    video = open_video(turned(clip(3), cosine, sine))
    _, frame = next(video.frames())
    assert (video.height, video.width) == size == frame.shape[:2]
    red = frame[..., 0].astype(int) - frame[..., 1] > 100
    assert red[corner] and red.mean() == pytest.approx(0.25, abs=0.05)


def test_limits_hold() -> None:
    data = clip()
    with pytest.raises(TooLarge, match="at most 0 MB"):
        open_video(data, VideoLimits(max_bytes=100))
    with pytest.raises(InvalidInput, match="more than 39 frames"):
        open_video(data, VideoLimits(max_frames=39))
    with pytest.raises(InvalidInput, match="64 x 48 pixels a frame; at most 3000"):
        open_video(data, VideoLimits(max_pixels=3000))
    with pytest.raises(InvalidInput, match=r"more than 3\.5 seconds"):
        open_video(data, VideoLimits(max_seconds=3.5))
    open_video(data, VideoLimits(max_bytes=len(data), max_frames=40, max_pixels=64 * 48, max_seconds=4))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no video at all",
        b"\x00" * 5000,
        clip()[:300],
        encode_png(numbered(1)),
        b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
    ],
)
def test_what_is_no_video_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"empty|damaged|not read here"):
        open_video(data)


def test_sound_alone_is_no_video() -> None:
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 48000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(InvalidInput, match="no video in it"):
        open_video(buffer.getvalue())


def test_decoding_holds_a_frame_and_not_the_video() -> None:
    data = encode_clip((numbered(index % 40, 240, 320) for index in range(200)), 25)
    video = open_video(data)
    tracemalloc.start()
    for _, _frame in video.frames():
        pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 6 * 240 * 320 * 3
    assert video.nbytes < len(data) + 2000


def test_pictures_make_a_video() -> None:
    video = PictureSequence([encode_png(numbered(index)) for index in range(5)])
    assert (video.frame_count, video.width, video.height) == (5, 64, 48)
    assert [index for index, frame in video.frames(1, 4, backward=True) if number_of(frame) == index] == [3, 2, 1]


def test_pictures_must_be_pictures_of_one_size() -> None:
    with pytest.raises(InvalidInput, match="no frames"):
        PictureSequence([])
    with pytest.raises(InvalidInput, match="3 frames; at most 2"):
        PictureSequence([encode_png(numbered(1))] * 3, VideoLimits(max_frames=2))
    mixed = PictureSequence([encode_png(numbered(0)), encode_png(numbered(1, 10, 12)), b"?"])
    with pytest.raises(InvalidInput, match="Frame 1 has 12 x 10 pixels and frame 0 has 64 x 48"):
        list(mixed.frames())
    with pytest.raises(InvalidInput, match="Frame 2: The data is no image"):
        list(mixed.frames(2))
