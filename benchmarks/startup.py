"""From the start of the process to its first answers, and whether torch is left alone until a model is asked for.

python -m benchmarks.startup
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median
from typing import Any

from benchmarks.load import closed_loop, json_request, request, run
from benchmarks.pictures import fresh_base64
from benchmarks.report import at_most, elapsed_ms, print_table
from benchmarks.server import Server, our_server

HEALTH = "GET /health"
IMPORTS = "import torch and transformers, and no server"
ANSWERS: dict[str, dict[str, Any]] = {
    "/inference/dinov3": {"model_id": "demo/dinov3"},
    "/inference/sam3": {"model_id": "demo/sam3", "prompts": ["cube"]},
}
GOAL_SECONDS = 1.5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--requests", nargs="+", default=list(ANSWERS), choices=ANSWERS)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in (HEALTH, *options.requests, IMPORTS)}
    torch_before: list[bool] = []
    picture = next(fresh_base64(640, 480))
    for _ in range(options.repeats):
        for name in options.requests:
            started = time.perf_counter()
            with our_server() as server:
                ask(server, request("GET", "/health"))
                seconds[HEALTH].append(time.perf_counter() - started)
                torch_before.append(has_torch(server))
                ask(server, json_request(name, {**ANSWERS[name], "images": [picture]}))
                seconds[name].append(time.perf_counter() - started)
        seconds[IMPORTS].append(elapsed_ms(import_all) / 1000)
    print_table(
        "Seconds from the start of the process to the first answer",
        ("first request", "median s", "least s"),
        ((name, f"{median(times):.2f}", f"{min(times):.2f}") for name, times in seconds.items()),
        notes=[
            at_most(HEALTH, median(seconds[HEALTH]), GOAL_SECONDS, " s"),
            f"torch was in memory when /health answered: {sum(torch_before)} times of {len(torch_before)}",
        ],
    )


def ask(server: Server, request: bytes) -> None:
    load = run(closed_loop(server.url, [request], clients=1))
    assert not load.errors


def has_torch(server: Server) -> bool:
    return any("libtorch" in mapped.path for mapped in server.process.memory_maps())


def import_all() -> None:
    subprocess.run([sys.executable, "-c", "import torch, transformers"], check=True)


if __name__ == "__main__":
    main()
