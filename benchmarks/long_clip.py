"""Whether memory stays flat while a long clip is tracked: what the server holds, by the minute of play.

python -m benchmarks.long_clip [--minutes 10] [--frames-per-second 5] [--cache-mb 8]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import httpx
import numpy as np

from benchmarks.report import at_most, print_table
from benchmarks.server import Server, our_server
from vision_model_repo.formats.clips import encode_clip
from vision_model_repo.formats.video import Frame

WIDTH, HEIGHT = 128, 96
COLORS = {"red": (190, 30, 30), "green": (40, 140, 50), "blue": (40, 60, 190)}
GOAL_PERCENT = 5.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0, help="of play")
    parser.add_argument("--frames-per-second", type=float, default=5.0)
    parser.add_argument("--cache-mb", type=int, default=8, help="for encodings of frames, full within a minute")
    options = parser.parse_args()
    count = max(2, round(60 * options.minutes * options.frames_per_second))
    video = encode_clip(wandering(count), options.frames_per_second)
    with our_server(LOG_LEVEL="WARNING", CACHE_HOST_MB=str(options.cache_mb)) as server:
        before = server.resident_mb()
        started = time.monotonic()
        resident = track(server, video, round(60 * options.frames_per_second))
        seconds = time.monotonic() - started
    growth = 100 * (resident[-1] / resident[0] - 1)
    print_table(
        f"Resident memory while {count} frames of {WIDTH} x {HEIGHT} are tracked by demo/sam3, one session",
        ("minute of play", "resident MB"),
        [("before", f"{before:.0f}"), *((str(minute), f"{mb:.0f}") for minute, mb in enumerate(resident, start=1))],
        notes=[
            f"{len(video) / 2**20:.1f} MB of mp4, {1000 * seconds / count:.0f} ms a frame",
            at_most("growth from the first minute to the last", growth, GOAL_PERCENT, " %"),
        ],
    )


def wandering(count: int) -> Iterator[Frame]:
    """Three discs that wander over noise, and over each other."""
    noise = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for index in range(count):
        frame = noise.integers(110, 146, (HEIGHT, WIDTH, 3), np.uint8)
        for number, color in enumerate(COLORS.values(), start=1):
            x = WIDTH * (0.5 + 0.35 * np.sin(index / (9 + 2 * number) + number))
            y = HEIGHT * (0.5 + 0.3 * np.cos(index / (13 + 3 * number)))
            frame[(rows - y) ** 2 + (columns - x) ** 2 < 13**2] = color
        yield frame


def track(server: Server, video: bytes, a_minute: int) -> list[float]:
    """Resident MB after every minute of play, and after the last frame."""
    sent = {"phrases": [f"{color} object" for color in COLORS], "model_id": "demo/sam3"}
    resident: list[float] = []
    with httpx.Client(base_url=server.url, timeout=300) as client:
        answer = client.post("/tracking", files={"video": video}, data=sent)
        path = f"/tracking/{answer.raise_for_status().json()['session_id']}/frames"
        with client.stream("GET", path) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: ") and "frame_index" in (told := json.loads(line[6:])):
                    if (told["frame_index"] + 1) % a_minute == 0:
                        resident.append(server.resident_mb())
                elif line.startswith("event: error"):
                    raise RuntimeError("the tracking failed")
        return resident or [server.resident_mb()]


if __name__ == "__main__":
    main()
