"""Everybody who is asked to decode a JPEG and answer, and in which ways the picture is sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import cycle
from typing import Any

from benchmarks.load import Connection, Load, closed_loop, form_request, json_request, request, run
from benchmarks.server import DUMMY_APP, Server, our_server, peer_server

OURS = "this server"
PEERS = {
    "FastAPI": ("fastapi", "plain_fastapi"),
    "LitServe": ("litserve", "with_litserve"),
    "Ray Serve": ("ray", "with_ray_serve"),
    "mosec": ("mosec", "with_mosec"),
}
"""By name, the package that must be installed and the module that serves."""


@dataclass
class Way:
    """One way to send pictures to one server, and what came of it, by number of clients.

    Attributes:
        sent: "JSON", "form", "raw" or "id".
        bare: whether the pictures have next to no pixels, so that nothing but the framework costs.
    """

    name: str
    sent: str
    server: Server
    requests: Sequence[bytes]
    bare: bool = False
    loads: dict[int, Load] = field(default_factory=dict)
    cpu_seconds: dict[int, float] = field(default_factory=dict)

    def measure(self, clients: int, seconds: float) -> None:
        """Adds one trial, after a fifth of its time to get warm."""
        run(closed_loop(self.server.url, cycle(self.requests), clients=clients, seconds=seconds / 5))
        before = self.server.cpu_seconds()
        load = run(closed_loop(self.server.url, cycle(self.requests), clients=clients, seconds=seconds))
        self.cpu_seconds[clients] = self.cpu_seconds.get(clients, 0.0) + self.server.cpu_seconds() - before
        self.loads.setdefault(clients, Load()).add(load)

    def cpu_ms(self, clients: int) -> float:
        """Time on a core for each request."""
        return 1000 * self.cpu_seconds[clients] / max(1, len(self.loads[clients].times))


def contenders(
    cores: Collection[int], peers: Sequence[str], pictures: Sequence[bytes], bare: Sequence[bytes]
) -> Iterator[list[Way]]:
    """Starts our server, and then each of the peers that is installed, alone; gives the ways to ask it."""
    # Nobody's log has a line for each request.
    with our_server(cores=cores, command=DUMMY_APP, LOG_LEVEL="WARNING") as ours:
        yield [*our_ways(ours, pictures), _by_id(ours, pictures), *our_ways(ours, bare, bare=True)]
    probe = json_request("/json", {"image": encode_base64(bare[0])})
    for name in peers:
        package, module = PEERS[name]
        if find_spec(package) is None:
            print(f"{name} is left out: {package} is not installed (pip install 'vision-model-repo[bench]').")
            continue
        with peer_server(f"benchmarks.peers.{module}", probe, cores=cores) as peer:
            yield [*_peer_ways(name, peer, pictures), *_peer_ways(name, peer, bare, bare=True)]


def our_json(image: str | dict[str, str]) -> bytes:
    """A request for the dummy model."""
    return json_request("/inference/dummy", {"images": [image], "prompts": ["object"]})


def our_ways(server: Server, pictures: Sequence[bytes], *, bare: bool = False) -> Iterator[Way]:
    """JSON and forms for the dummy model."""
    forms = [form_request("/inference/dummy/upload", picture, prompts="object") for picture in pictures]
    yield Way(OURS, "JSON", server, [our_json(encode_base64(picture)) for picture in pictures], bare)
    yield Way(OURS, "form", server, forms, bare)


def _by_id(server: Server, pictures: Sequence[bytes]) -> Way:
    stored = run(_post(server, [json_request("/images", {"image": encode_base64(picture)}) for picture in pictures]))
    return Way(OURS, "id", server, [our_json({"data": image["image_id"], "format": "id"}) for image in stored])


def _peer_ways(name: str, server: Server, pictures: Sequence[bytes], *, bare: bool = False) -> Iterator[Way]:
    yield Way(
        name, "JSON", server, [json_request("/json", {"image": encode_base64(picture)}) for picture in pictures], bare
    )
    if name == "mosec":
        raw = [request("POST", "/raw", picture, content_type="image/jpeg") for picture in pictures]
        yield Way(name, "raw", server, raw, bare)
    else:
        yield Way(name, "form", server, [form_request("/form", picture) for picture in pictures], bare)


async def _post(server: Server, requests: Sequence[bytes]) -> list[dict[str, Any]]:
    connection = await Connection.to(server.url)
    answers = [await connection.ask(request) for request in requests]
    connection.close()
    assert all(status in (200, 201) for status, _ in answers), answers[0]
    return [json.loads(body) for _, body in answers]


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
