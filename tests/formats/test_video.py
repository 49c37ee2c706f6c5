from __future__ import annotations

import struct
import time
import tracemalloc
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import av.stream
import numpy as np
import pytest
from PIL import Image

from tests.hostile import bombs, videos
from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.formats import video_files
from vision_model_repo.formats.clips import ClipKind, encode_clip
from vision_model_repo.formats.images import encode_png
from vision_model_repo.formats.sanitize.av1 import count_frames
from vision_model_repo.formats.sanitize.packets import CODECS, MAX_PICTURES, MAX_UNITS, check_packet
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


# Codecs


def test_every_codec_that_is_read_is_one_of_ffmpegs() -> None:
    # Builds of FFmpeg differ in which of them they have.
    assert {"h264", "hevc", "vp8", "vp9", "mpeg4", "mjpeg", "prores", "gif"} <= CODECS & av.codecs_available


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("mpegts", "libx264"),
        ("mpeg", "mpeg1video"),
        ("flv", "flv"),
        ("ogg", "libtheora"),
        ("mov", "mjpeg"),
        ("matroska", "ffv1"),
        ("mp4", "libx265"),
        ("mp4", "libsvtav1"),
        ("webm", "libvpx"),
        ("asf", "wmv2"),
    ],
)
def test_videos_of_usual_codecs_are_read(form: str, codec: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip("this FFmpeg does not write it")
    video = open_video(videos.encoded(form, codec, frames=12, size=(128, 96)))
    assert (video.width, video.height) == (128, 96)
    assert video.frame_count == pytest.approx(12, abs=1)
    assert video.frames_per_second == pytest.approx(25, abs=0.1)
    lightness = [float(frame.mean()) for _, frame in video.frames()]
    assert len(lightness) >= 11 and lightness[-1] > lightness[0] + 30


@pytest.mark.parametrize("name", [b"zzzz", b"encv", b"\0\0\0\0", b"drmi"])
def test_a_codec_that_is_not_read_is_told(name: bytes) -> None:
    with pytest.raises(InvalidInput, match="codec that is not read here, or is encrypted"):
        open_video(videos.mp4_of_codec(name))


def test_a_codec_that_ffmpeg_has_and_nobody_needs_is_not_read() -> None:
    with pytest.raises(InvalidInput, match="codec that is not read here"):
        open_video(videos.encoded("avi", "asv1", frames=2))


def test_the_cover_of_a_piece_of_music_is_no_video() -> None:
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        sound: Any = container.add_stream("aac", rate=48000)
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.start_encoding()
        packet = av.Packet(bombs.encoded(Image.new("RGB", (64, 48)), "JPEG"))
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1)
        container.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with pytest.raises(InvalidInput, match="no video in it"):
        open_video(buffer.getvalue())


# Cost that the size does not show


def test_frames_of_many_scans_are_refused() -> None:
    for form in ("avi", "mov", "matroska"):
        data = videos.of_packets(form, "mjpeg", (64, 48), [bombs.jpeg_of_scans(64, 48, 40)] * 3)
        with pytest.raises(InvalidInput, match="more than 32 scans"):
            open_video(data)
    late = videos.of_packets(
        "avi", "mjpeg", (64, 48), [bombs.jpeg_of_scans(64, 48, 0)] * 3 + [bombs.jpeg_of_scans(64, 48, 40)]
    )
    frames = open_video(late).frames()
    assert [next(frames)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InvalidInput, match="more than 32 scans"):
        next(frames)


@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_frames_of_many_pieces_are_refused(form: str) -> None:
    like = videos.encoded(form, "libx264", frames=3)
    with av.open(BytesIO(like), "r") as container:
        packets = [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]
    assert open_video(videos.of_packets(form, "libx264", (64, 48), packets, like=like)).frame_count == 3
    packets[1] *= MAX_UNITS + 1
    data = videos.of_packets(form, "libx264", (64, 48), packets, like=like)
    with pytest.raises(InvalidInput, match="pieces"):
        list(open_video(data).frames())


def test_hidden_frames_of_a_packet_are_counted() -> None:
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this FFmpeg does not write AV1")
    data = videos.encoded("mp4", "libsvtav1", frames=20)
    with av.open(BytesIO(data), "r") as container:
        packets = [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]
    counts = [count_frames(packet) for packet in packets]
    assert len(packets) == 20 and min(counts) == 1 and sum(counts) >= 20 and max(counts) < MAX_PICTURES
    check_packet("libdav1d", packets[0], b"")
    with pytest.raises(InvalidInput, match="more than 16 frames"):
        check_packet("libdav1d", packets[0] * (MAX_PICTURES + 1), b"")


def test_frames_are_not_decoded_before_their_size_is_known() -> None:
    for form in ("mpegts", "matroska", "mp4"):
        data = videos.encoded(form, "libx264", frames=1, size=(2048, 2048), options={"preset": "ultrafast"})
        started = time.process_time()
        with pytest.raises(InvalidInput, match="2048 x 2048 pixels a frame; at most 9999"):
            open_video(data, VideoLimits(max_pixels=9999))
        # Decoding it takes longer.
        assert time.process_time() - started < 0.1


def test_a_frame_that_is_far_from_its_key_frame_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rare = videos.encoded("mp4", "libx264", frames=100, options={"x264-params": "keyint=1000:scenecut=0"})
    video = open_video(rare)
    assert next(video.frames(90))[0] == 90
    monkeypatch.setattr(video_files, "SEEK_SECONDS", 0.0)
    with pytest.raises(InvalidInput, match=r"Frame 90 is not reached within 0 seconds.*key frame every few seconds"):
        next(video.frames(90))
    assert next(video.frames(0))[0] == 0


def test_small_frames_are_read_backwards_in_few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    video = open_video(videos.encoded("mp4", "libx264", frames=100))
    passes: list[int] = []
    forward = video._forward
    monkeypatch.setattr(video, "_forward", lambda start, stop: passes.append(stop - start) or forward(start, stop))
    assert [index for index, _ in video.frames(backward=True)] == list(range(99, -1, -1))
    assert passes == [100]


def test_other_streams_are_not_decoded() -> None:
    buffer = BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        pictures: Any = container.add_stream("ffv1", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        other: Any = container.add_stream("mjpeg", rate=25)
        other.width, other.height, other.pix_fmt = 64, 48, "yuvj420p"
        for index in range(6):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(numbered(index), format="rgb24")))
            packet = av.Packet(b"\xff\xd8 no picture at all")
            packet.stream, packet.pts, packet.dts, packet.time_base = other, index, index, Fraction(1, 25)
            container.mux(packet)
        container.mux(pictures.encode())
    assert [number_of(frame) for _, frame in open_video(buffer.getvalue()).frames()] == list(range(6))
