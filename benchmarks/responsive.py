"""Whether small things stay quick while eight clients keep SAM3 busy: /health, a job's state, and DINOv3.

python -m benchmarks.responsive
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from itertools import cycle, islice, repeat

from benchmarks.load import Connection, Load, background, closed_loop, json_request, request, run
from benchmarks.pictures import fresh_base64
from benchmarks.report import at_most, print_table
from benchmarks.server import our_server

HEALTH, JOB, FEATURES = "GET /health", "GET /jobs/{job_id}", "POST /inference/dinov3"
EVERY = 0.02
"""Seconds between an answer and the next question."""
SATURATION_SECONDS = 1.0
GOAL_MS = {HEALTH: 20.0, JOB: 20.0}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--probes", type=int, default=400, help="of each kind; a tenth of it for DINOv3")
    options = parser.parse_args()
    pictures = fresh_base64(640, 480)
    busy = [sam3_request(picture) for picture in islice(pictures, 200)]
    # Without a memory for encodings every image is new, however often it comes.
    with our_server(CACHE_HOST_MB="0", CACHE_DEVICE_MB="0") as server:
        run(closed_loop(server.url, [busy[0], features_request(next(pictures))], clients=1))
        idle, _ = run(probe(server.url, [], options.probes, pictures))
        beside, rate = run(probe(server.url, busy, options.probes, pictures, clients=options.clients))
    print_table(
        f"Alone, and beside {options.clients} clients of SAM3 who get {rate:.1f} answers a second",
        ("request", "clients of SAM3", "p50 ms", "p99 ms", "worst ms", "errors"),
        [
            row(name, clients, load)
            for name in idle
            for clients, load in ((0, idle[name]), (options.clients, beside[name]))
        ],
        [at_most(f"{name}, p99", beside[name].percentile(99), goal, " ms") for name, goal in GOAL_MS.items()],
    )


def sam3_request(picture: str) -> bytes:
    return json_request(
        "/inference/sam3", {"images": [picture], "prompts": ["red cube", "sphere", "object"], "model_id": "demo/sam3"}
    )


def features_request(picture: str, path: str = "/inference/dinov3") -> bytes:
    return json_request(path, {"images": [picture], "include": ["pooler_output"], "model_id": "demo/dinov3"})


async def probe(
    url: str, busy: list[bytes], probes: int, pictures: Iterator[str], *, clients: int = 0
) -> tuple[dict[str, Load], float]:
    """Times of the small requests, and answers a second of the large ones meanwhile."""
    asked = {
        HEALTH: repeat(request("GET", "/health"), probes),
        JOB: repeat(request("GET", f"/jobs/{await submitted_job(url, next(pictures))}"), probes),
        FEATURES: [features_request(picture) for picture in islice(pictures, max(1, probes // 10))],
    }
    async with background(url, cycle(busy), clients=clients) as load:
        started = time.perf_counter()
        await asyncio.sleep(SATURATION_SECONDS if clients else 0)
        measured = {name: await closed_loop(url, requests, clients=1, every=EVERY) for name, requests in asked.items()}
        rate = len(load.times) / (time.perf_counter() - started)
    assert not load.errors, f"{load.errors} requests to SAM3 failed"
    return measured, rate


async def submitted_job(url: str, picture: str) -> str:
    connection = await Connection.to(url)
    _, answer = await connection.ask(features_request(picture, "/jobs/submit/dinov3"))
    connection.close()
    return json.loads(answer)["job_id"]


def row(name: str, clients: int, load: Load) -> tuple[str, ...]:
    latencies = (f"{load.percentile(percent):.1f}" for percent in (50, 99, 100))
    return name, str(clients), *latencies, str(load.errors)


if __name__ == "__main__":
    main()
