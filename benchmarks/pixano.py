"""This server and Pixano Inference itself, with one and the same configuration file: what a Pixano user gains.

python -m benchmarks.pixano

Where this Python has no Pixano server, `--pixano-python` names one that has, whose environment is best its own:

    python -m venv /tmp/pixano && /tmp/pixano/bin/pip install 'pixano-inference[server]==0.7.1'
    python -m benchmarks.pixano --pixano-python /tmp/pixano/bin/python
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from benchmarks.contenders import Way, encode_base64
from benchmarks.load import json_request
from benchmarks.peers.with_pixano import CONFIG
from benchmarks.pictures import padded_photographs, photographs
from benchmarks.report import at_least, at_most, print_table
from benchmarks.server import Server, our_server, peer_server
from vision_model_repo.demo.live import COMMAND

OURS, THEIRS = "this server", "Pixano Inference"
NOTHING, DECODED = "nothing", "decoded"
PATH = "/v1/inference/detection"
MB = 2**20
START_SECONDS = 240.0
"""Patience with Ray on a busy machine."""


@dataclass
class Contender:
    """A server, what it took to start it, and how fast it answers.

    Attributes:
        seconds: from the start of the process to the first answer.
        resident, proportional: MB of all its processes; shared pages count in each, or in parts that add up to one.
        ways: by the name of the model.
    """

    name: str
    seconds: float
    processes: int
    resident: float
    proportional: float
    ways: dict[str, Way] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each trial")
    parser.add_argument("--pixano-python", default=sys.executable, help="a Python with pixano-inference[server]")
    options = parser.parse_args()
    contenders = [measure(OURS, ours, options.clients, options.seconds)]
    if has_pixano(options.pixano_python):
        os.environ["PIXANO_PYTHON"] = options.pixano_python
        contenders.append(measure(THEIRS, theirs, options.clients, options.seconds))
    else:
        print(f"{THEIRS} is left out: {options.pixano_python} has no pixano-inference[server].")
    print_footprint(contenders)
    print_answers(contenders, options.clients)


def has_pixano(python: str) -> bool:
    probe = subprocess.run([python, "-c", "import pixano_inference.cli, ray.serve"], capture_output=True)
    return probe.returncode == 0


def ours() -> AbstractContextManager[Server]:
    return our_server(command=(*COMMAND, "--protocol", "pixano", "--config", str(CONFIG)))


def theirs() -> AbstractContextManager[Server]:
    probe = next(iter(requests(NOTHING)))
    return peer_server(
        "benchmarks.peers.with_pixano", probe, cores=os.sched_getaffinity(0), start_seconds=START_SECONDS
    )


def requests(model: str) -> Sequence[bytes]:
    """Pictures of 100 KB: with next to no pixels for the detector that does nothing, real ones for the other."""
    pictures = padded_photographs(8) if model == NOTHING else photographs(8)
    uris = (f"data:image/jpeg;base64,{encode_base64(picture)}" for picture in pictures)
    return [json_request(PATH, {"model": model, "image": uri}) for uri in uris]


def measure(
    name: str, start: Callable[[], AbstractContextManager[Server]], clients: Sequence[int], seconds: float
) -> Contender:
    started = time.perf_counter()
    with start() as server:
        ways = {model: Way(name, "JSON", server, requests(model)) for model in (NOTHING, DECODED)}
        ways[NOTHING].measure(1, 0.0)
        ready = time.perf_counter() - started
        for way in ways.values():
            # The first answer of a model may have to load it.
            way.loads.clear()
            way.cpu_seconds.clear()
            for count in clients:
                way.measure(count, seconds)
        return Contender(name, ready, len(server.processes()), server.resident_mb(), proportional_mb(server), ways)


def proportional_mb(server: Server) -> float:
    return sum(process.memory_full_info().pss for process in server.processes()) / MB


def print_footprint(contenders: Sequence[Contender]) -> None:
    print_table(
        "Two detectors that find nothing, from the same configuration file",
        ("server", "s to first answer", "processes", "MB resident", "MB, shared pages once"),
        (
            (each.name, f"{each.seconds:.1f}", f"{each.processes}", f"{each.resident:.0f}", f"{each.proportional:.0f}")
            for each in contenders
        ),
        notes=[
            line
            for us, them in pairs(contenders)
            for line in (
                at_most("start-up, share of Pixano's", us.seconds / them.seconds, 0.1),
                at_most("resident memory, share of Pixano's", us.resident / them.resident, 0.067),
            )
        ],
    )


def print_answers(contenders: Sequence[Contender], clients: Sequence[int]) -> None:
    print_table(
        "POST /v1/inference/detection, a JPEG of 100 KB as JSON: of 8 x 8 pixels to a detector that does nothing, "
        "of 1280 x 853 to one that decodes it",
        ("detector", "clients", "server", "answers/s", "p50 ms", "p99 ms", "CPU ms", "errors"),
        (
            (model, f"{count}", each.name, *figures(each.ways[model], count))
            for model in (NOTHING, DECODED)
            for count in clients
            for each in contenders
        ),
        notes=[
            at_least(
                f"answers/s with {clients[-1]} clients, {model}",
                us.ways[model].loads[clients[-1]].rate / them.ways[model].loads[clients[-1]].rate,
                8.0,
                " x",
            )
            for us, them in pairs(contenders)
            for model in (NOTHING, DECODED)
        ],
    )


def pairs(contenders: Sequence[Contender]) -> Iterator[tuple[Contender, Contender]]:
    if len(contenders) == 2:
        yield contenders[0], contenders[1]


def figures(way: Way, clients: int) -> tuple[str, ...]:
    load = way.loads[clients]
    return (
        f"{load.rate:.0f}",
        f"{load.percentile(50):.1f}",
        f"{load.percentile(99):.0f}",
        f"{way.cpu_ms(clients):.2f}",
        f"{load.errors}",
    )


if __name__ == "__main__":
    main()
