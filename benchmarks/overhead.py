"""What serving itself costs: a model that does nothing, and a 100 KB JPEG as JSON, as a form and by its id.

The server has one half of the cores and its clients the other. One server runs at a time, ours first. The floor is the
same bytes parsed and decoded in a loop, with nothing around it, on the server's cores: the best of some trials before
the servers and after them.

python -m benchmarks.overhead
python -m benchmarks.overhead --before ../another-checkout --rounds 15
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from benchmarks.before import compare
from benchmarks.contenders import OURS, PEERS, Way, contenders, encode_base64, our_json
from benchmarks.pictures import padded_photographs, photographs
from benchmarks.report import at_least, at_most, print_table
from benchmarks.server import Server, halves, on_cores
from vision_model_repo.api.native.detection import DetectionBody
from vision_model_repo.formats.images import decode_base64, decode_image, use_block_cache

BARE_CLIENTS = 8
RATE_CLIENTS, LATENCY_CLIENTS = 8, 32
"""Where throughput and latency are compared."""
GOAL_RATIOS = {"LitServe": 1.5, "mosec": 1.1, "Ray Serve": 4.0}
GOAL_CPU_MS = {"JSON": 0.30, "form": 0.20}
GOAL_FLOOR_PERCENT = 80.0
GOAL_IDLE_PERCENT = 0.5
MAX_PIXELS = 10**8
COLUMNS = ("server", "sent as", "requests/s", "p50 ms", "p99 ms", "CPU ms each", "errors")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each trial")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--idle-seconds", type=float, default=5.0)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS, help="other servers, where installed")
    parser.add_argument("--before", type=Path, help="a checkout of another commit: only compare with that")
    options = parser.parse_args()
    server_cores, client_cores = halves()
    pictures = photographs(8)
    if options.before is not None:
        with on_cores(client_cores):
            rounds, seconds = options.rounds, options.seconds
            compare(options.before, server_cores, pictures, padded_photographs(8), rounds=rounds, seconds=seconds)
        return
    floors: dict[str, list[float]] = {"JSON": [], "form": []}
    ways: list[Way] = []
    idle = float("nan")

    def measure_floors() -> None:
        for sent, rates in floors.items():
            rates += [floor(sent, pictures, server_cores, options.seconds) for _ in range(options.rounds)]

    measure_floors()
    with on_cores(client_cores):
        for to_one in contenders(server_cores, options.peers, pictures, padded_photographs(8)):
            if not ways:
                idle = idle_percent(to_one[0].server, options.idle_seconds)
            for _, way in product(range(options.rounds), to_one):
                for clients in [BARE_CLIENTS] if way.bare else options.clients:
                    way.measure(clients, options.seconds)
            ways += to_one
    measure_floors()
    print_decoding(ways, options.clients, {sent: max(rates) for sent, rates in floors.items()})
    print_bare(ways, idle)


def idle_percent(server: Server, seconds: float) -> float:
    """How much of a core a server takes while nobody asks it anything."""
    before = server.cpu_seconds()
    time.sleep(seconds)
    return 100 * (server.cpu_seconds() - before) / seconds


def floor(sent: str, pictures: Sequence[bytes], cores: Collection[int], seconds: float) -> float:
    """Pictures parsed and decoded a second, by one thread on each of these cores."""
    use_block_cache(16)
    # The body of an HTTP request begins after the empty line.
    bodies = [our_json(encode_base64(picture)).partition(b"\r\n\r\n")[2] for picture in pictures]
    inputs, work = (bodies, decode_json) if sent == "JSON" else (pictures, decode)
    until = time.perf_counter() + seconds

    def count() -> int:
        done = 0
        while time.perf_counter() < until:
            work(inputs[done % len(inputs)])
            done += 1
        return done

    with on_cores(cores), ThreadPoolExecutor(len(cores)) as threads:
        counts = [threads.submit(count) for _ in cores]
    return sum(future.result() for future in counts) / seconds


def decode_json(body: bytes) -> None:
    decode(decode_base64(str(DetectionBody.model_validate_json(body, strict=True).images[0])))


def decode(picture: bytes) -> None:
    decode_image(picture, max_pixels=MAX_PIXELS)


def print_decoding(ways: Sequence[Way], clients: Sequence[int], floors: dict[str, float]) -> None:
    rows: list[tuple[str, ...]] = [
        ("", "the floor", sent, f"{rate:.0f}", "", "", f"{1000 / rate:.2f}", "") for sent, rate in floors.items()
    ]
    for count in clients:
        for way in ways:
            if not way.bare:
                rows.append((str(count), *row(way, count)))
    print_table(
        "A JPEG of 1280 x 853, 100 KB, decoded and answered by a model that does nothing",
        ("clients", *COLUMNS),
        rows,
        notes=list(goals(ways, clients, floors)),
    )


def goals(ways: Sequence[Way], clients: Sequence[int], floors: dict[str, float]) -> Iterator[str]:
    """What was reached with JSON and with bytes as they are; a form is the same to us as a raw body to others."""
    for sent, floor in floors.items():
        decoding = [way for way in ways if not way.bare and (way.sent == "JSON") == (sent == "JSON")]
        (ours,) = (way for way in decoding if way.name == OURS and way.sent == sent)
        peers = [way for way in decoding if way.name != OURS]
        if RATE_CLIENTS in clients:
            rate, at = ours.loads[RATE_CLIENTS].rate, f"{sent}, {RATE_CLIENTS} clients"
            yield at_least(f"{at}, share of the floor", 100 * rate / floor, GOAL_FLOOR_PERCENT, " %")
            for peer in peers:
                if peer.name in GOAL_RATIOS:
                    ratio = rate / peer.loads[RATE_CLIENTS].rate
                    yield at_least(f"{at}, throughput against {peer.name}", ratio, GOAL_RATIOS[peer.name], " x")
        if LATENCY_CLIENTS in clients and peers:
            least = min(peers, key=lambda way: way.loads[LATENCY_CLIENTS].percentile(99))
            ratio = ours.loads[LATENCY_CLIENTS].percentile(99) / least.loads[LATENCY_CLIENTS].percentile(99)
            yield at_most(f"{sent}, {LATENCY_CLIENTS} clients, p99 against the least ({least.name})", ratio, 1, " x")


def print_bare(ways: Sequence[Way], idle: float) -> None:
    print_table(
        f"The same without pixels to decode: the framework alone, {BARE_CLIENTS} clients",
        COLUMNS,
        [row(way, BARE_CLIENTS) for way in ways if way.bare],
        notes=[
            *(
                at_most(f"{way.sent}, CPU for each request", way.cpu_ms(BARE_CLIENTS), GOAL_CPU_MS[way.sent], " ms")
                for way in ways
                if way.bare and way.name == OURS
            ),
            at_most("of a core taken when nobody asks", idle, GOAL_IDLE_PERCENT, " %"),
        ],
    )


def row(way: Way, clients: int) -> tuple[str, ...]:
    load = way.loads[clients]
    latencies = f"{load.percentile(50):.1f}", f"{load.percentile(99):.1f}"
    return way.name, way.sent, f"{load.rate:.0f}", *latencies, f"{way.cpu_ms(clients):.2f}", str(load.errors)


if __name__ == "__main__":
    main()
