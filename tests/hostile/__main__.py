"""The whole campaign against this server, with a table of what it cost: `python -m tests.hostile [--parts NAME ...]`.

Ends with code 1 where anything crashed, took too long, was answered with a status of 500, or shut an honest client out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

from tests.hostile import campaign
from tests.hostile.campaign import Part

PARTS = ("media", "images", "bodies", "connections", "checkpoints")
SHOWN_FAILURES = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=10_000, help="mutated pictures decoded in process")
    parser.add_argument("--videos", type=int, default=2_000, help="mutated videos decoded in process")
    parser.add_argument("--requests", type=int, default=1_000, help="pictures, and bodies, sent over HTTP")
    options = parser.parse_args()
    failed = 0
    for part in _run(options):
        failed += len(part.failures)
        _print(part)
    print(f"\n{failed} failures" if failed else "\nno failures", flush=True)
    return 1 if failed else 0


def _run(options: argparse.Namespace) -> Iterator[Part]:
    started = time.perf_counter()
    if "media" in options.parts:
        yield from campaign.media(options.seed, options.images, options.videos)
    if "checkpoints" in options.parts:
        yield from campaign.checkpoints()
    if {"images", "bodies", "connections"} & set(options.parts):
        with campaign.attacked_server() as server:
            single: dict[str, Callable[..., Part]] = {
                "images": campaign.images_over_http,
                "bodies": campaign.bodies_over_http,
            }
            for name, run in single.items():
                if name in options.parts:
                    yield run(server, options.seed, options.requests)
            if "connections" in options.parts:
                yield from campaign.attacks_on_connections(server)
    print(f"\n{time.perf_counter() - started:.0f} s in all")


def _print(part: Part) -> None:
    print(f"\n{part.name}: {'FAILED' if part.failures else 'held'}")
    for line in part.lines:
        print(f"  {line}")
    for failure in part.failures[:SHOWN_FAILURES]:
        print(f"  FAILED {failure}")
    if len(part.failures) > SHOWN_FAILURES:
        print(f"  ... and {len(part.failures) - SHOWN_FAILURES} more", flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
