"""Whether /health answers while eight clients keep the device busy.

python -m benchmarks.health
"""

from __future__ import annotations

import asyncio
import base64
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx

from benchmarks.report import print_table
from vision_model_repo.demo.live import live_server
from vision_model_repo.demo.scenes import render, sample_scene
from vision_model_repo.formats.images import encode_png

CLIENTS = 8
PROBES = 400
PROBE_EVERY = 0.02
BODY = {"prompts": ["red cube", "sphere", "object"], "model_id": "demo/sam3"}


def main() -> None:
    pictures = [encode_png(render(sample_scene(seed), 640, 480).image) for seed in range(CLIENTS)]
    settings = {"HF_HUB_OFFLINE": "1", "TORCH_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder, live_server(Path(folder), settings) as server:
        idle, _ = asyncio.run(probe(server.url, pictures[:0]))
        busy, answered = asyncio.run(probe(server.url, pictures))
    print_table(
        f"GET /health, {PROBES} times, alone and beside {CLIENTS} clients of POST /inference/sam3",
        ("clients", "p50 ms", "p99 ms", "worst ms", "inferences/s meanwhile"),
        [row("0", idle, 0.0), row(str(CLIENTS), busy, answered)],
    )


def row(name: str, times: list[float], rate: float) -> tuple[str, ...]:
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return name, f"{median(ordered):.1f}", f"{p99:.1f}", f"{ordered[-1]:.1f}", f"{rate:.1f}"


async def probe(url: str, pictures: list[bytes]) -> tuple[list[float], float]:
    """Times of /health in ms while each picture is sent over and over, and inferences answered a second."""
    limits = httpx.Limits(max_connections=CLIENTS + 1)
    answered = 0
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

        async def ask(picture: bytes) -> None:
            nonlocal answered
            body = {**BODY, "images": [base64.b64encode(picture).decode()]}
            while True:
                (await client.post("/inference/sam3", json=body)).raise_for_status()
                answered += 1

        if pictures:
            first = {**BODY, "images": [base64.b64encode(pictures[0]).decode()]}
            (await client.post("/inference/sam3", json=first)).raise_for_status()
        clients = [asyncio.create_task(ask(picture)) for picture in pictures]
        started = time.perf_counter()
        times = [await time_one(client) for _ in range(PROBES)]
        rate = answered / (time.perf_counter() - started)
        failed = [task for task in clients if task.done()]
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    if failed:
        failed[0].result()
    return times, rate


async def time_one(client: httpx.AsyncClient) -> float:
    await asyncio.sleep(PROBE_EVERY)
    started = time.perf_counter()
    (await client.get("/health")).raise_for_status()
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
