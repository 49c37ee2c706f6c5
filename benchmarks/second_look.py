"""The same image again: with a new prompt, and with a click, when the server has seen it before.

The checkpoint is that of `benchmarks.prompts`. Times are those of the whole request and, from the answer's own timings,
of the two parts of the network.

python -m benchmarks.second_look
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from benchmarks.checkpoints import MID, TINY, gigaflops, write_sam3
from benchmarks.pictures import fresh_base64
from benchmarks.report import at_least, print_table
from benchmarks.server import our_server
from vision_model_repo.demo.scenes import phrases

WIDTH, HEIGHT = 640, 480
FIRST, AGAIN = "first look, a prompt", "second look, a new prompt"
CLICK, NEXT_CLICK = "the first click", "the next click"
CLICKS = {CLICK: [WIDTH // 2, HEIGHT // 2], NEXT_CLICK: [WIDTH // 4, HEIGHT // 4]}
GOALS = {AGAIN: 8.0, CLICK: 50.0, NEXT_CLICK: 50.0}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="a checkpoint for trying this out")
    options = parser.parse_args()
    images = fresh_base64(WIDTH, HEIGHT)
    times: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with TemporaryDirectory() as folder:
        model_id = write_sam3(Path(folder), TINY if options.tiny else MID)
        encoder, prompt = gigaflops(model_id)
        with our_server() as server, httpx.Client(base_url=server.url, timeout=600) as client:
            for repeat in range(options.repeats + 1):
                asked = look(client, model_id, next(images), phrases()[2 * repeat : 2 * repeat + 2])
                # The first time is the model's and the kernels' own.
                for name, timings in asked.items() if repeat else ():
                    times[name].append(timings)
    middle = {
        name: {stage: median(timing[stage] for timing in all_times) for stage in all_times[0]}
        for name, all_times in times.items()
    }
    print_table(
        f"SAM3 on an image of {WIDTH} x {HEIGHT}, median of {options.repeats}: "
        f"image encoder {encoder:.1f} GFLOP, one prompt {prompt:.2f} GFLOP",
        ("request", "ms", "of it encode", "prompt", "post", "times as fast"),
        (
            (
                name,
                f"{timing['client']:.1f}",
                f"{timing['encode']:.1f}",
                f"{timing['prompt']:.1f}",
                f"{timing['post']:.1f}",
                f"{middle[FIRST]['client'] / timing['client']:.1f}",
            )
            for name, timing in middle.items()
        ),
        notes=[
            at_least(f"{name}, as fast as the first", middle[FIRST]["client"] / middle[name]["client"], goal, " x")
            for name, goal in GOALS.items()
        ],
    )


def look(client: httpx.Client, model_id: str, image: str, prompts: list[str]) -> dict[str, dict[str, Any]]:
    """Timings in ms of four requests about one image, which the server has not seen before the first."""
    stored = client.post("/images", json={"image": image}).raise_for_status().json()["image_id"]
    body = {"images": [{"data": stored, "format": "id"}], "model_id": model_id}
    return {
        FIRST: ask(client, {**body, "prompts": prompts[:1]}, hit=False),
        AGAIN: ask(client, {**body, "prompts": prompts[1:]}, hit=True),
    } | {
        name: ask(client, {**body, "points": [[[point]]], "point_labels": [[[1]]]}, hit=True)
        for name, point in CLICKS.items()
    }


def ask(client: httpx.Client, body: dict[str, Any], *, hit: bool) -> dict[str, Any]:
    started = time.perf_counter()
    answer = client.post("/inference/sam3", json=body).raise_for_status().json()
    seconds = time.perf_counter() - started
    assert answer["cache_hits"] == [hit], answer["cache_hits"]
    return {**answer["timings"], "client": 1000 * seconds}


if __name__ == "__main__":
    main()
