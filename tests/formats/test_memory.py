"""Where the memory of the host does not suffice, that is what is told, and not that the file is damaged."""

from __future__ import annotations

import errno
import json
import pickle
import subprocess
import sys
from pathlib import Path

import av.error
import numpy as np
import pytest
from PIL import Image

from tests.hostile.bombs import encoded
from tests.hostile.videos import encoded as video
from vision_model_repo.errors import InsufficientMemory, is_out_of_memory

SIDE = 1600
DECODE = """
import json, pickle, resource, sys, warnings
from vision_model_repo.errors import VisionError
from vision_model_repo.formats.images import decode_image
from vision_model_repo.formats.video import open_video

warnings.simplefilter("ignore")
small, large = pickle.load(open(sys.argv[1], "rb"))
told = {}

def outcome(name, data):
    try:
        if name == "mp4":
            open_video(data)
        else:
            decode_image(data, max_pixels=64_000_000)
    except VisionError as error:
        return error.status, error.message, repr(error.__cause__)
    return 200, "", ""

for name, data in small.items():
    assert outcome(name, data)[0] == 200, name
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for megabytes in (2, 6):
    resource.setrlimit(resource.RLIMIT_AS, (held + megabytes * 2**20, resource.RLIM_INFINITY))
    for name, data in large.items():
        told[f"{name} with {megabytes} MB"] = outcome(name, data)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert outcome("PNG", large["PNG"])[0] == 200
print(json.dumps(told))
"""


def pictures(side: int) -> dict[str, bytes]:
    picture = Image.new("RGB", (side, side), (9, 99, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {name: encoded(picture, name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}
    made["AVIF"] = encoded(picture, "AVIF", speed=10)
    made["progressive JPEG"] = encoded(picture, "JPEG", progressive=True)
    made["turned JPEG"] = encoded(picture, "JPEG", exif=exif)
    made["CMYK JPEG"] = encoded(picture.convert("CMYK"), "JPEG")
    made["transparent PNG"] = encoded(picture.convert("RGBA"), "PNG")
    made["deep PNG"] = encoded(Image.fromarray(np.zeros((side, side), np.uint16)), "PNG")
    for compression in ("jpeg", "tiff_lzw", "tiff_adobe_deflate", "lzma", "zstd", "packbits"):
        made[f"{compression} TIFF"] = encoded(picture, "TIFF", compression=compression)
    made["mp4"] = video("mp4", "libx264", frames=2, size=(side - side % 16, 960 if side > 960 else side - side % 16))
    return made


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_too_little_memory_is_told_for_every_format(tmp_path: Path) -> None:
    given = tmp_path / "pictures"
    given.write_bytes(pickle.dumps((pictures(64), pictures(SIDE))))
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(given)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    wrong = {name: outcome for name, outcome in told.items() if outcome[0] not in (200, InsufficientMemory.status)}
    assert not wrong, wrong
    assert sum(outcome[0] == InsufficientMemory.status for outcome in told.values()) > len(told) / 2
    assert all("memory" in outcome[1] for outcome in told.values() if outcome[0] == InsufficientMemory.status)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory", "avcodec_send_packet()"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        OSError("decoder error -9"),
        ValueError("Memory allocation failure"),
    ],
    ids=str,
)
def test_out_of_memory_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_numpy_runs_out_of_memory_in_the_same_way() -> None:
    with pytest.raises(MemoryError) as caught:
        np.zeros(2**60, np.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [ValueError("x"), OSError("decoder error -2"), KeyError("out of memory")], ids=str)
def test_other_errors_are_none_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
