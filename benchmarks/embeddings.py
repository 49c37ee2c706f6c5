"""Embedding texts: the form of Ingrain's own benchmark, one with texts of many lengths, and what serving itself costs.

`Hello, world!` over and over is what the reference measures. Distinct texts of mixed length are what people send. The
peer is sentence-transformers' `encode`, called for each request behind plain FastAPI. What serving costs measured
with a model that does nothing.

python -m benchmarks.embeddings
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib.util import find_spec

from benchmarks.load import Connection, Load, closed_loop, json_request, run
from benchmarks.report import at_most, print_table
from benchmarks.server import Server, halves, on_cores, our_server, peer_server

MODEL = "demo/minilm"
HELLO = "Hello, world!"
WORDS = "the a photograph of red blue small large dog cat city river stands under over near bright old music".split()
STAND_IN = ("-m", "uvicorn", "benchmarks.embedding_app:app", "--port", "0", "--no-access-log")
BARE_CLIENTS = 8
GOALS = {"/embed_text": 0.6, "/embed": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--each", type=int, default=100, help="requests of each client")
    parser.add_argument("--bare-requests", type=int, default=4000, help="to a model that does nothing")
    parser.add_argument("--peers", type=int, default=1, help="0 leaves the peer out")
    options = parser.parse_args()
    total = options.clients * options.each
    loads = {f'"{HELLO}"': [HELLO], "distinct texts of 1 to 120 words": list(mixed(total))}
    rows: dict[str, list[tuple[str, ...]]] = {title: [] for title in loads}
    server_cores, client_cores = halves()
    for name, server in contenders(server_cores, peers=bool(options.peers)):
        with on_cores(client_cores):
            for title, texts in loads.items():
                rows[title].append(row(name, *measure(server, texts, options.clients, total)))
    for title, measured in rows.items():
        print_table(f"{options.clients} clients, {total} requests, {title}", COLUMNS, measured)
    print_overhead(options.bare_requests)


def contenders(cores: Collection[int], *, peers: bool) -> Iterator[tuple[str, Server]]:
    """Our server with the model loaded, and then the peer where it is installed, each alone."""
    with our_server(cores=cores) as server:
        run(_load(server))
        yield "this server", server
    if not peers:
        return
    if find_spec("sentence_transformers") is None:
        print("sentence-transformers is left out: it is not installed.")
        return
    probe = json_request("/embed", {"name": MODEL, "text": HELLO})
    with peer_server("benchmarks.peers.with_sentence_transformers", probe, cores=cores) as server:
        yield "sentence-transformers", server


COLUMNS = ("server", "requests/s", "mean ms", "p50 ms", "p95 ms", "p99 ms", "CPU ms each", "errors")


def mixed(count: int) -> Iterator[str]:
    """Texts of which no two are alike, most of them short."""
    chance = random.Random(0)
    for index in range(count):
        words = min(120, int(chance.lognormvariate(2.5, 0.9)) + 1)
        yield f"{index} " + " ".join(chance.choices(WORDS, k=words))


def measure(server: Server, texts: Sequence[str], clients: int, total: int, path: str = "/embed") -> tuple[Load, float]:
    """What came of the requests, and the CPU milliseconds of each."""
    requests = [json_request(path, {"name": MODEL, "text": text}) for text in texts]
    run(closed_loop(server.url, (requests[index % len(requests)] for index in range(2 * clients)), clients=clients))
    before = server.cpu_seconds()
    load = run(closed_loop(server.url, (requests[index % len(requests)] for index in range(total)), clients=clients))
    return load, 1000 * (server.cpu_seconds() - before) / total


def row(name: str, load: Load, cpu_ms: float) -> tuple[str, ...]:
    mean = sum(load.times) / max(1, len(load.times))
    times = (mean, *(load.percentile(percent) for percent in (50, 95, 99)))
    return name, f"{load.rate:.0f}", *(f"{time:.1f}" for time in times), f"{cpu_ms:.2f}", str(load.errors)


def print_overhead(total: int) -> None:
    """What serving costs where the model costs nothing."""
    server_cores, client_cores = halves()
    rows, notes = [], []
    with our_server(cores=server_cores, command=(sys.executable, *STAND_IN)) as server, on_cores(client_cores):
        for path, goal in GOALS.items():
            load, cpu_ms = measure(server, [HELLO], BARE_CLIENTS, total, path)
            rows.append(row(path, load, cpu_ms))
            notes.append(at_most(f"{path}, CPU of serving a request", cpu_ms, goal, " ms"))
    print_table(
        f"A model that does nothing, 384 dimensions, {BARE_CLIENTS} clients",
        ("path", *COLUMNS[1:]),
        rows,
        notes=notes,
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
