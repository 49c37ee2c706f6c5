"""Whether time and memory stay flat: jobs submitted and polled by the thousand, and mixed load by the minute.

python -m benchmarks.growth [--jobs 100000] [--minutes 60]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import repeat
from statistics import mean

import numpy as np
import pybase64

from benchmarks.contenders import our_json
from benchmarks.load import Connection, Load, background, closed_loop, json_request, request, run
from benchmarks.pictures import fresh_base64
from benchmarks.report import at_most, percentile, print_table
from benchmarks.server import DUMMY_APP, Server, our_server
from vision_model_repo.formats.images import encode_jpeg

PARTS = 5
SAMPLE_SECONDS = 1.0
CACHE_MB = "8"
"""Of encodings: little, so that it is full at once, and what grows afterwards grows for another reason."""
GOAL_PERCENT = 2.0
GOAL_TIMES = 1.1
"""By which a call may take longer in the end and still be called flat: a quiet machine varies by as much."""
MIXED = {
    "sam3": {"prompts": ["red cube", "sphere"]},
    "grounding-dino": {"prompts": ["cube"]},
    "depth-anything": {"export_format": "png"},
    "dinov3": {"include": ["pooler_output"]},
}


@dataclass(slots=True)
class Part:
    """What a share of the jobs took, in ms a call, and the server's memory after it."""

    submitted: list[float]
    polled: list[float]
    resident_mb: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=0.5, help="of mixed load")
    options = parser.parse_args()
    with our_server(command=DUMMY_APP, LOG_LEVEL="WARNING") as server:
        parts = run(submit_all(server, options.jobs))
    print_table(
        f"{options.jobs} jobs submitted and polled until they were done, one after the other",
        ("jobs", "submit p50 ms", "p99 ms", "poll p50 ms", "p99 ms", "resident MB"),
        (row((number + 1) * options.jobs // PARTS, part) for number, part in enumerate(parts)),
        notes=[
            at_most("submit p50, the last fifth against the second", ratio(parts, "submitted"), GOAL_TIMES, " x"),
            at_most("poll p50, the last fifth against the second", ratio(parts, "polled"), GOAL_TIMES, " x"),
            at_most(
                "memory more than after the second fifth",
                100 * (parts[-1].resident_mb / parts[1].resident_mb - 1),
                GOAL_PERCENT,
                " %",
            ),
        ],
    )
    if options.minutes:
        with our_server(LOG_LEVEL="WARNING", CACHE_HOST_MB=CACHE_MB) as server:
            resident, load = run(mixed_load(server, 60 * options.minutes))
        print_growth(options.minutes, resident, load)


def ratio(parts: Sequence[Part], calls: str) -> float:
    """Of the last part's time to the second's; in the first the server is getting warm."""
    last, second = (percentile(getattr(part, calls), 50) for part in (parts[-1], parts[1]))
    return last / second


async def submit_all(server: Server, jobs: int) -> list[Part]:
    """Submits jobs and polls each until it is done; in the beginning as many as the server remembers."""
    connection = await Connection.to(server.url)
    picture = pybase64.b64encode(encode_jpeg(np.zeros((64, 64, 3), np.uint8))).decode()
    body = our_json(picture).replace(b"/inference/dummy", b"/jobs/submit/dummy")
    parts: list[Part] = []
    for _ in range(PARTS):
        submitted, polled = [], []
        for _ in range(jobs // PARTS):
            job = await timed(connection, body, submitted)
            while job["status"] != "completed":
                job = await timed(connection, request("GET", f"/jobs/{job['job_id']}"), polled)
        parts.append(Part(submitted, polled, server.resident_mb()))
    connection.close()
    return parts


async def timed(connection: Connection, request: bytes, times: list[float]) -> dict[str, str]:
    started = time.perf_counter()
    status, answer = await connection.ask(request)
    times.append(1000 * (time.perf_counter() - started))
    assert status == 200, answer
    return json.loads(answer)


async def mixed_load(server: Server, seconds: float) -> tuple[list[float], Load]:
    """Resident MB, sampled while four clients ask four models about images that are new and images that are not."""
    await closed_loop(server.url, [next(each) for each in mixed()], clients=1)
    resident: list[float] = []
    async with AsyncExitStack() as running:
        loads = [await running.enter_async_context(background(server.url, each, clients=1)) for each in mixed()]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(SAMPLE_SECONDS)
            resident.append(server.resident_mb())
    together = Load()
    for load in loads:
        together.add(load)
    return resident, together


def mixed() -> list[Iterator[bytes]]:
    return [requests(model) for model in MIXED]


def requests(model: str) -> Iterator[bytes]:
    """Without end: about one picture three times, and then about another."""
    body = {**MIXED[model], "model_id": f"demo/{model}"}
    for picture in fresh_base64(640, 480):
        yield from repeat(json_request(f"/inference/{model}", {**body, "images": [picture]}), 3)


def row(jobs: int, part: Part) -> tuple[str, ...]:
    latencies = [f"{percentile(times, percent):.2f}" for times in (part.submitted, part.polled) for percent in (50, 99)]
    return str(jobs), *latencies, f"{part.resident_mb:.0f}"


def print_growth(minutes: float, resident: list[float], load: Load) -> None:
    quarter = len(resident) // 4
    quarters = [mean(resident[number * quarter : (number + 1) * quarter]) for number in range(4)]
    print_table(
        f"Resident memory in {minutes:g} minutes of mixed load, four clients, one for each embedded checkpoint",
        ("quarter", "mean MB", "most MB"),
        (
            (str(number + 1), f"{average:.0f}", f"{max(resident[number * quarter : (number + 1) * quarter]):.0f}")
            for number, average in enumerate(quarters)
        ),
        notes=[
            f"{len(load.times)} answers; failures: {dict(load.failures) or 'none'}",
            at_most(
                "the last quarter's mean over the second's", 100 * (quarters[3] / quarters[1] - 1), GOAL_PERCENT, " %"
            ),
        ],
    )


if __name__ == "__main__":
    main()
