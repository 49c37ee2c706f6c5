"""Packets of a video: one of them codes one picture, or about one, whatever it says."""

from __future__ import annotations

from typing import Any

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.sanitize.av1 import count_frames
from vision_model_repo.formats.sanitize.jpeg import check_scans

CODECS = frozenset(
    """
    av1 libdav1d cfhd cinepak dnxhd dvvideo ffv1 ffvhuff flashsv flv gif h261 h263 h264 hevc huffyuv indeo3 indeo5
    lagarith libvpx libvpx-vp9 magicyuv mjpeg mpeg1video mpeg2video mpeg4 mpegvideo msmpeg4 msmpeg4v1 msmpeg4v2 png
    prores qtrle rawvideo rpza svq1 svq3 theora utvideo v210 vc1 vp3 vp6 vp6a vp6f vp7 vp8 vp9 wmv1 wmv2 wmv3 yuv4
    """.split()
)
"""FFmpeg's decoders that are used: those of cameras, editors, browsers and screen recorders."""

FREE_UNITS = 144
UNIT_BYTES = 1024
MAX_UNITS = 512
"""Units of H.264 or HEVC in a packet: one for every row of a large picture, and one more for every so many bytes, as
cameras cut them for the network. Each may tell anew what all of the picture looks like, in a few bytes."""
MAX_PICTURES = 16
"""Most pictures in a packet of AV1 or MPEG. Hidden ones, which others are built from, are few."""


def check_packet(codec: str, packet: Any, extradata: bytes) -> None:
    """Refuses a packet that would keep its decoder busy for long.

    Args:
        codec: FFmpeg's name of the decoder.
        extradata: the stream's configuration, which tells how the units of a packet are told apart.

    Raises:
        InvalidInput: it holds too many pictures, passes over one, or pieces of one.
    """
    if codec == "mjpeg":
        check_scans(bytes(packet), 0)
    elif codec in ("h264", "hevc"):
        data = bytes(packet)
        most = min(MAX_UNITS, FREE_UNITS + len(data) // UNIT_BYTES)
        if _count_units(data, extradata, hevc=codec == "hevc") > most:
            raise InvalidInput(f"A frame of the video has more than {most} pieces. Encode it anew.")
    elif (
        (codec in ("av1", "libdav1d") and count_frames(bytes(packet)) > MAX_PICTURES)
        or (codec in ("mpeg1video", "mpeg2video", "mpegvideo") and bytes(packet).count(b"\0\0\1\0") > MAX_PICTURES)
        or (codec == "mpeg4" and bytes(packet).count(b"\0\0\1\xb6") > MAX_PICTURES)
    ):
        raise InvalidInput(f"A packet of the video has more than {MAX_PICTURES} frames. Encode it anew.")


def _count_units(data: bytes, extradata: bytes, *, hevc: bool) -> int:
    """Units of a packet, up to one more than are accepted."""
    place = 21 if hevc else 4
    # The configuration record begins with its version; else there are start codes. Where FFmpeg doubts, it looks for
    # the other one, so that both are counted.
    units = data.count(b"\0\0\1")
    if len(extradata) <= place or extradata[0] != 1:
        return units
    size = (extradata[place] & 3) + 1
    at = lengths = 0
    while at < len(data) and lengths <= MAX_UNITS:
        at += size + int.from_bytes(data[at : at + size], "big")
        lengths += 1
    return max(units, lengths)
