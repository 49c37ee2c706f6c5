"""Sixteen clients with one image each: requests that share forward passes against requests that do not.

Both servers are up all the time and take turns. Every picture is new, so that nothing remembered helps.

python -m benchmarks.batching
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

from benchmarks.load import Load, closed_loop, json_request, run
from benchmarks.pictures import fresh_base64
from benchmarks.report import at_least, print_table
from benchmarks.server import our_server

WIDTH, HEIGHT = 640, 480
GOAL = 1.5
MODELS: dict[str, dict[str, Any]] = {
    "sam3": {"prompts": ["red cube"]},
    "grounding-dino": {"prompts": ["cube", "sphere"]},
    "depth-anything": {"export_format": "png"},
    "dinov3": {"encoding": "base64"},
}
"""What is asked of each embedded checkpoint."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64, help="in each trial")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    options = parser.parse_args()
    pictures = fresh_base64(WIDTH, HEIGHT)
    loads = {(model, size): Load() for model in options.models for size in (8, 1)}
    with ExitStack() as running:
        servers = {size: running.enter_context(our_server(MAX_BATCH_SIZE=str(size))) for size in (8, 1)}
        for model in options.models:
            for server in servers.values():
                first = requests(model, islice(pictures, options.clients))
                run(closed_loop(server.url, first, clients=options.clients))
            for _ in range(options.rounds):
                for size, server in servers.items():
                    sent = list(requests(model, islice(pictures, options.requests)))
                    loads[model, size].add(run(closed_loop(server.url, sent, clients=options.clients)))
    print_table(
        f"{options.clients} clients with an image of {WIDTH} x {HEIGHT} each, all of them new to the server",
        ("model", "MAX_BATCH_SIZE 8: images/s", "p50 ms", "1: images/s", "p50 ms", "ratio", "errors"),
        (row(model, loads[model, 8], loads[model, 1]) for model in options.models),
        notes=[
            at_least(f"demo/{model}, images/s", loads[model, 8].rate / loads[model, 1].rate, GOAL, " x")
            for model in options.models
        ],
    )


def requests(model: str, pictures: Iterator[str]) -> Iterator[bytes]:
    body = {**MODELS[model], "model_id": f"demo/{model}"}
    return (json_request(f"/inference/{model}", {**body, "images": [picture]}) for picture in pictures)


def row(model: str, together: Load, single: Load) -> tuple[str, ...]:
    return (
        f"demo/{model}",
        f"{together.rate:.1f}",
        f"{together.percentile(50):.0f}",
        f"{single.rate:.1f}",
        f"{single.percentile(50):.0f}",
        f"{together.rate / single.rate:.2f}",
        str(together.errors + single.errors),
    )


if __name__ == "__main__":
    main()
